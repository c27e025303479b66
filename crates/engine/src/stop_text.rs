//! Finds stop texts in what is generated, across token boundaries.

use std::collections::VecDeque;

use crate::vocabulary::Vocabulary;

/// Tokens looked at beyond the longest text's bytes: some tokens have no bytes, and the first of
/// a window may be the rest of a character.
const WINDOW_SLACK: usize = 8;

/// The stop texts of one generation and its last tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopTexts {
    texts: Vec<String>,
    /// The last tokens, as many as the longest text can take.
    window: VecDeque<u32>,
    window_max: usize,
}

impl StopTexts {
    /// Texts must not be empty; the caller has checked that.
    pub(crate) fn new(texts: Vec<String>) -> Self {
        let longest = texts.iter().map(String::len).max().unwrap_or(0);
        Self { texts, window: VecDeque::new(), window_max: longest + WINDOW_SLACK }
    }

    /// Takes one more token; says whether one of the texts is complete now.
    pub(crate) fn push(&mut self, id: u32, vocabulary: &Vocabulary) -> bool {
        if self.texts.is_empty() {
            return false;
        }
        self.window.push_back(id);
        if self.window.len() > self.window_max {
            self.window.pop_front();
        }
        let text = vocabulary.decode(self.window.make_contiguous());
        self.texts.iter().any(|stop| text.contains(stop.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The position at which the texts stop tokens that write these bytes.
    fn stops_at(texts: &[&str], pieces: &'static [&'static [u8]]) -> Option<usize> {
        let vocabulary = Vocabulary::new(Vec::new(), |ids| {
            let bytes: Vec<u8> = ids.iter().flat_map(|id| pieces[*id as usize].to_vec()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let mut stop = StopTexts::new(texts.iter().map(|t| (*t).to_owned()).collect());
        (0..pieces.len()).position(|id| stop.push(id as u32, &vocabulary))
    }

    #[test]
    fn a_text_is_found_across_tokens() {
        assert_eq!(stops_at(&["</tool_call>"], &[b"a</to", b"ol_", b"call", b">b"]), Some(3));
        assert_eq!(stops_at(&["\n\n"], &[b"x\n", b"y\n", b"\n"]), Some(2));
        assert_eq!(stops_at(&["aab"], &[b"a", b"a", b"a", b"b"]), Some(3));
    }

    #[test]
    fn a_text_inside_one_token_is_found() {
        assert_eq!(stops_at(&["zz", "\n"], &[b"one", b" \n  ", b"two"]), Some(1));
    }

    #[test]
    fn a_text_is_found_after_many_tokens() {
        const PIECES: [&[u8]; 41] = {
            let mut pieces: [&[u8]; 41] = [b"x"; 41];
            pieces[39] = b"e";
            pieces[40] = b"nd";
            pieces
        };
        assert_eq!(stops_at(&["end"], &PIECES), Some(40));
    }

    #[test]
    fn a_character_may_span_tokens() {
        assert_eq!(stops_at(&["é!"], &[b"\xc3", b"\xa9", b"!"]), Some(2));
        assert_eq!(stops_at(&["é"], &[b"\xc3", b"x"]), None);
    }

    #[test]
    fn no_texts_never_stop() {
        assert_eq!(stops_at(&[], &[b"anything"]), None);
    }
}
