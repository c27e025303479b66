//! A coordinator that goes on from a store, or whose learner goes back, in the middle of something.

use std::collections::BTreeMap;
use std::time::Duration;

use crrl_control::coordinator::{Assign, EpisodeResult, JournalFound, Loss, Turns};
use crrl_control::ledger::{Entry, Lease, Leases, Outcome, State, Totals};
use crrl_control::plan::{Evaluate, Phase, Plan, StalePolicy, Train};
use crrl_control::wire::{BatchRequest, Held, Serving};
use crrl_control::{Coordinator, Effect, Input, Recovered};
use crrl_types::{AdapterVersion, Digest, EpisodeId, GroupId, NodeName, Sampling, Step};

const NODE: &str = "rollout-0";

fn evaluate() -> Phase {
    Phase::Evaluate(Evaluate {
        label: "between".into(),
        tasks: "held-out".into(),
        tasks_max: 0,
        samples: 1,
        sampling: Sampling::default(),
    })
}

/// One step of two groups of two.
fn train() -> Phase {
    Phase::Train(Train {
        tasks: "train".into(),
        steps: 1,
        group_size: 2,
        groups_per_step: 2,
        sampling: Sampling::default(),
        staleness_max: 2,
        stale: StalePolicy::TrainRest,
        sync: false,
        skip_equal_groups: true,
        staleness: Default::default(),
        stragglers: Default::default(),
    })
}

fn serving(version: u64) -> Serving {
    Serving { version: AdapterVersion(version), digest: Digest::of(&version.to_le_bytes()) }
}

/// A coordinator, and what it wants done.
struct Driven {
    coordinator: Coordinator,
    now: Duration,
    serving: Serving,
    given: Vec<Assign>,
    /// Steps whose batch was sent, with its episodes.
    batches: Vec<(Step, Vec<EpisodeId>)>,
}

impl Driven {
    fn new(plan: Plan, tasks: usize, from: Recovered) -> Self {
        let ids = (0..tasks).map(|at| format!("task-{at}").as_str().into()).collect::<Vec<_>>();
        let tasks = vec![ids; plan.phases.len()];
        let (now, serving) = (Duration::ZERO, serving(0));
        let coordinator = Coordinator::recover(plan, tasks, from, now).expect("a good store");
        coordinator.check().expect("sound");
        Self { coordinator, now, serving, given: Vec::new(), batches: Vec::new() }
    }

    fn say(&mut self, input: Input) -> Vec<Effect> {
        self.now += Duration::from_millis(1);
        let effects = self.coordinator.handle(input, self.now).expect("sound");
        self.coordinator.check().expect("sound");
        for effect in &effects {
            match effect {
                Effect::Assign(assign) => self.given.push(assign.clone()),
                Effect::SendBatch { step, episodes, .. } => {
                    self.batches.push((*step, episodes.clone()));
                }
                _ => {}
            }
        }
        effects
    }

    fn join(&mut self, holding: Vec<Held>) {
        let (from, serving) = (NODE.into(), Some(self.serving));
        self.say(Input::Join { from, incarnation: 1, capacity: 8, holding, serving });
    }

    fn ask(&mut self, step: u64) {
        let request = BatchRequest { step: Step(step), version: self.serving.version };
        self.say(Input::BatchWanted { from: "learner".into(), request });
    }

    /// A new adapter is published and served.
    fn publish(&mut self, version: u64) {
        self.serving = serving(version);
        self.say(Input::Published { serving: self.serving });
        self.say(Input::Activated { from: NODE.into(), serving: self.serving });
    }

    /// The step of the batch that was sent last is made.
    fn commit(&mut self, version: u64) {
        let (step, consumed) = self.batches.last().cloned().expect("a batch was sent");
        self.publish(version);
        let version = AdapterVersion(version);
        self.say(Input::Committed { step, version, consumed, metrics: Vec::new() });
    }

    /// Every attempt that was handed out ends; every second one earns something.
    fn finish(&mut self) {
        while !self.given.is_empty() {
            for assign in std::mem::take(&mut self.given) {
                let Assign { to: from, episode, attempt, task, group, .. } = assign;
                let reward = (episode.0 % 2) as f64;
                let oldest = Some(self.serving.version);
                let result = EpisodeResult {
                    held: Held { episode, attempt },
                    task,
                    group,
                    temperature: Sampling::default().temperature,
                    outcome: Outcome { reward, success: false, oldest, generated: 5 },
                    adapters: vec![self.serving],
                    refused: None,
                };
                self.say(Input::Finished { from, result });
            }
        }
    }

    fn phase(&self) -> u32 {
        self.coordinator.status().phase
    }
}

#[test]
fn a_batch_of_a_later_phase_is_not_sent_before_that_phase() {
    let plan = Plan::new(1, vec![train(), evaluate(), train()]);
    let mut driven = Driven::new(plan, 6, Recovered::default());
    driven.ask(1);
    driven.join(Vec::new());
    driven.finish();
    driven.commit(1);
    driven.finish();
    driven.ask(2);
    driven.finish();
    assert_eq!(driven.phase(), 3);
    let steps = |driven: &Driven| driven.batches.iter().map(|(step, _)| step.0).collect::<Vec<_>>();
    assert_eq!(steps(&driven), [1, 2]);
    // The learner dies, and its checkpoint of step 1 does not load: it is back before it.
    let (node, loss) = ("learner".into(), Loss::Unplanned);
    driven.say(Input::NodeDown { node, reason: "killed".into(), loss });
    driven.publish(2);
    driven.ask(1);
    assert_eq!((driven.phase(), steps(&driven)), (1, vec![1, 2, 1]));
    driven.commit(3);
    driven.ask(2);
    assert_eq!((driven.phase(), steps(&driven)), (2, vec![1, 2, 1]), "it is being measured");
    driven.finish();
    assert_eq!((driven.phase(), steps(&driven)), (3, vec![1, 2, 1, 2]));
    driven.commit(4);
    assert!(driven.coordinator.is_over());
    assert!(driven.coordinator.results().complete);
}

/// An attempt of phase 0.
fn entry(episode: u64, ordinal: u64, evaluation: bool, attempt: u32, state: State) -> Entry {
    Entry {
        episode: EpisodeId(episode),
        group: GroupId(if evaluation { episode } else { 0 }),
        task: format!("task-{ordinal}").as_str().into(),
        phase: 0,
        ordinal,
        sample: if evaluation { 0 } else { episode as u32 },
        evaluation,
        attempt,
        node: Some(NODE.into()),
        state,
    }
}

#[test]
fn an_evaluation_that_was_begun_anew_and_resumed_leaves_no_task_out() {
    // All five tasks were entered under adapter 1; under adapter 2 one was measured and one is queued.
    let gone = |episode| entry(episode, episode, true, 1, State::Dropped("another".into()));
    let outcome =
        Outcome { reward: 1.0, success: true, oldest: Some(AdapterVersion(2)), generated: 5 };
    let mut entries: Vec<Entry> = (0..5).map(gone).collect();
    entries.push(entry(5, 0, true, 1, State::Measured(outcome)));
    entries.push(Entry { node: None, ..entry(6, 1, true, 0, State::Queued) });
    let recovered = Recovered {
        pinned: Some((serving(2), EpisodeId(5))),
        entries,
        published: vec![serving(1), serving(2)],
        totals: Totals { created: 7, dropped: 5, measured: 1, ..Totals::default() },
        next_episode: EpisodeId(7),
        next_group: GroupId(7),
        ordinals: BTreeMap::from([(0, 5)]),
        ..Recovered::default()
    };
    let mut driven = Driven::new(Plan::new(1, vec![evaluate()]), 5, recovered);
    driven.serving = serving(2);
    driven.join(Vec::new());
    driven.finish();
    assert!(driven.coordinator.is_over());
    let evaluation = &driven.coordinator.results().evaluations[0];
    assert_eq!(evaluation.attempts().count(), 5, "{evaluation:?}");
}

/// A run whose episode 0 was handed to a second node with three entries of its journal, none of which
/// is that node's own; then the coordinator died.
fn handed_over() -> Driven {
    let node = NodeName::from(NODE);
    let leased = |attempt| {
        State::Leased(Leases::one(Lease { node: node.clone(), attempt, deadline: Duration::MAX }))
    };
    let found = JournalFound { attempt: 1, entries: 3, oldest: Some(AdapterVersion(0)) };
    let recovered = Recovered {
        entries: vec![entry(0, 0, false, 2, leased(2)), entry(1, 0, false, 1, leased(1))],
        published: vec![serving(0)],
        totals: Totals { created: 2, ..Totals::default() },
        next_episode: EpisodeId(2),
        next_group: GroupId(1),
        ordinals: BTreeMap::from([(0, 1)]),
        journals: BTreeMap::from([(EpisodeId(0), found)]),
        ..Recovered::default()
    };
    let mut driven = Driven::new(Plan::new(1, vec![train()]), 6, recovered);
    driven.ask(1);
    let held = |episode, attempt| Held { episode: EpisodeId(episode), attempt };
    driven.join(vec![held(0, 2), held(1, 1)]);
    driven
}

/// Entries of its journal that the next node of episode 0 goes on from.
fn goes_on_from(driven: &mut Driven) -> Option<u32> {
    let (node, loss) = (NODE.into(), Loss::Planned);
    driven.say(Input::NodeDown { node, reason: "leaving".into(), loss });
    driven.given.clear();
    let (from, serving) = ("rollout-1".into(), Some(driven.serving));
    driven.say(Input::Join { from, incarnation: 1, capacity: 8, holding: Vec::new(), serving });
    driven.given.iter().find(|assign| assign.episode == EpisodeId(0)).map(|assign| assign.past)
}

#[test]
fn the_journal_of_an_episode_that_was_handed_over_goes_on_after_a_restart() {
    let mut driven = handed_over();
    let held = Held { episode: EpisodeId(0), attempt: 2 };
    let turns = Turns { first: 3, entries: 1, oldest: Some(AdapterVersion(0)) };
    let effects = driven.say(Input::Turns { from: NODE.into(), held, turns });
    let kept = Effect::KeepTurns { episode: EpisodeId(0), attempt: 2, first: 3, skip: 0 };
    assert!(effects.contains(&kept), "{effects:?}");
    assert_eq!(goes_on_from(&mut driven), Some(4));
    // One that got no further than it was handed begins anew, as it would have without the restart.
    assert_eq!(goes_on_from(&mut handed_over()), Some(0));
}
