//! What a recording keeps beside frames, gathered from the run's store and history while it is made. The
//! store is asked by a thread of its own, a few questions at a time: one that is busy delays no frame.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crrl_cluster::RunDir;
use crrl_store::EpisodeRow;

use crate::archive::{Answer, Ask, Page, Store, is_final};
use crate::error::InspectError;
use crate::feed::now_ms;
use crate::frame::Frame;
use crate::kept::{self, Kept, Transcript};
use crate::recording::Recorder;
use crate::state::transcript::Entry;
use crate::tail::Tail;

/// Time between two looks at the episodes that are over.
const OVER_EVERY: Duration = Duration::from_secs(2);
/// Time between two lists of all of them, so that a jump in time need not read all changes.
const ALL_EVERY: Duration = Duration::from_secs(60);
/// Time between two looks at one journal.
const JOURNAL_EVERY: Duration = Duration::from_secs(1);
/// What could not be read is asked for once more after this: a store that is busy, or not there yet, is not
/// so for long.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Episodes under way whose turns are kept as they come. Of more, those that end are kept all the same.
pub const FOLLOWED_MAX: usize = 64;
/// Steps of one line.
const STEPS_EACH: usize = 200;
/// Entries of a journal of one line.
const ENTRIES_EACH: usize = 8;

/// What there is to keep of a run, as it comes.
#[derive(Debug)]
pub struct Collector {
    store: Store,
    tail: Tail,
    over_at: Option<Instant>,
    all_at: Option<Instant>,
    /// Episodes that are over, as they were kept last.
    rows: HashMap<u64, EpisodeRow>,
    /// Those whose transcript was asked for, and whether they were trained on or let go of by then.
    asked: HashMap<u64, bool>,
    /// Those whose transcript is to be asked for.
    wanted: BTreeSet<u64>,
    /// The step the run is at.
    step: u64,
    /// The step at which the numbers of steps were asked for last.
    steps_at: Option<u64>,
    /// The last step whose numbers were kept.
    kept_step: Option<u64>,
    followed: BTreeMap<u64, Followed>,
    /// Questions that are not answered yet.
    pending: usize,
    /// What could not be read when it was asked for last, and is asked for again.
    problems: BTreeMap<Part, Problem>,
    /// Why something could not be read that is asked for no more.
    missed: Option<String>,
}

/// What is asked for by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Over,
    Steps,
    Journal(u64),
    Transcript(u64),
}

/// Why something could not be read.
#[derive(Debug)]
struct Problem {
    /// When that came out; none where it may be asked for at once.
    at: Option<Instant>,
    says: String,
}

/// What was kept of an episode under way.
#[derive(Debug, Default)]
struct Followed {
    attempt: u32,
    entries: u32,
    asked_at: Option<Instant>,
    is_asked: bool,
}

impl Collector {
    /// For a run; what its history and its store hold already comes first.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn open(run: &RunDir) -> Result<Self, InspectError> {
        Ok(Self {
            store: Store::open(run)?,
            tail: Tail::new(&run.events()),
            over_at: None,
            all_at: None,
            rows: HashMap::new(),
            asked: HashMap::new(),
            wanted: BTreeSet::new(),
            step: 0,
            steps_at: None,
            kept_step: None,
            followed: BTreeMap::new(),
            pending: 0,
            problems: BTreeMap::new(),
            missed: None,
        })
    }

    /// Which episodes are under way, and how far the run is.
    pub fn see(&mut self, frame: &Frame) {
        let step = frame.snapshot.progress.step;
        if step < self.step {
            // Steps are made again.
            self.kept_step = self.kept_step.map(|kept| kept.min(step));
        }
        self.step = step;
        let reports = frame.snapshot.nodes.iter().flat_map(|node| &node.live);
        let live: BTreeSet<u64> = reports.map(|report| report.episode.0).collect();
        self.followed.retain(|episode, _| live.contains(episode));
        // What is left of one that is over is read as its transcript.
        let is_followed = |part: &Part| !matches!(part, Part::Journal(id) if !live.contains(id));
        self.problems.retain(|part, _| is_followed(part));
        for episode in live {
            if self.followed.len() >= FOLLOWED_MAX {
                break;
            }
            self.followed.entry(episode).or_default();
        }
    }

    /// Keeps what has come since, and asks for more.
    ///
    /// # Errors
    /// The recording cannot be written.
    pub fn pump(&mut self, now: Instant, recorder: &mut Recorder) -> Result<(), InspectError> {
        let at_ms = now_ms();
        let events = self.tail.take();
        if !events.is_empty() {
            recorder.keep(&Kept::Events { at_ms, events })?;
        }
        while let Some(answer) = self.store.answer() {
            self.pending = self.pending.saturating_sub(1);
            self.take(answer, now, at_ms, recorder)?;
        }
        for ask in self.asks(now) {
            if !self.store.ask(ask) {
                break;
            }
            self.pending += 1;
            self.note(ask, now);
        }
        Ok(())
    }

    /// Looks at everything once more: what comes now is the last.
    pub fn look_again(&mut self) {
        (self.over_at, self.steps_at) = (None, None);
        self.followed.values_mut().for_each(|one| one.asked_at = None);
        self.problems.values_mut().for_each(|problem| problem.at = None);
    }

    /// Whether everything that was asked is answered, and no transcript waits to be asked for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending == 0 && self.wanted.is_empty()
    }

    /// Why something could not be read, if anything could not.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        let known = self.problems.values().map(|problem| problem.says.as_str()).next();
        known.or(self.missed.as_deref())
    }

    /// Whether it was not asked for in vain a moment ago.
    fn may_ask(&self, part: Part, now: Instant) -> bool {
        is_due(self.problems.get(&part).and_then(|problem| problem.at), AGAIN_AFTER, now)
    }

    fn failed(&mut self, part: Part, now: Instant, says: String) {
        self.problems.insert(part, Problem { at: Some(now), says });
    }

    /// What to ask for, the most urgent first; transcripts and journals take turns.
    fn asks(&self, now: Instant) -> Vec<Ask> {
        let mut asks = Vec::new();
        if is_due(self.over_at, OVER_EVERY, now) {
            asks.push(Ask::Over);
        }
        if self.steps_at != Some(self.step) && self.may_ask(Part::Steps, now) {
            asks.push(Ask::Steps);
        }
        let mut due: Vec<(&u64, &Followed)> = self
            .followed
            .iter()
            .filter(|(_, one)| !one.is_asked && is_due(one.asked_at, JOURNAL_EVERY, now))
            .collect();
        due.sort_by_key(|(_, one)| one.asked_at);
        let mut journals = due.into_iter().map(|(episode, one)| {
            let Followed { attempt, entries, .. } = *one;
            Ask::Journal { episode: *episode, attempt, entries }
        });
        let mut transcripts = self.wanted.iter().rev().map(|episode| Ask::Transcript(*episode));
        loop {
            let before = asks.len();
            asks.extend(transcripts.next());
            asks.extend(journals.next());
            if asks.len() == before {
                return asks;
            }
        }
    }

    fn note(&mut self, ask: Ask, now: Instant) {
        match ask {
            Ask::Over => self.over_at = Some(now),
            Ask::Steps => self.steps_at = Some(self.step),
            Ask::Transcript(episode) => {
                self.wanted.remove(&episode);
            }
            Ask::Journal { episode, .. } => {
                if let Some(one) = self.followed.get_mut(&episode) {
                    (one.asked_at, one.is_asked) = (Some(now), true);
                }
            }
        }
    }

    fn take(
        &mut self,
        answer: Answer,
        now: Instant,
        at_ms: u64,
        recorder: &mut Recorder,
    ) -> Result<(), InspectError> {
        match answer {
            Answer::Over(Ok(rows)) => {
                self.problems.remove(&Part::Over);
                self.over(rows, now, at_ms, recorder)?;
            }
            Answer::Steps(Ok(mut steps)) => {
                self.problems.remove(&Part::Steps);
                // The last one may have got more numbers since.
                steps.retain(|row| self.kept_step.is_none_or(|kept| row.step.0 >= kept));
                for steps in steps.chunks(STEPS_EACH) {
                    recorder.keep(&Kept::Steps { at_ms, steps: steps.to_vec() })?;
                }
                self.kept_step = steps.last().map(|row| row.step.0).or(self.kept_step);
            }
            Answer::Transcript(episode, Ok(found)) => {
                self.problems.remove(&Part::Transcript(episode));
                if let Some(left) = found {
                    let left = Box::new(Transcript::of(*left));
                    recorder.keep(&Kept::Left { at_ms, episode, left })?;
                }
            }
            Answer::Journal(episode, found) => {
                let Some(one) = self.followed.get_mut(&episode) else { return Ok(()) };
                one.is_asked = false;
                let page = match found {
                    Ok(page) => page,
                    Err(error) => {
                        self.failed(Part::Journal(episode), now, error);
                        return Ok(());
                    }
                };
                if !page.entries.is_empty() {
                    one.attempt = page.attempt;
                    one.entries = page.first.saturating_add(count(&page.entries));
                    journal(episode, page, at_ms, recorder)?;
                }
                self.problems.remove(&Part::Journal(episode));
            }
            Answer::Over(Err(error)) => self.failed(Part::Over, now, error),
            Answer::Steps(Err(error)) => {
                self.steps_at = None;
                self.failed(Part::Steps, now, error);
            }
            Answer::Transcript(episode, Err(error)) => {
                self.asked.remove(&episode);
                self.failed(Part::Transcript(episode), now, error);
            }
        }
        Ok(())
    }

    fn over(
        &mut self,
        rows: Vec<EpisodeRow>,
        now: Instant,
        at_ms: u64,
        recorder: &mut Recorder,
    ) -> Result<(), InspectError> {
        let is_all = is_due(self.all_at, ALL_EVERY, now);
        let is_news = |row: &&EpisodeRow| is_all || self.rows.get(&row.episode.0) != Some(*row);
        let news: Vec<EpisodeRow> = rows.iter().filter(is_news).cloned().collect();
        if is_all {
            self.all_at = Some(now);
        }
        if !news.is_empty() {
            recorder.keep(&Kept::Over { at_ms, is_all, rows: news })?;
        }
        for row in rows.iter().filter(|row| row.reward.is_some()) {
            // What it earned against its group, and when it was trained on, is known later.
            let is_final = is_final(&row.state);
            let asked = self.asked.get(&row.episode.0).copied();
            let is_new = asked.is_none() || (is_final && asked == Some(false));
            if is_new && self.may_ask(Part::Transcript(row.episode.0), now) {
                self.asked.insert(row.episode.0, is_final);
                self.wanted.insert(row.episode.0);
            }
        }
        self.rows = rows.into_iter().map(|row| (row.episode.0, row)).collect();
        // What is not listed any more is not found any more either.
        self.asked.retain(|episode, _| self.rows.contains_key(episode));
        self.wanted.retain(|episode| self.rows.contains_key(episode));
        let (rows, missed) = (&self.rows, &mut self.missed);
        self.problems.retain(|part, problem| match part {
            Part::Transcript(episode) if !rows.contains_key(episode) => {
                *missed = Some(std::mem::take(&mut problem.says));
                false
            }
            _ => true,
        });
        Ok(())
    }
}

fn is_due(last: Option<Instant>, every: Duration, now: Instant) -> bool {
    last.is_none_or(|last| now.saturating_duration_since(last) >= every)
}

fn count(entries: &[Entry]) -> u32 {
    u32::try_from(entries.len()).unwrap_or(u32::MAX)
}

fn journal(
    episode: u64,
    page: Page,
    at_ms: u64,
    recorder: &mut Recorder,
) -> Result<(), InspectError> {
    let Page { attempt, mut first, entries } = page;
    let mut entries = entries.into_iter().map(kept::entry);
    loop {
        let entries: Vec<Entry> = entries.by_ref().take(ENTRIES_EACH).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let next = first.saturating_add(count(&entries));
        recorder.keep(&Kept::Journal { at_ms, episode, attempt, first, entries })?;
        first = next;
    }
}

#[cfg(test)]
mod tests {
    use crrl_store::StepRow;
    use crrl_types::{AdapterVersion, EpisodeId, GroupId, Step};

    use super::*;

    fn over(id: u64) -> EpisodeRow {
        EpisodeRow {
            episode: EpisodeId(id),
            group: GroupId(1),
            task: "t".into(),
            phase: 0,
            ordinal: 1,
            sample: 0,
            evaluation: false,
            attempt: 1,
            node: None,
            state: "trained".into(),
            reason: None,
            reward: Some(0.5),
            success: Some(false),
            oldest: None,
            generated: None,
            step: None,
        }
    }

    #[test]
    fn what_could_not_be_read_is_asked_for_again_after_a_pause() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut recorder = Recorder::create(&folder.path().join("run.rec"), "x").expect("writable");
        let mut collector = Collector::open(&RunDir::new(folder.path())).expect("a thread");
        let begin = Instant::now();
        let after = |s: u64| begin + Duration::from_secs(s);
        let wants = |collector: &Collector, s: u64| {
            let asks = collector.asks(after(s));
            (asks.contains(&Ask::Steps), asks.contains(&Ask::Transcript(7)))
        };
        let mut take = |collector: &mut Collector, s: u64, answer: Answer| {
            collector.take(answer, after(s), 0, &mut recorder).expect("writable");
        };
        take(&mut collector, 0, Answer::Over(Ok(vec![over(7)])));
        assert_eq!(wants(&collector, 0), (true, true));
        collector.note(Ask::Steps, after(0));
        collector.note(Ask::Transcript(7), after(0));
        assert_eq!(wants(&collector, 0), (false, false));
        take(&mut collector, 1, Answer::Steps(Err("the store is busy".into())));
        take(&mut collector, 1, Answer::Transcript(7, Err("no such table".into())));
        take(&mut collector, 4, Answer::Over(Ok(vec![over(7)])));
        assert_eq!(wants(&collector, 4), (false, false), "not at once");
        take(&mut collector, 12, Answer::Over(Ok(vec![over(7)])));
        assert_eq!(wants(&collector, 12), (true, true));
        collector.note(Ask::Steps, after(12));
        collector.note(Ask::Transcript(7), after(12));
        let (step, version) = (Step(1), AdapterVersion(1));
        let row = StepRow { step, version, metrics: Vec::new() };
        take(&mut collector, 12, Answer::Steps(Ok(vec![row])));
        assert_eq!(collector.problem(), Some("no such table"), "the other is still to come");
        take(&mut collector, 13, Answer::Transcript(7, Ok(None)));
        assert_eq!(collector.problem(), None);
        assert_eq!(wants(&collector, 30), (false, false), "it is there");
        // One that is never read, and asked for no more once it is too old for the list.
        take(&mut collector, 40, Answer::Transcript(7, Err("damaged".into())));
        take(&mut collector, 60, Answer::Over(Ok(vec![over(8)])));
        assert_eq!((wants(&collector, 60).1, collector.problem()), (false, Some("damaged")));
    }
}
