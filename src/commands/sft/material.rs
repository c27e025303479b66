//! Traces as examples: from the functions of a tree, or from a task file.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use crrl_agent::{ChatCodec, ScriptedTurn, Supervised, ToolOutcome, supervised};
use crrl_learner::Example;
use crrl_tasks::mutate::kind_of;
use crrl_tasks::{Corpus, OracleOptions, OracleTurn, TaskSet, oracle, small_policy};
use crrl_types::{Split, Task};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::Args;
use crate::commands::failure::Coded;

/// Numbers tried for one example: traces that do not exist or do not fit are passed over.
const TRIES: u64 = 64;

/// Where traces come from.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one or two exist in a process")]
pub(crate) enum Material {
    /// Endless fresh ones over the functions of a tree.
    Tree(Corpus),
    /// The oracle's on a fixed list of tasks.
    Tasks(Vec<Task>, OracleOptions),
}

/// A statement and its solution.
struct Script {
    issue: String,
    turns: Vec<ScriptedTurn>,
}

impl Material {
    /// Traces of one side of the split; `plain` leaves every augmentation out.
    pub(crate) fn load(args: &Args, path: &Path, side: Split, plain: bool) -> anyhow::Result<Self> {
        if path.is_file() {
            let set = TaskSet::load(path)?;
            let mut tasks: Vec<Task> = set.on(side).cloned().collect();
            if tasks.is_empty() && side == Split::Sft {
                tasks = set.on(Split::Train).cloned().collect();
            }
            return Ok(Self::Tasks(tasks, OracleOptions::default()));
        }
        let mut options = small_policy::corpus();
        if side != Split::Sft {
            options.source = small_policy::source(side);
        }
        if let Some(lines) = args.lines_max {
            options.source.lines_max = lines;
            options.oracle.after = lines.saturating_sub(1);
        }
        if !args.kinds.is_empty() {
            options.kinds = args
                .kinds
                .iter()
                .map(|name| {
                    kind_of(name.trim()).ok_or_else(|| {
                        Coded::usage(format!(
                            "--kinds: {name:?} is no kind of bug; `crrl tasks mutate --help` lists them"
                        ))
                    })
                })
                .collect::<Result<_, _>>()?;
        }
        let augment = &mut options.augment;
        for (share, flag) in [
            (&mut augment.renamed, args.renamed),
            (&mut augment.copying, args.copying),
            (&mut augment.careless, args.careless),
        ] {
            *share = if plain { 0.0 } else { flag.unwrap_or(*share) };
        }
        let corpus = Corpus::load(path, options)
            .with_context(|| format!("no traces can be made of {}", path.display()))?;
        Ok(Self::Tree(corpus))
    }

    /// What it is made of, for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Tree(corpus) => format!("{} functions", corpus.functions()),
            Self::Tasks(tasks, _) => format!("{} tasks", tasks.len()),
        }
    }

    /// Whether there is nothing to draw from.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Tasks(tasks, _) if tasks.is_empty())
    }

    fn script(&self, seed: u64, number: u64) -> Option<Script> {
        let (issue, turns, words) = match self {
            Self::Tree(corpus) => {
                let trace = corpus.stream(seed).get(number)?;
                (trace.task.problem_statement, trace.turns, trace.words)
            }
            Self::Tasks(tasks, options) => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(number);
                let task = &tasks[usize::try_from(number % tasks.len() as u64).ok()?];
                let solution = oracle(task, &mut rng, options)?;
                (task.problem_statement.clone(), solution.turns, solution.words)
            }
        };
        let mut turns: Vec<ScriptedTurn> = turns.into_iter().map(scripted).collect();
        turns.push(ScriptedTurn::words(words));
        Some(Script { issue, turns })
    }

    /// Example `index`: depends on the seed and on `index` only.
    ///
    /// # Errors
    /// When none of many traces exists and fits.
    pub(crate) fn example(
        &self,
        codec: &Arc<dyn ChatCodec>,
        options: &crrl_agent::Options,
        seed: u64,
        index: u64,
    ) -> Result<Example, String> {
        let mut reason = "there is no trace at all".to_owned();
        for number in index * TRIES..(index + 1) * TRIES {
            // Tasks are a list: the next number is the next task, not another draw.
            let number = if matches!(self, Self::Tasks(..)) {
                index + (number - index * TRIES)
            } else {
                number
            };
            let Some(script) = self.script(seed, number) else { continue };
            match supervised(codec, options, &script.issue, &script.turns) {
                Ok(Supervised { tokens, mask }) => return Ok(Example { tokens, mask }),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(format!("none of {TRIES} traces can be used; the last one: {reason}"))
    }
}

fn scripted(turn: OracleTurn) -> ScriptedTurn {
    let outcome = ToolOutcome { output: turn.output, ok: true, wall_ms: 0 };
    ScriptedTurn::call(&turn.call.name, turn.call.arguments, outcome)
}
