//! Episodes and steps, read from the run store by a thread of its own: a store that is busy keeps no
//! key waiting.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crrl_cluster::RunDir;
use crrl_config::Objective;
use crrl_rl::advantage::{Scale, advantages};
use crrl_store::{EpisodeQuery, EpisodeRow, Reader, StepRow, StoreError};
use crrl_types::{EpisodeId, JournalEntry};
use tokenizers::Tokenizer;

use crate::pieces;
use crate::state::transcript::{Entry, Left};

/// Episodes that are shown; older ones are in the store.
pub const OVER_MAX: u64 = 500;
/// Steps that are shown; older ones are in the store.
pub const STEPS_MAX: usize = 2_000;
/// Entries of a journal that are read at one time.
const ENTRIES_MAX: u32 = 256;
/// Attempts of a group that are looked at.
const GROUP_MAX: u64 = 1_024;
/// Questions and answers under way; one more is asked again later.
const PENDING_MAX: usize = 4;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The last episodes that are over.
    Over,
    /// The numbers of the steps.
    Steps,
    /// What an episode left behind.
    Transcript(u64),
    /// What has happened in an episode under way, beyond what is known of it.
    Journal {
        /// The episode.
        episode: u64,
        /// The lease that wrote what is known.
        attempt: u32,
        /// Entries that are known.
        entries: u32,
    },
}

/// What was found.
#[derive(Debug)]
pub enum Answer {
    /// The last episodes that are over, newest first.
    Over(Result<Vec<EpisodeRow>, String>),
    /// Steps, oldest first.
    Steps(Result<Vec<StepRow>, String>),
    /// What this episode left behind, if anything.
    Transcript(u64, Result<Option<Box<Left>>, String>),
    /// What is new in the journal of this episode.
    Journal(u64, Result<Page, String>),
}

/// A piece of a journal.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The lease that wrote last.
    pub attempt: u32,
    /// Number of the first entry.
    pub first: u32,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// The run store, for the viewer. The thread ends with this.
#[derive(Debug)]
pub struct Store {
    ask: SyncSender<Ask>,
    answers: Receiver<Answer>,
}

impl Store {
    /// The store of this run, which need not be there yet.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn open(run: &RunDir) -> std::io::Result<Self> {
        let (ask, asked) = sync_channel(PENDING_MAX);
        let (answer, answers) = sync_channel(PENDING_MAX);
        let shelf = Shelf { run: run.clone(), tokenizer: OnceLock::new() };
        std::thread::Builder::new()
            .name("inspect-store".into())
            .spawn(move || serve(&shelf, &asked, &answer))?;
        Ok(Self { ask, answers })
    }

    /// Asks; `false` if too much was asked already.
    #[must_use]
    pub fn ask(&self, ask: Ask) -> bool {
        self.ask.try_send(ask).is_ok()
    }

    /// The next answer, if there is one.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

fn serve(shelf: &Shelf, asked: &Receiver<Ask>, answer: &SyncSender<Answer>) {
    while let Ok(ask) = asked.recv() {
        if answer.send(shelf.look_up(ask)).is_err() {
            return;
        }
    }
}

/// What the thread has at hand.
struct Shelf {
    run: RunDir,
    tokenizer: OnceLock<Result<Tokenizer, String>>,
}

impl Shelf {
    /// Opens the store anew for each question: nothing is held in between.
    fn read<T>(&self, what: impl FnOnce(&Reader) -> Result<T, StoreError>) -> Result<T, String> {
        let reader = Reader::open(&self.run.store());
        reader.and_then(|reader| what(&reader)).map_err(|error| error.to_string())
    }

    fn look_up(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Over => Answer::Over(self.read(|reader| reader.last_back(OVER_MAX))),
            Ask::Steps => Answer::Steps(self.read(|reader| {
                let mut steps = reader.steps()?;
                let old = steps.len().saturating_sub(STEPS_MAX);
                steps.drain(..old);
                Ok(steps)
            })),
            Ask::Transcript(id) => {
                let found = self.read(|reader| self.left(reader, EpisodeId(id)));
                Answer::Transcript(id, found.map(|found| found.map(Box::new)))
            }
            Ask::Journal { episode, attempt, entries } => Answer::Journal(
                episode,
                self.read(|reader| self.page(reader, EpisodeId(episode), attempt, entries)),
            ),
        }
    }

    fn tokenizer(&self) -> Result<&Tokenizer, &str> {
        let load = || {
            let config = self.run.config().map_err(|error| {
                format!("tokens have no text here: nothing tells the model's folder: {error}")
            })?;
            pieces::tokenizer(&config.model.path)
        };
        self.tokenizer.get_or_init(load).as_ref().map_err(String::as_str)
    }

    fn left(&self, reader: &Reader, id: EpisodeId) -> Result<Option<Left>, StoreError> {
        reader.hold()?;
        let Some(trajectory) = reader.trajectory(id)? else { return Ok(None) };
        let group = EpisodeQuery { group: Some(trajectory.group.0), ..EpisodeQuery::default() };
        let group = reader.page(&group, 0, GROUP_MAX)?.rows;
        let row = reader.episode(id)?;
        let trained_at = match row.as_ref().and_then(|row| row.step) {
            Some(step) => reader.batch_version(step)?,
            None => None,
        };
        let turns = 0..trajectory.turns.len();
        let tokens =
            turns.map(|turn| pieces::of_turn(&trajectory, turn, self.tokenizer())).collect();
        Ok(Some(Left {
            advantage: self.advantage(&group, id),
            scored: group.iter().filter(|row| row.reward.is_some()).count(),
            trained_at: trained_at.map(|version| version.0),
            is_final: row.is_none_or(|row| is_final(&row.state)),
            tokens,
            trajectory,
        }))
    }

    /// As the learner reckons it.
    fn advantage(&self, group: &[EpisodeRow], id: EpisodeId) -> Option<f64> {
        let at = group.iter().position(|row| row.episode == id && row.reward.is_some())?;
        let scale = match self.run.config().ok()?.learner.objective {
            Objective::DrGrpo => Scale::None,
            _ => Scale::Group,
        };
        let rewards: Vec<Option<f64>> = group.iter().map(|row| row.reward).collect();
        advantages(&[rewards], scale).first()?.values.get(at).copied()
    }

    fn page(
        &self,
        reader: &Reader,
        id: EpisodeId,
        held: u32,
        entries: u32,
    ) -> Result<Page, StoreError> {
        journal(reader, id, (held, entries), ENTRIES_MAX, || self.tokenizer())
    }
}

/// Whether an episode in this state was trained on, or let go of: before, what it earned against its group and
/// when it was trained on may still come.
pub(crate) fn is_final(state: &str) -> bool {
    !matches!(state, "finished" | "batched")
}

/// What is new in the journal of an episode under way, beyond the entries that a lease is known to have
/// written; from the first entry on where another lease began anew. At most `most` entries. The reader sees
/// the store as it was then until it is asked to hold it again.
///
/// # Errors
/// [`StoreError`].
pub fn journal<'a>(
    reader: &Reader,
    id: EpisodeId,
    (held, entries): (u32, u32),
    most: u32,
    tokenizer: impl Fn() -> Result<&'a Tokenizer, &'a str>,
) -> Result<Page, StoreError> {
    reader.hold()?;
    let Some(attempt) = reader.journal_attempt(id)? else { return Ok(Page::default()) };
    // Another lease may have begun anew.
    let first = if attempt == held { entries } else { 0 };
    let found = reader.journal_from(id, first, most)?;
    let entries = found.into_iter().map(|found| entry(found, &tokenizer)).collect();
    Ok(Page { attempt, first, entries })
}

fn entry<'a>(entry: JournalEntry, tokenizer: impl Fn() -> Result<&'a Tokenizer, &'a str>) -> Entry {
    match entry {
        JournalEntry::Generated { tokens, stop } => {
            let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
            let text = tokenizer().ok().and_then(|known| known.decode(&ids, true).ok());
            let tokens = pieces::of_sampled(&tokens, tokenizer());
            Entry::Wrote { text: text.unwrap_or_default(), tokens, stop }
        }
        JournalEntry::Tool { output, ok, wall_ms } => Entry::Answered { output, ok, wall_ms },
        JournalEntry::Diff(diff) => Entry::Changed(diff),
    }
}
