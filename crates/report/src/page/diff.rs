//! A patch: what was added and taken away is told by its sign, its colour and its edge.

use crate::text;

/// Lines of a patch that are shown.
const LINES_MAX: usize = 120;
/// Characters of a patch that are shown.
const CHARS_MAX: usize = 12_000;

/// A patch, as a block.
#[must_use]
pub fn html(label: &str, patch: &str) -> String {
    if patch.trim().is_empty() {
        return "<p class=\"note\">Nothing was changed.</p>\n".to_owned();
    }
    let cut = text::excerpt(patch, LINES_MAX, CHARS_MAX);
    let mut out = format!(
        "<pre class=\"diff\" dir=\"ltr\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">",
        text::attribute(label)
    );
    let mut hunk = false;
    for line in cut.shown.lines() {
        if line.starts_with("diff --git ") {
            hunk = false;
        }
        // Before the first hunk, +++ and --- name files.
        let class = match line.as_bytes().first() {
            Some(b'@') => {
                hunk = true;
                "at"
            }
            Some(b'+') if hunk => "add",
            Some(b'-') if hunk => "del",
            _ if hunk => "same",
            _ => "head",
        };
        out += &format!("<span class=\"{class}\">{}\n</span>", text::html(line));
    }
    out += &super::picks::cut_note(cut.left_out);
    out + "</pre>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_and_removed_lines_keep_their_signs() {
        let patch = "diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n x\n--- y\n+<b>\n";
        let html = html("d", patch);
        for part in [
            "<span class=\"head\">--- a/f\n",
            "<span class=\"head\">+++ b/f\n",
            "<span class=\"at\">@@ -1,2 +1,2 @@\n",
            "<span class=\"same\"> x\n",
            "<span class=\"del\">--- y\n",
            "<span class=\"add\">+&lt;b&gt;\n",
        ] {
            assert!(html.contains(part), "{part:?} is not in {html}");
        }
    }

    #[test]
    fn a_long_patch_is_cut_and_says_so() {
        let patch = format!("@@ -1 +1 @@\n{}", "+x\n".repeat(100_000));
        let html = html("d", &patch);
        assert!(html.len() < 20_000 && html.contains("characters are not shown"));
        assert!(super::html("d", " \n").contains("Nothing was changed"));
    }
}
