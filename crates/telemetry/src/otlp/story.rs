//! What the run's history tells of an episode or an optimizer step, gathered line by line.
//!
//! An episode is told once it has ended, a step once those that follow it show that every engine has
//! had the time to take its adapter. Whatever has not ended is bounded and told by [`History::rest`].

use std::collections::{BTreeMap, VecDeque};

use crrl_types::{AdapterVersion, EpisodeId, Event, EventKind, GroupId, NodeName, Step, TaskId};

/// Episodes that have begun and not ended; past it the oldest are left out.
const OPEN_MAX: usize = 65_536;
/// Leases of one episode that are kept.
const LEASES_MAX: usize = 64;
/// Steps that wait for their adapter's activations.
const STEPS_WAIT: usize = 4;
/// Adapters whose way is kept.
const VERSIONS_MAX: usize = 16;
/// Engines whose activation of one adapter is kept.
const ENGINES_MAX: usize = 1024;
/// Episodes of one step that are named.
pub const CONSUMED_MAX: usize = 1024;

/// One lease on an episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseStory {
    /// Which, from 1.
    pub attempt: u32,
    /// To whom.
    pub to: NodeName,
    /// Given then, in milliseconds since the Unix epoch, as every time here.
    pub at_ms: u64,
    /// Lost then.
    pub lost_ms: Option<u64>,
    /// Entries of another node's journal it went on from.
    pub resumed: Option<u32>,
    /// Whether it was given beside another.
    pub second: bool,
}

/// How an episode ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Trained on, in this step; how often the step had been undone before.
    Trained(Step, u32),
    /// Left out.
    Dropped(String),
    /// Not rolled out.
    Failed(String),
}

/// One episode.
#[derive(Debug, Clone, PartialEq)]
pub struct EpisodeStory {
    /// Which.
    pub episode: EpisodeId,
    /// Of which group.
    pub group: GroupId,
    /// At what.
    pub task: TaskId,
    /// Who tells.
    pub coordinator: NodeName,
    /// Its leases, in order.
    pub leases: Vec<LeaseStory>,
    /// When it came back, with what reward and whether it was solved.
    pub finished: Option<(u64, f64, bool)>,
    /// When and how it ended; none while it goes on.
    pub end: Option<(u64, End)>,
    /// The last that was heard of it.
    pub last_ms: u64,
}

/// One optimizer step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepStory {
    /// Which.
    pub step: Step,
    /// How often it had been undone before.
    pub undone: u32,
    /// The adapter it made.
    pub version: AdapterVersion,
    /// Who tells.
    pub coordinator: NodeName,
    /// When the last of its episodes had come back, or the step before was committed.
    pub ready_ms: u64,
    /// Committed then.
    pub at_ms: u64,
    /// Episodes it consumed.
    pub consumed: Vec<EpisodeId>,
    /// More of them.
    pub consumed_more: u32,
    /// When the adapter was published.
    pub published_ms: Option<u64>,
    /// Who served it when.
    pub activated: Vec<(u64, NodeName)>,
}

/// What has been told in full.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// An episode.
    Episode(Box<EpisodeStory>),
    /// A step.
    Step(Box<StepStory>),
}

#[derive(Debug, Default)]
struct Way {
    published_ms: Option<u64>,
    activated: Vec<(u64, NodeName)>,
}

/// Gathers a history.
#[derive(Debug, Default)]
pub struct History {
    open: BTreeMap<EpisodeId, EpisodeStory>,
    /// Resumed from so many entries, or a second lease: said just before the lease itself.
    next: BTreeMap<EpisodeId, (Option<u32>, bool)>,
    consumed: Vec<EpisodeId>,
    consumed_more: u32,
    ready_ms: u64,
    undone: BTreeMap<Step, u32>,
    steps: VecDeque<StepStory>,
    ways: BTreeMap<AdapterVersion, Way>,
}

impl History {
    /// The next line. Gives what is told in full with it.
    pub fn line(&mut self, event: &Event) -> Vec<Told> {
        let at_ms = event.at_ms;
        match &event.kind {
            EventKind::Dispatched { episode, group, task, to, attempt } => {
                let (resumed, second) = self.next.remove(episode).unwrap_or_default();
                let story = self.open.entry(*episode).or_insert_with(|| EpisodeStory {
                    episode: *episode,
                    group: *group,
                    task: task.clone(),
                    coordinator: event.node.clone(),
                    leases: Vec::new(),
                    finished: None,
                    end: None,
                    last_ms: at_ms,
                });
                story.last_ms = story.last_ms.max(at_ms);
                if story.leases.len() < LEASES_MAX {
                    let (attempt, to) = (*attempt, to.clone());
                    let lost_ms = None;
                    story.leases.push(LeaseStory { attempt, to, at_ms, lost_ms, resumed, second });
                }
                if self.open.len() > OPEN_MAX {
                    self.open.pop_first();
                }
            }
            EventKind::Resumed { episode, entries } => self.expect(*episode).0 = Some(*entries),
            EventKind::Duplicated { episode, .. } => self.expect(*episode).1 = true,
            EventKind::LeaseLost { episode, from } => {
                if let Some(story) = self.heard(*episode, at_ms) {
                    let lost =
                        |lease: &&mut LeaseStory| lease.to == *from && lease.lost_ms.is_none();
                    if let Some(lease) = story.leases.iter_mut().rev().find(lost) {
                        lease.lost_ms = Some(at_ms);
                    }
                }
            }
            EventKind::Finished { episode, reward, success } => {
                if let Some(story) = self.heard(*episode, at_ms) {
                    story.finished = Some((at_ms, *reward, *success));
                }
            }
            EventKind::Trained { episode, step } => {
                let undone = self.undone.get(step).copied().unwrap_or(0);
                self.consume(*episode);
                return self.ended(*episode, at_ms, End::Trained(*step, undone));
            }
            EventKind::Dropped { episode, reason } => {
                return self.ended(*episode, at_ms, End::Dropped(reason.clone()));
            }
            EventKind::Failed { episode, reason } => {
                return self.ended(*episode, at_ms, End::Failed(reason.clone()));
            }
            EventKind::RolledBack { step } => self.undo(*step),
            EventKind::Stepped { step, version } => {
                return self.stepped(event, *step, *version);
            }
            EventKind::Published { version, .. } => {
                self.way(*version).published_ms.get_or_insert(at_ms);
            }
            EventKind::Activated { peer, version, .. } => {
                let way = self.way(*version);
                if way.activated.len() < ENGINES_MAX {
                    way.activated.push((at_ms, peer.clone()));
                }
            }
            EventKind::Started
            | EventKind::Restored { .. }
            | EventKind::NodeUp { .. }
            | EventKind::NodeDown { .. }
            | EventKind::Restarted { .. }
            | EventKind::Quarantined { .. }
            | EventKind::Released { .. } => {}
        }
        Vec::new()
    }

    /// What has not ended where the history ends.
    #[must_use]
    pub fn rest(mut self) -> Vec<Told> {
        let steps = std::mem::take(&mut self.steps);
        let mut told: Vec<Told> = steps.into_iter().map(|step| self.complete(step)).collect();
        told.extend(self.open.into_values().map(|story| Told::Episode(Box::new(story))));
        told
    }

    fn expect(&mut self, episode: EpisodeId) -> &mut (Option<u32>, bool) {
        if self.next.len() > OPEN_MAX {
            self.next.pop_first();
        }
        self.next.entry(episode).or_default()
    }

    fn heard(&mut self, episode: EpisodeId, at_ms: u64) -> Option<&mut EpisodeStory> {
        let story = self.open.get_mut(&episode)?;
        story.last_ms = story.last_ms.max(at_ms);
        Some(story)
    }

    fn ended(&mut self, episode: EpisodeId, at_ms: u64, end: End) -> Vec<Told> {
        self.next.remove(&episode);
        let Some(mut story) = self.open.remove(&episode) else { return Vec::new() };
        story.last_ms = story.last_ms.max(at_ms);
        story.end = Some((at_ms, end));
        if let (Some((back_ms, ..)), Some((_, End::Trained(..)))) = (story.finished, &story.end) {
            self.ready_ms = self.ready_ms.max(back_ms);
        }
        vec![Told::Episode(Box::new(story))]
    }

    fn consume(&mut self, episode: EpisodeId) {
        if self.consumed.len() < CONSUMED_MAX {
            self.consumed.push(episode);
        } else {
            self.consumed_more = self.consumed_more.saturating_add(1);
        }
    }

    fn undo(&mut self, step: Step) {
        *self.undone.entry(step).or_default() += 1;
        while self.undone.len() > CONSUMED_MAX {
            self.undone.pop_first();
        }
    }

    fn stepped(&mut self, event: &Event, step: Step, version: AdapterVersion) -> Vec<Told> {
        self.steps.push_back(StepStory {
            step,
            undone: self.undone.get(&step).copied().unwrap_or(0),
            version,
            coordinator: event.node.clone(),
            ready_ms: self.ready_ms.min(event.at_ms),
            at_ms: event.at_ms,
            consumed: std::mem::take(&mut self.consumed),
            consumed_more: std::mem::take(&mut self.consumed_more),
            published_ms: None,
            activated: Vec::new(),
        });
        self.ready_ms = event.at_ms;
        if self.steps.len() <= STEPS_WAIT {
            return Vec::new();
        }
        let oldest = self.steps.pop_front();
        oldest.map(|step| self.complete(step)).into_iter().collect()
    }

    fn complete(&mut self, mut step: StepStory) -> Told {
        if let Some(way) = self.ways.remove(&step.version) {
            step.published_ms = way.published_ms;
            step.activated = way.activated;
        }
        Told::Step(Box::new(step))
    }

    fn way(&mut self, version: AdapterVersion) -> &mut Way {
        // One that an engine has late is nobody's any more.
        while self.ways.len() >= VERSIONS_MAX && !self.ways.contains_key(&version) {
            self.ways.pop_first();
        }
        self.ways.entry(version).or_default()
    }
}
