//! The tasks of the shipped small policy, in one place for its fine-tuning and for the quickstart:
//! both must agree on the split and on how an oracle works.

use crrl_types::{BugKind, Split};

use crate::corpus::{Augment, CorpusOptions};
use crate::mutate::MutateOptions;
use crate::oracle::OracleOptions;
use crate::source::SourceOptions;
use crate::split::SplitOptions;

/// Lines a function has at most, and that one look shows.
const LINES_MAX: usize = 13;

/// Share of fine-tuning traces that are careless.
const CARELESS: f64 = 0.35;

/// The kinds of bug whose symptom a short statement can name, and whose repair is a matter of one
/// or two words. Which call of several is the wrong one, say, a policy of this size does not learn.
const KINDS: &[BugKind] = &[
    BugKind::Comparison,
    BugKind::Equality,
    BugKind::Boolean,
    BugKind::Negation,
    BugKind::NoneCheck,
    BugKind::Membership,
    BugKind::Flag,
];

/// Files and functions of one side: half of the files are imitated, three tenths are for
/// reinforcement, two tenths are held out.
#[must_use]
pub fn source(side: Split) -> SourceOptions {
    SourceOptions {
        split: SplitOptions { seed: 0, sft: 0.5, train: 0.3, held_out: 0.2 },
        side: Some(side),
        lines_min: 3,
        lines_max: LINES_MAX,
        file_bytes_max: 96 * 1024,
        ..SourceOptions::default()
    }
}

/// How its oracle works.
#[must_use]
pub fn oracle() -> OracleOptions {
    OracleOptions { after: LINES_MAX - 1, ..OracleOptions::default() }
}

/// Tasks for reinforcement or for measuring.
#[must_use]
pub fn tasks(side: Split, seed: u64, tasks_max: usize) -> MutateOptions {
    MutateOptions {
        source: source(side),
        seed,
        tasks_max,
        per_function: 4,
        kinds: KINDS.to_vec(),
        solvable: Some(oracle()),
        ..MutateOptions::default()
    }
}

/// Traces for fine-tuning.
#[must_use]
pub fn corpus() -> CorpusOptions {
    CorpusOptions {
        source: SourceOptions { file_bytes_max: 512 * 1024, ..source(Split::Sft) },
        kinds: KINDS.to_vec(),
        oracle: oracle(),
        augment: Augment { careless: CARELESS, ..Augment::default() },
    }
}
