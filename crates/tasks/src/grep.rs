//! What GNU grep prints for a fixed text, so that traces need no process.

/// Output of `grep [-n] -A after text file` for a text without special characters: matching lines
/// with the `after` lines behind each, `--` between groups that do not touch.
pub(crate) fn grep(content: &str, text: &str, after: usize, numbers: bool) -> String {
    let mut out = String::new();
    let mut left = 0; // context lines still to print
    let mut printed = None; // index of the last line printed
    for (index, line) in content.split_terminator('\n').enumerate() {
        let hit = line.contains(text);
        if hit {
            left = after;
        } else if left > 0 {
            left -= 1;
        } else {
            continue;
        }
        // Without context grep prints no separators.
        if after > 0 && printed.is_some_and(|last: usize| last + 1 < index) {
            out.push_str("--\n");
        }
        printed = Some(index);
        if numbers {
            out.push_str(&(index + 1).to_string());
            out.push(if hit { ':' } else { '-' });
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}
