//! How well a name answers to a few letters typed of it.

/// For a letter that follows the one before it in the name.
const RUN: i32 = 9;
/// For a letter that begins a word.
const BEGINS: i32 = 8;
/// For a letter a word has somewhere inside.
const INSIDE: i32 = 1;

/// How well; `None` where the letters are not in the name in that order. Blanks and case do not
/// matter; among equals the shorter name is the better one.
#[must_use]
pub fn score(typed: &str, name: &str) -> Option<i32> {
    let name: Vec<char> = name.to_lowercase().chars().collect();
    let typed: Vec<char> = typed.to_lowercase().chars().filter(|c| !c.is_whitespace()).collect();
    let begins = |at: usize| at == 0 || !name[at - 1].is_alphanumeric();
    // best[at]: the best way for the letters so far whose last one is at `at`.
    let mut best: Vec<Option<i32>> = Vec::new();
    for (nth, letter) in typed.iter().enumerate() {
        let mut next = vec![None; name.len()];
        let mut before: Option<i32> = (nth == 0).then_some(0);
        for at in 0..name.len() {
            if name[at] == *letter {
                let worth = if begins(at) { BEGINS } else { INSIDE };
                let jumped = before.map(|score| score + worth);
                let ran = (at > 0).then(|| best.get(at - 1).copied().flatten()).flatten();
                next[at] = jumped.max(ran.map(|score| score + worth.max(RUN)));
            }
            if nth > 0 {
                before = before.max(best[at]);
            }
        }
        best = next;
    }
    let found = if typed.is_empty() { Some(0) } else { best.into_iter().flatten().max() };
    found.map(|score| score * 64 - i32::try_from(name.len()).unwrap_or(i32::MAX).min(63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_in_order_are_found_and_words_count_most() {
        assert_eq!(score("xq", "sort actors by waiting"), None);
        assert_eq!(score("ba", "ab"), None);
        let best = |typed: &str, names: &[&'static str]| {
            names.iter().copied().max_by_key(|name| score(typed, name)).expect("a name")
        };
        let names = ["screen actors", "sort actors by waiting", "sort rollouts by age", "stop"];
        assert_eq!(best("sow", &names), "sort actors by waiting");
        assert_eq!(best("scac", &names), "screen actors");
        assert_eq!(best("stop", &names), "stop");
        assert_eq!(best("SR age", &names), "sort rollouts by age");
    }

    #[test]
    fn a_run_is_better_than_letters_far_apart() {
        assert!(score("act", "actor") > score("act", "a cold tree of sorts"));
        assert!(score("", "any").is_some());
    }
}
