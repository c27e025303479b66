//! Whether a run kept its promises, from what it left behind: ledger, history, checkpoints.
//!
//! Pure: facts in, verdict out. What grows with the run is taken in one by one ([`Audit`]) and only a
//! few words of it are kept, so that a run of a million episodes fits. The invariants are those of docs/FAULTS.md that can be judged
//! afterwards. Anything that contradicts one is a [`Violation`] with its evidence; what merely
//! could not be looked at, or is damaged and not needed, is a note.
//!
//! The history is written after the ledger, so a crash may lose the newest lines of it and never
//! those of the ledger: an event without its row is a violation, a row without its event a note.

mod cases;
mod episodes;
mod files;
mod history;
mod restored;
mod tokens;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use crrl_types::{AdapterVersion, Digest, EpisodeId, Event, NodeName, Step, TokenSpan};
use serde::Serialize;

use crate::coordinator::BatchRow;
use crate::ledger::Entry;
use crate::plan::Plan;
use crate::restore::Restored;
use crate::wire::Serving;

/// Violations of one invariant that are told one by one; the rest is counted.
pub const TOLD_MAX: usize = 20;

/// What a run left behind, but for what there is of every episode.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its plan.
    pub plan: Plan,
    /// Whether its results say that it carried the plan out.
    pub complete: bool,
    /// Every batch.
    pub batches: Vec<BatchRow>,
    /// Every optimizer step, and the adapter it made.
    pub steps: Vec<(Step, AdapterVersion)>,
    /// Every adapter the coordinator heard of.
    pub published: Vec<Serving>,
    /// The learner's checkpoints.
    pub checkpoints: CheckpointFacts,
    /// Adapters on the parameter server's disk.
    pub adapters: Vec<AdapterFact>,
    /// Every time the ledger was restored from a copy, in order.
    pub restored: Vec<Restored>,
}

/// What a run left behind, all at once.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What there is once.
    pub setting: Setting,
    /// Every episode of the ledger.
    pub entries: Vec<Entry>,
    /// The transcripts kept.
    pub transcripts: Vec<Transcript>,
    /// The history, line by line.
    pub history: Vec<Line>,
}

/// A line of the history.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// What it says, or why it cannot be read.
    pub event: Result<Event, String>,
}

/// What a transcript says of its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// Whose.
    pub episode: EpisodeId,
    /// Whether the policy generated the token, token by token.
    pub generated: Vec<bool>,
    /// Which adapter drew which.
    pub spans: Vec<TokenSpan>,
    /// Whether every log-probability is finite.
    pub finite: bool,
}

/// The learner's checkpoints, and where they are.
#[derive(Debug, Clone)]
pub enum CheckpointFacts {
    /// In the run's folder, oldest first.
    Here(Vec<CheckpointFact>),
    /// With the learner's node, on another machine or in a container: nobody here can look at them.
    Elsewhere(NodeName),
}

impl CheckpointFacts {
    /// Those that can be looked at.
    #[must_use]
    pub fn here(&self) -> &[CheckpointFact] {
        match self {
            Self::Here(checkpoints) => checkpoints,
            Self::Elsewhere(_) => &[],
        }
    }
}

/// A checkpoint on disk.
#[derive(Debug, Clone)]
pub struct CheckpointFact {
    /// Its folder's name.
    pub name: String,
    /// What it holds, or why it would not load.
    pub holds: Result<Held, String>,
}

/// What a checkpoint that loads holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Last step made.
    pub step: Step,
    /// Episodes of that step.
    pub consumed: Vec<EpisodeId>,
    /// Whether every value of every tensor is finite.
    pub finite: bool,
}

/// An adapter on the parameter server's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterFact {
    /// Its version.
    pub version: AdapterVersion,
    /// BLAKE3 of its bytes.
    pub digest: Digest,
    /// Whether every value is finite.
    pub finite: bool,
}

/// One invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[expect(missing_docs, reason = "each has its sentence in `Invariant::says`")]
pub enum Invariant {
    I1,
    I2,
    I4,
    I5,
    I6,
    I7,
    I13,
}

impl Invariant {
    /// All that are judged here.
    pub const ALL: [Self; 7] =
        [Self::I1, Self::I2, Self::I4, Self::I5, Self::I6, Self::I7, Self::I13];

    /// What it promises.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::I1 => "every episode is accounted for and ends once",
            Self::I2 => "no episode counts in two optimizer steps",
            Self::I4 => "adapter versions only go up",
            Self::I5 => "every generated token carries an adapter that was published",
            Self::I6 => "a committed checkpoint loads",
            Self::I7 => "nothing staler than the bound was trained on",
            Self::I13 => "nothing that is not finite was published or kept as good",
        }
    }
}

/// Something that contradicts an invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What is wrong.
    pub what: String,
    /// Where that can be seen.
    pub evidence: String,
}

/// What was found out about one invariant.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Which.
    pub invariant: Invariant,
    /// What it promises.
    pub says: &'static str,
    /// Whether nothing contradicts it.
    pub held: bool,
    /// Whether it could be judged; where not, `looked_at` says why, and nothing contradicts it.
    pub judged: bool,
    /// What was looked at, in numbers.
    pub looked_at: String,
    /// Violations in all.
    pub violations: u64,
    /// The first of them, at most [`TOLD_MAX`].
    pub told: Vec<Violation>,
}

/// The verdict on a run.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Whether every invariant held that could be judged.
    pub ok: bool,
    /// One for each invariant, in order.
    pub findings: Vec<Finding>,
    /// What is worth knowing and contradicts nothing.
    pub notes: Vec<String>,
}

impl Verdict {
    /// What was found out about an invariant.
    #[must_use]
    pub fn of(&self, invariant: Invariant) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.invariant == invariant)
    }
}

/// Judges a run that is all at hand.
#[must_use]
pub fn audit(facts: &Facts) -> Verdict {
    let mut audit = Audit::new(facts.setting.clone());
    facts.entries.iter().for_each(|entry| audit.entry(entry));
    facts.history.iter().for_each(|line| audit.line(line));
    facts.transcripts.iter().for_each(|transcript| audit.transcript(transcript));
    audit.verdict()
}

/// Judges a run, taken in piece by piece: first the whole ledger, by id; then the history, in order,
/// and the transcripts.
pub struct Audit {
    known: Known,
    cases: cases::Cases,
    court: Court,
    lines: u64,
    adapters: versions::Versions,
    tokens: tokens::Tokens,
}

impl Audit {
    /// Begins.
    #[must_use]
    pub fn new(setting: Setting) -> Self {
        Self {
            known: Known::new(setting),
            cases: cases::Cases::default(),
            court: Court::default(),
            lines: 0,
            adapters: versions::Versions::default(),
            tokens: tokens::Tokens::default(),
        }
    }

    /// Takes in an episode of the ledger.
    pub fn entry(&mut self, entry: &Entry) {
        self.cases.enter(entry);
    }

    /// Takes in a line of the history.
    pub fn line(&mut self, line: &Line) {
        self.lines += 1;
        history::read(line, &mut self.cases, &mut self.court);
        self.adapters.read(line, &self.known, &mut self.court);
    }

    /// Takes in what a transcript says of its tokens.
    pub fn transcript(&mut self, transcript: &Transcript) {
        self.tokens.read(transcript, &self.known, &mut self.cases, &mut self.court);
    }

    /// What came of it.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        let Self { known, cases, mut court, lines, adapters, tokens } = self;
        history::compare(&cases, &mut court);
        episodes::judge(&known, &cases, lines, &mut court);
        adapters.judge(&known, &mut court);
        tokens.judge(&known, &cases, &mut court);
        restored::tell(&known, &mut court);
        files::judge(&known, tokens.transcripts(), &mut court);
        court.close()
    }
}

/// The facts there are once, by what they are looked up by.
struct Known {
    setting: Setting,
    batches: BTreeMap<Step, usize>,
    published: BTreeMap<AdapterVersion, Digest>,
}

impl Known {
    fn new(setting: Setting) -> Self {
        Self {
            batches: setting.batches.iter().zip(0..).map(|(batch, at)| (batch.step, at)).collect(),
            published: setting.published.iter().map(|s| (s.version, s.digest)).collect(),
            setting,
        }
    }

    fn batch(&self, step: Step) -> Option<&BatchRow> {
        self.batches.get(&step).map(|at| &self.setting.batches[*at])
    }

    /// Whether the record of an episode was lost with a damaged ledger.
    fn is_lost(&self, episode: EpisodeId) -> bool {
        self.setting.restored.iter().any(|restored| restored.is_lost(episode))
    }

    /// Whether none of these numbers, the first to the last, is an episode's.
    fn skips(&self, first: EpisodeId, last: EpisodeId) -> bool {
        self.setting.restored.iter().any(|restored| restored.skips(first, last))
    }

    /// Whether nobody but a checkpoint knows what went into a step.
    fn is_unknown(&self, batch: &BatchRow) -> bool {
        batch.episodes.is_empty() && !self.setting.restored.is_empty()
    }

    /// The last step every step up to which is committed.
    fn committed(&self) -> Step {
        let committed = self.setting.batches.iter().filter(|batch| batch.committed);
        committed.map(|batch| batch.step).max().unwrap_or_default()
    }
}

/// Collects what is said against the run.
#[derive(Default)]
struct Court {
    looked_at: BTreeMap<Invariant, String>,
    not_judged: BTreeSet<Invariant>,
    violations: BTreeMap<Invariant, (u64, Vec<Violation>)>,
    notes: Vec<String>,
}

impl Court {
    fn against(&mut self, invariant: Invariant, what: String, evidence: impl Into<String>) {
        let (count, told) = self.violations.entry(invariant).or_default();
        *count += 1;
        if told.len() < TOLD_MAX {
            told.push(Violation { what, evidence: evidence.into() });
        }
    }

    fn looked_at(&mut self, invariant: Invariant, what: String) {
        self.looked_at.insert(invariant, what);
    }

    /// What it takes to judge this one is not at hand.
    fn cannot_judge(&mut self, invariant: Invariant, why: String) {
        self.not_judged.insert(invariant);
        self.looked_at(invariant, why);
    }

    fn note(&mut self, what: impl Into<String>) {
        self.notes.push(what.into());
    }

    fn close(mut self) -> Verdict {
        let findings: Vec<Finding> = Invariant::ALL
            .into_iter()
            .map(|invariant| {
                let (violations, told) = self.violations.remove(&invariant).unwrap_or_default();
                Finding {
                    invariant,
                    says: invariant.says(),
                    held: violations == 0,
                    judged: !self.not_judged.contains(&invariant),
                    looked_at: self.looked_at.remove(&invariant).unwrap_or_default(),
                    violations,
                    told,
                }
            })
            .collect();
        Verdict { ok: findings.iter().all(|f| f.held), findings, notes: self.notes }
    }
}
