//! The page: HTML, CSS and JavaScript modules, embedded as they are. No build step, nothing from
//! elsewhere.

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// Its media type.
    pub kind: &'static str,
    /// Its text.
    pub content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! assets {
    ($($path:literal, $kind:ident, $file:literal;)*) => {
        /// Every file of the page.
        pub const ALL: &[Asset] = &[$(Asset {
            path: $path,
            kind: $kind,
            content: include_str!(concat!("../web/", $file)),
        }),*];
    };
}

assets! {
    "/", HTML, "index.html";
    "/style.css", CSS, "style.css";
    "/icon.svg", SVG, "icon.svg";
    "/app.js", JS, "app.js";
    "/link.js", JS, "link.js";
    "/dom.js", JS, "dom.js";
    "/text.js", JS, "text.js";
    "/format.js", JS, "format.js";
    "/keys.js", JS, "keys.js";
    "/chart.js", JS, "chart.js";
    "/table.js", JS, "table.js";
    "/map.js", JS, "map.js";
    "/patch.js", JS, "patch.js";
    "/call.js", JS, "call.js";
    "/tokens.js", JS, "tokens.js";
    "/under_way.js", JS, "under_way.js";
    "/views/overview.js", JS, "views/overview.js";
    "/views/actors.js", JS, "views/actors.js";
    "/views/curves.js", JS, "views/curves.js";
    "/views/rollouts.js", JS, "views/rollouts.js";
    "/views/episode.js", JS, "views/episode.js";
    "/views/compare.js", JS, "views/compare.js";
    "/views/faults.js", JS, "views/faults.js";
}

/// The file of a path.
#[must_use]
pub fn find(path: &str) -> Option<&'static Asset> {
    ALL.iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_that_is_imported_is_embedded_and_nothing_is_from_elsewhere() {
        for asset in ALL {
            for line in asset.content.lines().filter(|line| line.starts_with("import ")) {
                let from = line.split('"').nth(1).expect("a module");
                let is_there = find(from).is_some();
                assert!(is_there, "{} imports {from}, which is not embedded", asset.path);
            }
            for scheme in ["http://", "https://", "//cdn"] {
                let foreign = asset.content.replace("http://www.w3.org/", "");
                assert!(!foreign.contains(scheme), "{} names another site", asset.path);
            }
        }
    }

    #[test]
    fn no_module_writes_markup() {
        // Text of models is put up with textContent; what would parse it is not used at all.
        for asset in ALL.iter().filter(|asset| asset.kind == JS) {
            for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!asset.content.contains(sink), "{} uses {sink}", asset.path);
            }
        }
    }
}
