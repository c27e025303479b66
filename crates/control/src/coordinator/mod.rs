//! The coordinator: tasks out on credit, results in, batches to the learner, phase after phase.
//!
//! A pure state machine. [`Coordinator::handle`] takes an input and the time on a monotonic clock
//! and returns effects, in the order they must be carried out: a message that follows a
//! [`Effect::Record`] may be sent only after the record is durable. It never sees a trajectory's
//! tokens: an actor keeps those under the episode's id.
//!
//! - `input`: what it is told, and how that is read off a [`crate::wire::Wire`]
//! - `nodes`: who is there, with what adapter and how much room
//! - `roster`: the same, sorted by what is asked of it
//! - `dispatch`: which episode goes where; leases, and what happens when one is lost
//! - `journals`: episodes that survive the node they were begun on
//! - `stragglers`: attempts that take far longer than the others
//! - `groups`: attempts at one task, until they are ready to be trained on
//! - `batches`: what the learner gets, what it committed, what it fell back to
//! - `evaluation`: measuring the policy as it stands
//! - `phases`: from one phase of the plan to the next
//! - `recovery`: a coordinator that was restarted
//! - `status`: who waits for whom

mod batches;
mod dispatch;
mod evaluation;
mod groups;
mod input;
mod journals;
mod nodes;
mod phases;
mod recovery;
mod roster;
mod status;
mod stragglers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crrl_types::{AdapterVersion, Digest, EpisodeId, EventKind, GroupId, NodeName, Step, TaskId};

pub use batches::{BatchRow, LEFT_OUT};
pub use input::{Input, Loss, Result as EpisodeResult};
pub use journals::Turns;
pub use recovery::{JournalFound, RecoverError, Recovered};
pub use status::{NodeStatus, Status, Waiting};

use crate::cursor::Cursor;
use crate::ledger::{Broken, Entry, Ledger, Totals, Transition};
use crate::plan::Plan;
use crate::results::Results;
use crate::wire::{Serving, StepMetrics, Wire};

/// Optimizer steps the learner may fall back; older batches leave memory.
pub const ROLLBACK_STEPS_MAX: u64 = 64;

/// Wait for nodes to say what they hold, after a restart of the coordinator.
pub const REJOIN_GRACE: Duration = Duration::from_secs(10);

/// Something that must be durable before the effects after it are carried out.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// An episode as it is now.
    Episode(Box<Entry>),
    /// A batch as it is now.
    Batch(BatchRow),
    /// An adapter was published.
    Published(Serving),
    /// Numbers of an optimizer step: the learner's and the coordinator's.
    Step {
        /// The step.
        step: Step,
        /// The adapter version it made.
        version: AdapterVersion,
        /// Name and value.
        metrics: StepMetrics,
    },
    /// The run is in this phase (0-based; the number of phases when all are over).
    Phase(u32),
    /// What an evaluate phase measures (none: not yet decided), and the first episode that counts.
    Pinned(Option<Serving>, EpisodeId),
    /// A task is handed out no more.
    Quarantined(TaskId, String),
    /// A task is handed out again.
    Released(TaskId),
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make this durable before going on.
    Record(Record),
    /// The trajectory that came with this input is wanted: make it durable with the records.
    Keep(EpisodeId),
    /// The trajectory of this episode need not be at hand any more (it stays in the store).
    Forget(EpisodeId),
    /// The turns that came with this input continue an episode's journal: all but the first
    /// `skip` are appended, the first of them as entry number `first`.
    KeepTurns {
        /// The episode.
        episode: EpisodeId,
        /// The lease that writes them.
        attempt: u32,
        /// 0-based number of the first new entry.
        first: u32,
        /// Entries that came and are on disk already.
        skip: u32,
    },
    /// The journal of this episode is of no use any more.
    ForgetTurns(EpisodeId),
    /// Send a small message.
    Send(NodeName, Wire),
    /// Send an assignment; the task's JSON line is added.
    Assign(Assign),
    /// Send a batch: these trajectories, in this order.
    SendBatch {
        /// The learner.
        to: NodeName,
        /// The optimizer step it is for.
        step: Step,
        /// Whose trajectories.
        episodes: Vec<EpisodeId>,
    },
    /// Append to the run's history.
    Event(EventKind),
    /// Rewrite `results.json`.
    Results(Box<Results>),
    /// The run is over; `error` says why if it ended early.
    Over {
        /// Why it ended early.
        error: Option<String>,
    },
}

/// An assignment without its task.
#[derive(Debug, Clone, PartialEq)]
pub struct Assign {
    /// The node.
    pub to: NodeName,
    /// The episode.
    pub episode: EpisodeId,
    /// Number of the lease.
    pub attempt: u32,
    /// The attempts it is compared with.
    pub group: GroupId,
    /// 0-based phase of the plan, whose task file has the task.
    pub phase: u32,
    /// The task.
    pub task: TaskId,
    /// Seed of its sampling; the rest is the phase's.
    pub seed: u64,
    /// Whether it is only measured.
    pub evaluation: bool,
    /// Entries of the journal it goes on from; 0 begins anew.
    pub past: u32,
}

/// Where the run is.
#[derive(Debug, Clone)]
enum Stage {
    Training(Training),
    Evaluating(Box<evaluation::Evaluating>),
    Over { error: Option<String> },
}

/// A train phase under way.
#[derive(Debug, Clone)]
struct Training {
    cursor: Cursor,
    first_step: u64,
    last_step: u64,
    /// Groups in a row without signal.
    equal_in_a_row: u64,
    /// Groups in a row none of whose attempts could be rolled out.
    failed_in_a_row: u64,
    equal_groups: u64,
    /// Numbers of the run when the phase, or this life of the coordinator, began.
    at_start: Totals,
    /// Numbers of the phase up to then.
    before: Totals,
}

/// Decides what every node of a run does.
#[derive(Debug, Clone)]
pub struct Coordinator {
    plan: Plan,
    /// Task ids of each phase, in file order.
    tasks: Vec<Vec<TaskId>>,
    phase: usize,
    phase_since: Duration,
    stage: Stage,
    ledger: Ledger,
    next_group: GroupId,
    /// For each phase, the number of the next group.
    ordinals: Vec<u64>,
    /// Groups that are not yet in a batch.
    groups: BTreeMap<GroupId, groups::Group>,
    /// Those of them an episode of which has ended since they were looked at.
    unsettled: BTreeSet<GroupId>,
    /// Those of them that wait for a batch.
    ready: BTreeSet<groups::Ready>,
    /// Episodes without a node, but for those that are held back.
    queue: BTreeSet<EpisodeId>,
    nodes: roster::Roster,
    /// Nodes that are asked once more what they hold.
    asked: BTreeMap<NodeName, nodes::Asked>,
    learner: batches::Learner,
    batches: BTreeMap<u64, batches::Batch>,
    /// The last step whose batch cannot be sent again: its tokens are lost.
    sealed: Step,
    /// The last step with a batch when the ledger was restored, if the learner may have made more by then.
    open: Option<Step>,
    published: BTreeMap<AdapterVersion, Digest>,
    /// Nodes that are to say first what the base model alone is, and until when others wait for them.
    awaited: Option<(BTreeSet<NodeName>, Duration)>,
    /// Lives of nodes that were lost with a task since it last had a result.
    kills: BTreeMap<TaskId, BTreeSet<(NodeName, u64)>>,
    /// What nodes that were lost a moment ago were working on.
    held_back: Option<nodes::HeldBack>,
    /// Nodes that were lost, and when: the last few.
    lost: VecDeque<(Duration, NodeName)>,
    quarantined: BTreeMap<TaskId, String>,
    /// What is on disk of episodes under way.
    journals: BTreeMap<EpisodeId, journals::Journal>,
    /// How long the last attempts took.
    pace: stragglers::Pace,
    since_step: status::SinceStep,
    /// Why an episode could not be rolled out, the last time.
    last_failure: String,
    results: Results,
}

impl Coordinator {
    /// A coordinator at the start of a plan. `tasks` are the task ids of each phase, in the order
    /// of its task file (for an evaluate phase, already cut to `tasks_max`).
    ///
    /// # Errors
    /// [`RecoverError`] if the plan or its tasks do not make sense.
    pub fn new(plan: Plan, tasks: Vec<Vec<TaskId>>) -> Result<Self, RecoverError> {
        Self::recover(plan, tasks, Recovered::default(), Duration::ZERO)
    }

    /// Takes an input in. `now` never goes back.
    ///
    /// # Errors
    /// [`Broken`] if an invariant does not hold any more: a bug; the run must not go on.
    pub fn handle(&mut self, input: Input, now: Duration) -> Result<Vec<Effect>, Broken> {
        let mut out = Vec::new();
        if !matches!(self.stage, Stage::Over { .. }) {
            self.take(input, now, &mut out)?;
            self.ask_what_is_held(now, &mut out);
            self.believe_others(now, &mut out);
            self.pump(now, &mut out)?;
        } else if let Some(from) = input.sender() {
            out.push(Effect::Send(from.clone(), self.farewell()));
        }
        Ok(out)
    }

    /// When [`Input::Timer`] is due if nothing else happens; `None` if nothing is waited for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let held_back = self.held_back.as_ref().map(|held| held.until);
        let awaited = self.awaited.as_ref().map(|(_, until)| *until);
        let others = [self.next_straggler(), self.next_question(), held_back, awaited];
        self.ledger.next_deadline().into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Checks the invariants of the ledger and of everything kept beside it.
    ///
    /// # Errors
    /// What is broken.
    pub fn check(&self) -> Result<(), Broken> {
        self.ledger.check()?;
        self.check_dispatch()?;
        self.check_groups()?;
        self.check_batches()
    }

    /// Whether all phases are over, or the run has failed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over { .. })
    }

    /// Results of the phases that have ended.
    #[must_use]
    pub fn results(&self) -> &Results {
        &self.results
    }

    fn take(&mut self, input: Input, now: Duration, out: &mut Vec<Effect>) -> Result<(), Broken> {
        match input {
            Input::Join { from, incarnation, capacity, holding, serving } => {
                self.join(&from, incarnation, capacity, &holding, serving, now, out)
            }
            Input::Credit { from, capacity } => {
                self.set_capacity(&from, capacity);
                Ok(())
            }
            Input::NodeDown { node, reason, loss } => {
                self.node_down(&node, &reason, loss, now, out)
            }
            Input::Activated { from, serving } => {
                self.activated(&from, serving, out);
                Ok(())
            }
            Input::Published { serving } => {
                self.publish(serving, out);
                Ok(())
            }
            Input::Finished { from, result } => self.finished(&from, &result, now, out),
            Input::Turns { from, held, turns } => {
                self.turns(&from, held, turns, out);
                Ok(())
            }
            Input::Failed { from, held, reason } => self.failed(&from, held, &reason, out),
            Input::BatchWanted { from, request } => self.batch_wanted(from, request, now, out),
            Input::Committed { step, version, consumed, metrics } => {
                self.committed(step, version, Some(&consumed), metrics, out)
            }
            Input::Timer => Ok(()),
            Input::Release { task } => {
                self.kills.remove(&task);
                self.let_out(&task, out);
                Ok(())
            }
            Input::Abort { reason } => {
                self.end_run(reason, out);
                Ok(())
            }
        }
    }

    /// Everything that may have become possible, in one fixed order.
    fn pump(&mut self, now: Duration, out: &mut Vec<Effect>) -> Result<(), Broken> {
        self.expire_leases(now, out)?;
        // Each round ends a phase, so the plan's length bounds them.
        for _ in 0..=self.plan.phases.len() {
            self.settle_groups(out)?;
            self.plan_work(out)?;
            self.make_batch(now, out)?;
            self.dispatch(now, out)?;
            self.duplicate_stragglers(now, out)?;
            if !self.end_phase_if_done(now, out)? {
                break;
            }
        }
        Ok(())
    }

    /// Moves an episode on, and keeps queue and records in step with it.
    fn transit(
        &mut self,
        episode: EpisodeId,
        transition: Transition,
        out: &mut Vec<Effect>,
    ) -> Result<Entry, Broken> {
        let entry = self.ledger.apply(episode, transition).map_err(|e| Broken(e.to_string()))?;
        if matches!(entry.state, crate::ledger::State::Queued) {
            self.queue.insert(episode);
        } else {
            self.queue.remove(&episode);
            if let Some(held) = &mut self.held_back {
                held.episodes.remove(&episode);
            }
        }
        if !entry.state.is_open() {
            self.unsettled.insert(entry.group);
        }
        if let Some(event) = status::terminal_event(&entry) {
            out.push(Effect::Event(event));
        }
        if let Stage::Evaluating(evaluating) = &mut self.stage {
            Self::note_attempt(evaluating, &entry);
        }
        if !entry.state.is_open() {
            self.forget_turns(episode, out);
        }
        let over = entry.state.is_terminal();
        out.push(Effect::Record(Record::Episode(Box::new(entry.clone()))));
        if over && !matches!(entry.state, crate::ledger::State::Trained(..)) {
            out.push(Effect::Forget(episode));
        }
        Ok(entry)
    }

    fn farewell(&self) -> Wire {
        let reason = match &self.stage {
            Stage::Over { error: Some(error) } => format!("the run ended early: {error}"),
            _ => "the run is over".to_owned(),
        };
        Wire::Stop { reason }
    }
}
