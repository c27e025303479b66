//! What models, tools and other machines wrote, made safe for a terminal.

/// Longest line that is looked at, in characters; what is behind it is cut.
pub const LINE_CHARS_MAX: usize = 2_000;
/// Lines of one text that are shown.
pub const LINES_MAX: usize = 2_000;
/// Columns of a tab.
const TAB: &str = "    ";

/// One line: no escape sequences, control characters, characters that turn the direction of writing
/// or take no room; at most `most` characters, with `…` where something was cut.
#[must_use]
pub fn plain(text: &str, most: usize) -> String {
    // Ten megabytes without a line break are not walked through for the sake of a few columns.
    let mut rest = text.chars().take(most.saturating_mul(4).saturating_add(64)).peekable();
    let mut out = String::new();
    let mut kept = 0;
    while let Some(c) = rest.next() {
        let piece = match c {
            '\u{1b}' => {
                skip_escape(&mut rest);
                continue;
            }
            '\t' => TAB,
            '\n' | '\r' => " ",
            c if is_hostile(c) => continue,
            c => {
                if kept == most {
                    return cut(out);
                }
                out.push(c);
                kept += 1;
                continue;
            }
        };
        if kept + piece.len() > most {
            return cut(out);
        }
        out.push_str(piece);
        kept += piece.len();
    }
    out
}

/// A text of several lines, each as by [`plain`]; at most [`LINES_MAX`] of them.
#[must_use]
pub fn lines(text: &str) -> Vec<String> {
    let mut shown: Vec<String> =
        text.lines().take(LINES_MAX).map(|line| plain(line, LINE_CHARS_MAX)).collect();
    if text.lines().nth(LINES_MAX).is_some() {
        shown.push(format!("… and more than {LINES_MAX} lines"));
    }
    shown
}

fn cut(mut out: String) -> String {
    out.pop();
    out.push('…');
    out
}

/// Leaves out the rest of an escape sequence: `[`…letter, `]`…bell, or one character.
fn skip_escape(rest: &mut std::iter::Peekable<impl Iterator<Item = char>>) {
    match rest.next() {
        Some('[') => while rest.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
        Some(']' | 'P' | '_' | '^' | 'X') => {
            while let Some(c) = rest.next() {
                if c == '\u{7}' || (c == '\u{1b}' && rest.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        _ => {}
    }
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}' | '\u{0300}'..='\u{036f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_control_and_invisible_characters_are_gone() {
        let hostile = "\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}a\u{8}\u{202e}b\u{200b}c\u{9b}2J";
        assert_eq!(plain(hostile, 80), "red abc2J");
        assert_eq!(plain("a\u{1b}]8;;http://x\u{1b}\\link\u{1b}Pq\u{1b}\\z", 80), "alinkz");
        assert_eq!(plain("a\nb\tc\u{1b}", 80), "a b    c");
    }

    #[test]
    fn a_line_of_ten_megabytes_is_cut() {
        let shown = plain(&"x".repeat(10 << 20), 20);
        assert_eq!((shown.chars().count(), shown.ends_with('…')), (20, true));
        assert_eq!(plain(&"\u{1b}[31m".repeat(1 << 20), 20), "");
        assert!(lines(&"y\n".repeat(1 << 20)).len() <= LINES_MAX + 1);
        assert_eq!(plain("", 0), "");
    }
}
