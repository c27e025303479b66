//! Carelessness: a share of the traces a policy imitates look too briefly or stop too early, as
//! people do. Imitation learns both ways of working; which of them pays is left to reinforcement.

use rand::Rng;

use crate::corpus::Trace;

/// Lines behind the `def` line that a glance shows.
const GLANCE_LINES: usize = 2;

/// Makes a trace careless with probability `share`: half of those give up after reading, half
/// only glance at the function and repair it only where the bug happens to be in sight.
#[must_use]
pub fn careless(mut trace: Trace, share: f64, rng: &mut impl Rng) -> Trace {
    if share <= 0.0 || trace.turns.len() != 2 || !rng.random_bool(share.min(1.0)) {
        return trace;
    }
    if rng.random_bool(0.5) {
        trace.turns.truncate(1);
        return trace;
    }
    glance(&mut trace);
    trace
}

/// Fewer lines are read; the repair stays only if its text is among them.
fn glance(trace: &mut Trace) {
    let look = &mut trace.turns[0];
    let shorter = look.call.arguments["cmd"].as_str().and_then(|cmd| {
        let (before, rest) = cmd.split_once(" -A ")?;
        let (_, after) = rest.split_once(' ')?;
        Some(format!("{before} -A {GLANCE_LINES} {after}"))
    });
    let Some(shorter) = shorter else { return };
    look.call.arguments["cmd"] = shorter.into();
    let seen: Vec<&str> = look.output.lines().take(GLANCE_LINES + 1).collect();
    look.output = seen.join("\n") + "\n";
    let old = trace.turns[1].call.arguments["old"].as_str().unwrap_or_default();
    if old.is_empty() || !trace.turns[0].output.contains(old) {
        trace.turns.truncate(1);
    }
}

#[cfg(test)]
mod tests {
    use crrl_types::{Base, Difficulty, Origin, Split, Task, ToolCall};
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;
    use serde_json::json;

    use super::*;
    use crate::oracle::OracleTurn;

    fn trace(old: &str) -> Trace {
        let call = |name: &str, arguments| ToolCall { name: name.into(), arguments };
        let output = "def f(a):\n    x = 1\n    y = 2\n    return x - y\n".to_owned();
        Trace {
            task: Task {
                instance_id: "t".into(),
                repo: String::new(),
                base_commit: String::new(),
                problem_statement: String::new(),
                patch: String::new(),
                test_patch: String::new(),
                base: Base::Commit,
                origin: Origin::Imported,
                difficulty: Difficulty::default(),
                split: Split::Sft,
                extra: Default::default(),
            },
            turns: vec![
                OracleTurn {
                    call: call("shell", json!({"cmd": "grep -A 12 \"def f\" m.py"})),
                    output,
                },
                OracleTurn {
                    call: call("apply_patch", json!({"path": "m.py", "old": old, "new": "z"})),
                    output: "ok\n".into(),
                },
            ],
            words: "Fixed.".into(),
        }
    }

    #[test]
    fn a_glance_keeps_only_repairs_in_sight() {
        for (old, turns) in [("return x - y", 1), ("x = 1", 2)] {
            let mut seen = trace(old);
            glance(&mut seen);
            assert_eq!(seen.turns.len(), turns, "{old}");
            assert_eq!(seen.turns[0].call.arguments["cmd"], "grep -A 2 \"def f\" m.py");
            assert_eq!(seen.turns[0].output, "def f(a):\n    x = 1\n    y = 2\n");
        }
    }

    #[test]
    fn the_share_is_kept() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let whole = trace("x = 1");
        let changed = (0..2000).filter(|_| careless(whole.clone(), 0.4, &mut rng) != whole).count();
        assert!((700..900).contains(&changed), "{changed} of 2000 at a share of 0.4");
        assert_eq!(careless(whole.clone(), 0.0, &mut rng), whole);
    }
}
