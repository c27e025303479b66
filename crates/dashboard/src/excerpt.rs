//! Texts of models and tools, cut to a bound: a page asks for more where there is more. Pure.
//!
//! A text is passed on as it is, as a JSON string. What cannot be seen in it, the page makes visible,
//! and puts it up as text and never as markup.

use serde::Serialize;

/// Characters of a text that come with whatever it belongs to.
pub const FIRST_CHARS: usize = 4_000;
/// Characters of one further piece.
pub const MORE_CHARS: usize = 20_000;

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// The piece.
    pub text: String,
    /// First byte after it; `None` where it is the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<usize>,
    /// Bytes of the whole text.
    pub bytes: usize,
}

/// The beginning of a text.
#[must_use]
pub fn first(text: &str) -> Excerpt {
    piece(text, 0, FIRST_CHARS)
}

/// A further piece of a text, from this byte on, or from the next that begins a character.
#[must_use]
pub fn more(text: &str, from: usize) -> Excerpt {
    piece(text, from, MORE_CHARS)
}

/// Characters of a text that stands in a list.
const LISTED_CHARS_MAX: usize = 400;

/// A text for a list: its beginning.
#[must_use]
pub fn listed(text: &str) -> String {
    text.chars().take(LISTED_CHARS_MAX).collect()
}

fn piece(text: &str, from: usize, chars_max: usize) -> Excerpt {
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let rest = &text[from..];
    let end = rest.char_indices().nth(chars_max).map(|(at, _)| at);
    Excerpt {
        text: rest[..end.unwrap_or(rest.len())].to_owned(),
        next: end.map(|end| from + end),
        bytes: text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_up_the_whole_and_none_is_long() {
        let text = "é\u{202e}<b>".repeat(20_000);
        let mut whole = first(&text).text;
        let mut next = first(&text).next;
        while let Some(from) = next {
            let piece = more(&text, from);
            assert!(piece.text.chars().count() <= MORE_CHARS && piece.bytes == text.len());
            whole += &piece.text;
            next = piece.next;
        }
        assert_eq!(whole, text);
    }

    #[test]
    fn no_place_is_out_of_bounds() {
        assert_eq!(more("é", 1), Excerpt { text: String::new(), next: None, bytes: 2 });
        assert_eq!(more("aé", usize::MAX).text, "");
        assert_eq!(first("").next, None);
    }
}
