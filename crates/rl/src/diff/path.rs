//! Paths in diff headers: prefixes, git's quoting, plain diff's time stamps.

/// The path of a `---` or `+++` line, `rename from` and the like: unquoted, without time stamp.
pub(super) fn read(field: &str) -> Result<String, String> {
    let field = field.trim_end_matches('\r');
    if let Some(quoted) = field.strip_prefix('"') {
        return Ok(unquote(quoted)?.0);
    }
    // A tab ends the path: git puts one after a path with spaces, diff a time stamp.
    Ok(field.split('\t').next().unwrap_or(field).to_owned())
}

/// The path on one side, `a/` or `b/` taken off; `None` for `/dev/null`.
pub(super) fn side(field: &str, prefix: &str) -> Result<Option<String>, String> {
    let path = read(field)?;
    if path == "/dev/null" {
        return Ok(None);
    }
    let path = path.strip_prefix(prefix).unwrap_or(&path);
    check(path)?;
    Ok(Some(path.to_owned()))
}

/// Both paths of `diff --git`. Unquoted paths with spaces are told apart by being the same, as git
/// itself does it: renames repeat them on lines of their own.
pub(super) fn git_header(rest: &str) -> Option<(String, String)> {
    let rest = rest.trim_end_matches('\r');
    if let Some(quoted) = rest.strip_prefix('"') {
        let (old, after) = unquote(quoted).ok()?;
        let new = read(after.strip_prefix(' ')?).ok()?;
        return Some((strip(&old, "a/"), strip(&new, "b/")));
    }
    if let Some(at) = rest.find(" \"") {
        let new = read(&rest[at + 1..]).ok()?;
        return Some((strip(&rest[..at], "a/"), strip(&new, "b/")));
    }
    let halves = rest.match_indices(' ').map(|(at, _)| (&rest[..at], &rest[at + 1..]));
    let mut pairs = halves.map(|(old, new)| (strip(old, "a/"), strip(new, "b/")));
    pairs
        .find(|(old, new)| old == new)
        .or_else(|| rest.split_once(" b/").map(|(old, new)| (strip(old, "a/"), new.to_owned())))
}

fn strip(path: &str, prefix: &str) -> String {
    path.strip_prefix(prefix).unwrap_or(path).to_owned()
}

/// Refuses a path that leaves the tree: a patch is hostile input.
pub(super) fn check(path: &str) -> Result<(), String> {
    let leaves = path.starts_with('/') || path.split('/').any(|part| part == "..");
    if path.is_empty() {
        Err("an empty path".to_owned())
    } else if leaves {
        Err(format!("the path {path:?} leaves the tree"))
    } else {
        Ok(())
    }
}

/// Reads git's C-style quoting up to the closing quote; also what follows it.
fn unquote(text: &str) -> Result<(String, &str), String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        match rest {
            [b'"', after @ ..] => {
                let path = String::from_utf8(bytes).map_err(|_| "a path is not UTF-8")?;
                let at = text.len() - after.len();
                return Ok((path, &text[at..]));
            }
            [b'\\', d @ b'0'..=b'3', e @ b'0'..=b'7', f @ b'0'..=b'7', after @ ..] => {
                bytes.push((d - b'0') * 64 + (e - b'0') * 8 + (f - b'0'));
                rest = after;
            }
            [b'\\', c, after @ ..] => {
                bytes.push(match c {
                    b'a' => 7,
                    b'b' => 8,
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'v' => 11,
                    b'f' => 12,
                    b'r' => b'\r',
                    b'"' | b'\\' => *c,
                    _ => return Err("an unknown escape in a quoted path".to_owned()),
                });
                rest = after;
            }
            [c, after @ ..] => {
                bytes.push(*c);
                rest = after;
            }
            [] => return Err("a quoted path without its closing quote".to_owned()),
        }
    }
}
