//! What the agent is told: the symptom of a bug, never its line nor its fix.
//!
//! Short on purpose: a small policy has a few hundred tokens for the whole episode.

use crrl_types::BugKind;
use rand::Rng;
use rand::seq::IndexedRandom as _;
use serde::{Deserialize, Serialize};

/// How much a statement gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// The file, the function and the kind of symptom.
    #[default]
    Function,
    /// The file and the kind of symptom.
    Path,
    /// The kind of symptom only.
    Vague,
}

/// Ways to describe the symptom of each operator. Each reads on after a subject.
fn symptoms(kind: BugKind) -> &'static [&'static str] {
    match kind {
        BugKind::Comparison => &[
            "is wrong at a boundary: an ordering comparison is off",
            "compares with the wrong order sign",
            "treats the edge value wrongly: check the less or greater test",
        ],
        BugKind::Equality => &[
            "has an equality test the wrong way round",
            "takes equal for different: an equality check is inverted",
            "mixes up equal and not equal",
        ],
        BugKind::Boolean => &[
            "combines two conditions with the wrong word: and, or",
            "mixes up and with or in a condition",
            "joins its conditions wrongly: and/or",
        ],
        BugKind::Negation => &[
            "takes the wrong branch: a negated check looks inverted",
            "does the opposite: a not is missing or too many",
            "has a condition negated by mistake",
        ],
        BugKind::NoneCheck => &[
            "handles None the wrong way round",
            "fails on None: the None check is inverted",
            "mixes up is None and is not None",
        ],
        BugKind::Membership => &[
            "has a membership test the wrong way round",
            "mixes up in and not in",
            "takes present for absent: a membership check is inverted",
        ],
        BugKind::Arithmetic => &[
            "computes a wrong number: an arithmetic operator is off",
            "uses the wrong arithmetic operator",
            "calculates with the wrong operation",
        ],
        BugKind::OffByOne => &[
            "is off by one",
            "is one too far or one short",
            "misses by one in an index or a range",
        ],
        BugKind::Constant => &[
            "uses a wrong constant",
            "has a wrong literal value",
            "works with the wrong fixed value",
        ],
        BugKind::Flag => &[
            "has a flag the wrong way round: True, False",
            "mixes up True and False",
            "sets a boolean to the opposite",
        ],
        BugKind::ArgumentSwap => &[
            "passes two arguments in the wrong order",
            "calls with swapped arguments",
            "mixes up two arguments of a call",
        ],
        BugKind::RemovedGuard => &[
            "lacks an early check",
            "lost a guard for a special case",
            "no longer handles a special case up front",
        ],
        BugKind::WrongVariable => &[
            "uses the wrong variable",
            "reads another variable than it should",
            "mixes up two of its variables",
        ],
        BugKind::WrongReturn => {
            &["returns the wrong value", "gives back the wrong thing", "has a wrong return value"]
        }
        BugKind::WrongCall => &[
            "calls the wrong function",
            "uses the wrong method",
            "calls a similar but wrong method",
        ],
        BugKind::Assignment => &[
            "updates a value the wrong way",
            "has a wrong update of a running value",
            "uses the wrong assignment operator",
        ],
        BugKind::LoopControl => &[
            "leaves or goes on with a loop wrongly",
            "mixes up break and continue",
            "stops its loop at the wrong time",
        ],
    }
}

/// A statement of the bug.
#[must_use]
pub fn statement(
    kind: BugKind,
    path: &str,
    function: &str,
    detail: Detail,
    rng: &mut impl Rng,
) -> String {
    let symptom = symptoms(kind).choose(rng).expect("every operator has symptoms");
    match detail {
        Detail::Function => format!("`{function}` in {path} {symptom}."),
        Detail::Path => format!("Something in {path} {symptom}."),
        Detail::Vague => format!("Some function {symptom}."),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::operators::ALL;

    #[test]
    fn each_level_of_detail_names_what_it_should_and_no_more() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for kind in ALL {
            let mut say = |detail| statement(kind, "lib/x.py", "Foo.bar", detail, &mut rng);
            let whole = say(Detail::Function);
            assert!(whole.starts_with("`Foo.bar` in lib/x.py "), "{whole}");
            assert!(whole.len() < 100, "{whole}");
            let path = say(Detail::Path);
            assert!(path.contains("lib/x.py") && !path.contains("bar"), "{path}");
            let vague = say(Detail::Vague);
            assert!(!vague.contains("lib/x.py") && !vague.contains("bar"), "{vague}");
        }
    }

    #[test]
    fn every_operator_is_told_in_several_ways() {
        for kind in ALL {
            let mut ways: Vec<_> = symptoms(kind).to_vec();
            ways.sort_unstable();
            ways.dedup();
            assert!(ways.len() >= 3, "{kind:?}");
        }
    }
}
