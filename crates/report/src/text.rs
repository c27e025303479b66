//! Text of models, tools and task files: escaped, cut to a bound, and with everything visible that
//! a browser would not show or would act on.

/// Characters of a text that are shown at most where nothing else is said.
pub const LINE_CHARS_MAX: usize = 2_000;

/// What stands for a character that must not reach the page as it is.
fn stand_in(c: char) -> Option<String> {
    let code = c as u32;
    match code {
        0x0a | 0x09 => None,
        0x00..=0x1f => char::from_u32(0x2400 + code).map(String::from),
        0x7f => Some("\u{2421}".to_owned()),
        _ if is_hidden(code) => Some(format!("U+{code:04X}")),
        _ => None,
    }
}

/// Characters that have no shape of their own, change the direction of others, or are taken for
/// something else: control, format, fillers, variation selectors, tags, private use, not characters.
fn is_hidden(code: u32) -> bool {
    matches!(code,
        0x80..=0x9f | 0xa0 | 0xad | 0x34f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5
        | 0x180b..=0x180f | 0x2000..=0x200f | 0x2028..=0x202f | 0x205f..=0x206f | 0x2800 | 0x3000
        | 0x3164 | 0xe000..=0xf8ff | 0xfdd0..=0xfdef | 0xfe00..=0xfe0f | 0xfeff | 0xffa0
        | 0xfff0..=0xfffb | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0x10_ffff)
        || code & 0xfffe == 0xfffe
}

/// Text as HTML. What had to be replaced is marked.
#[must_use]
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => match stand_in(c) {
                Some(shown) => {
                    out.push_str("<span class=\"hidden-char\">");
                    out.push_str(&shown);
                    out.push_str("</span>");
                }
                None => out.push(c),
            },
        }
    }
    out
}

/// Text as HTML without elements, for attributes and for `<title>`; on one line.
#[must_use]
pub fn attribute(text: &str) -> String {
    let visible: String = text
        .chars()
        .map(|c| match c {
            '\n' | '\t' => " ".to_owned(),
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\'' => "&#39;".to_owned(),
            c => stand_in(c).map_or_else(|| c.to_string(), |shown| format!("[{shown}]")),
        })
        .collect();
    visible
}

/// A text and how much of it is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt<'a> {
    /// Its first part.
    pub shown: &'a str,
    /// Characters that follow and are not shown.
    pub left_out: usize,
}

/// The beginning of a text: at most so many lines and characters.
#[must_use]
pub fn excerpt(text: &str, lines_max: usize, chars_max: usize) -> Excerpt<'_> {
    let by_lines = text.match_indices('\n').nth(lines_max.saturating_sub(1)).map(|(at, _)| at);
    let by_chars = text.char_indices().nth(chars_max).map(|(at, _)| at);
    let end = by_lines.unwrap_or(text.len()).min(by_chars.unwrap_or(text.len()));
    let rest = &text[end..];
    let left_out = if rest.trim().is_empty() { 0 } else { rest.chars().count() };
    Excerpt { shown: &text[..end], left_out }
}

/// A name on one line, cut in its middle: both ends of an id tell something.
#[must_use]
pub fn short(name: &str, chars_max: usize) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= chars_max {
        return name.to_owned();
    }
    let keep = chars_max.saturating_sub(1);
    let (head, tail) = (keep - keep / 2, keep / 2);
    let end: String = chars[chars.len() - tail..].iter().collect();
    format!("{}…{end}", chars[..head].iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_of_a_model_is_text() {
        let got = html("</pre><script>alert('x')</script>&\"");
        assert_eq!(got, "&lt;/pre&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;");
        assert_eq!(attribute("\"><img src=x>"), "&quot;&gt;&lt;img src=x&gt;");
    }

    #[test]
    fn what_cannot_be_seen_is_shown() {
        for (hostile, name) in [
            ("\u{202e}", "U+202E"),
            ("\u{2066}", "U+2066"),
            ("\u{200b}", "U+200B"),
            ("\u{feff}", "U+FEFF"),
            ("\u{ad}", "U+00AD"),
            ("\u{9b}", "U+009B"),
            ("\u{e0041}", "U+E0041"),
            ("\u{3164}", "U+3164"),
            ("\0", "\u{2400}"),
            ("\u{1b}", "\u{241b}"),
            ("\r", "\u{240d}"),
            ("\u{7f}", "\u{2421}"),
        ] {
            for shown in [html(hostile), attribute(hostile)] {
                assert!(shown.contains(name), "{shown:?} does not show {name}");
                assert!(!shown.contains(hostile), "{hostile:?} came through");
            }
        }
        assert_eq!(html("a\n\tb é 漢 😀 שלום"), "a\n\tb é 漢 😀 שלום");
    }

    #[test]
    fn excerpts_are_bounded_both_ways_and_say_what_is_missing() {
        assert_eq!(excerpt("a\nb\nc\n", 2, 99), Excerpt { shown: "a\nb", left_out: 3 });
        assert_eq!(excerpt("ééé", 9, 2), Excerpt { shown: "éé", left_out: 1 });
        assert_eq!(excerpt("a\nb\n", 2, 99), Excerpt { shown: "a\nb", left_out: 0 });
        assert_eq!(excerpt("", 1, 1), Excerpt { shown: "", left_out: 0 });
    }

    #[test]
    fn a_short_name_keeps_both_ends() {
        assert_eq!(short("compiler-visit-boolean-12-ab", 11), "compi…12-ab");
        assert_eq!(short("short", 11), "short");
        assert_eq!(short("ééééé", 3), "é…é");
    }
}
