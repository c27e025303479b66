//! A small world for the coordinator: rollout nodes, a learner and a parameter server as simple
//! as can be, a network that delays, reorders, doubles and loses, and crashes of everyone. Time is
//! stepped; everything follows from the seed.

mod disk;
mod parties;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crrl_control::audit::{
    CheckpointFact, CheckpointFacts, Facts, Line, Setting, Transcript, audit,
};
use crrl_control::coordinator::{Assign, Coordinator, EpisodeResult, Loss, Turns};
use crrl_control::ledger::{Outcome, State};
use crrl_control::plan::{Phase, Plan};
use crrl_control::wire::{BatchRequest, Held, Serving, Wire};
use crrl_control::{Effect, Input};
use crrl_types::{
    AdapterVersion, Digest, EpisodeId, Event, EventKind, GroupId, NodeName, Sampling, Step, TaskId,
    TokenSpan,
};
use disk::{Disk, Turn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Node {
    up: bool,
    incarnation: u64,
    serving: Serving,
    working: BTreeMap<EpisodeId, Working>,
    unacked: BTreeMap<EpisodeId, (u32, EpisodeResult, Duration)>,
    /// It stands still until then.
    stalled: Option<Duration>,
}

/// An episode a node works on.
struct Working {
    attempt: u32,
    task: TaskId,
    group: GroupId,
    ends: Duration,
    turns: Vec<Turn>,
}

/// Survives its crashes: its checkpoints are durable.
struct Learner {
    up: bool,
    life: u64,
    /// When the last thing it said arrives.
    heard: Duration,
    step: u64,
    version: u64,
    /// What each surviving step was trained on.
    history: BTreeMap<u64, Vec<EpisodeId>>,
    training: Option<(u64, Vec<EpisodeId>, Duration)>,
    asked: Duration,
}

enum Packet {
    ToCoordinator(Box<Input>),
    /// News of a life of a node; it goes with that life's connection.
    OfLife(NodeName, u64, Box<Input>),
    ToNode(NodeName, u64, NodeWord),
    Turns(Box<Input>, Vec<Turn>),
    Batch(u64, Vec<EpisodeId>),
    /// News of a life of the learner.
    OfLearner(u64, Box<Input>),
}

#[derive(Clone)]
enum NodeWord {
    Assign(Assign, Vec<Turn>),
    Gone(EpisodeId, u32),
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) loss: f64,
    pub(crate) crash: f64,
    pub(crate) poison: Option<usize>,
    /// A node leaves as it is told to, and comes again.
    pub(crate) leave: f64,
    /// All nodes stand still at once, are missed one after the other, and go on.
    pub(crate) stall: f64,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    rng: ChaCha8Rng,
    pub(crate) now: Duration,
    plan: Plan,
    tasks: Vec<Vec<TaskId>>,
    pub(crate) coordinator: Coordinator,
    pub(crate) disk: Disk,
    nodes: BTreeMap<NodeName, Node>,
    learner: Learner,
    network: Vec<(Duration, Packet)>,
    pub(crate) faults: Faults,
    pub(crate) over: Option<Option<String>>,
    pub(crate) crashes: u32,
    /// Leases that went on from a journal, and slow episodes that a second node got.
    pub(crate) resumed: u32,
    pub(crate) duplicated: u32,
    /// Nodes that left as they were told to, and times all of them stood still.
    pub(crate) leaves: u32,
    pub(crate) stalls: u32,
}

fn serving(version: u64) -> Serving {
    Serving { version: AdapterVersion(version), digest: Digest::of(&version.to_le_bytes()) }
}

/// Five tokens under each adapter the result says.
fn transcript(episode: EpisodeId, result: &EpisodeResult) -> Transcript {
    let spans = (0..).zip(&result.adapters).map(|(nth, adapter)| TokenSpan {
        start: 5 * nth,
        end: 5 * (nth + 1),
        version: adapter.version,
        digest: adapter.digest,
    });
    let spans: Vec<TokenSpan> = spans.collect();
    Transcript { episode, generated: vec![true; 5 * spans.len()], spans, finite: true }
}

const CAPACITY: u32 = 4;

impl World {
    pub(crate) fn new(seed: u64, plan: Plan, tasks: usize, faults: Faults) -> Self {
        let ids: Vec<TaskId> = (0..tasks).map(|i| format!("task-{i}").into()).collect();
        let tasks = vec![ids; plan.phases.len()];
        let coordinator = Coordinator::new(plan.clone(), tasks.clone()).expect("a plan");
        let node = || Node {
            up: false,
            incarnation: 0,
            serving: serving(0),
            working: BTreeMap::new(),
            unacked: BTreeMap::new(),
            stalled: None,
        };
        Self {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Duration::ZERO,
            plan,
            tasks,
            coordinator,
            disk: Disk::default(),
            nodes: (0..3).map(|i| (format!("rollout-{i}").into(), node())).collect(),
            learner: Learner {
                up: false,
                life: 0,
                heard: Duration::ZERO,
                step: 0,
                version: 0,
                history: BTreeMap::new(),
                training: None,
                asked: Duration::ZERO,
            },
            network: Vec::new(),
            faults,
            over: None,
            crashes: 0,
            resumed: 0,
            duplicated: 0,
            leaves: 0,
            stalls: 0,
        }
    }

    fn send(&mut self, packet: Packet) {
        if self.rng.random_bool(self.faults.loss) {
            return;
        }
        let slow = if self.rng.random_bool(self.faults.loss) { 4000 } else { 30 };
        let at = self.now + Duration::from_millis(self.rng.random_range(1..slow));
        self.network.push((at, packet));
    }

    fn tell(&mut self, input: Input) {
        if self.rng.random_bool(self.faults.loss) {
            self.send(Packet::ToCoordinator(Box::new(input.clone())));
        }
        self.send(Packet::ToCoordinator(Box::new(input)));
    }

    fn input(&mut self, input: Input) {
        self.input_with(input, &[]);
    }

    /// One input to the coordinator, which may crash before or after it is durable.
    fn input_with(&mut self, input: Input, turns: &[Turn]) {
        let result = match &input {
            Input::Finished { result, .. } => Some(result.clone()),
            _ => None,
        };
        let said = self.coordinator.handle(input, self.now);
        let effects = said.unwrap_or_else(|broken| panic!("seed {}: {broken}", self.seed));
        let crash = self.rng.random_bool(self.faults.crash / 4.0);
        let durable = !crash || self.rng.random_bool(0.5);
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                Effect::Keep(episode) if durable => {
                    let result = result.as_ref().expect("kept because it came");
                    self.disk.transcripts.insert(episode, transcript(episode, result));
                }
                Effect::Record(record) if durable => self.disk.write(record),
                Effect::Results(results) if durable => self.disk.results = *results,
                Effect::Over { error } if durable => self.over = Some(error),
                Effect::KeepTurns { episode, attempt, first, skip } if durable => {
                    let kept = self.disk.journals.entry(episode).or_default();
                    assert_eq!(kept.1.len(), first as usize, "seed {}: {episode}", self.seed);
                    kept.0 = attempt;
                    kept.1.extend(&turns[skip as usize..]);
                    // Nothing that happened elsewhere is in between.
                    let said = first as usize - skip as usize;
                    assert_eq!(&kept.1[said..], turns, "seed {}: {episode}", self.seed);
                }
                Effect::ForgetTurns(episode) if durable => {
                    self.disk.journals.remove(&episode);
                }
                Effect::Event(kind) => {
                    self.duplicated += u32::from(matches!(kind, EventKind::Duplicated { .. }));
                    if durable {
                        events.push(kind);
                    }
                }
                Effect::Assign(assign) if !crash => {
                    let to = assign.to.clone();
                    let kept = self.disk.journals.get(&assign.episode).map(|kept| &kept.1);
                    let past = kept.map_or(&[][..], |kept| &kept[..assign.past as usize]).to_vec();
                    self.resumed += u32::from(assign.past > 0);
                    self.send_to(to, NodeWord::Assign(assign, past));
                }
                Effect::Send(
                    to,
                    Wire::Ack { episode, attempt } | Wire::Cancel { episode, attempt, .. },
                ) if !crash => {
                    self.send_to(to, NodeWord::Gone(episode, attempt));
                }
                Effect::SendBatch { step, episodes, .. } if !crash => {
                    self.send(Packet::Batch(step.0, episodes));
                }
                _ => {}
            }
        }
        if crash {
            // The history is written after the ledger: its last lines may be lost.
            let kept = self.rng.random_range(0..=events.len());
            events.truncate(kept);
            events.push(EventKind::Started);
        }
        let event = |kind| Event { at_ms: 0, node: "coordinator".into(), kind };
        self.disk.history.extend(events.into_iter().map(event));
        if crash {
            self.crashes += 1;
            let recovered = self.disk.recovered();
            self.coordinator =
                Coordinator::recover(self.plan.clone(), self.tasks.clone(), recovered, self.now)
                    .expect("its own store");
            let names: Vec<_> = self.nodes.keys().cloned().collect();
            for name in names {
                self.join(&name);
            }
            self.tell(Input::Published { serving: serving(self.learner.version) });
        }
        if let Err(broken) = self.coordinator.check() {
            panic!("seed {}: {broken}", self.seed);
        }
    }

    fn send_to(&mut self, to: NodeName, word: NodeWord) {
        let Some(node) = self.nodes.get(&to) else { return };
        let life = node.incarnation;
        self.send(Packet::ToNode(to, life, word));
    }

    fn down(&mut self, name: &NodeName, loss: Loss) {
        self.missed(name, loss, Duration::ZERO);
    }

    /// The coordinator hears of the loss of a node, after a while.
    fn missed(&mut self, name: &NodeName, loss: Loss, after: Duration) {
        let input = Input::NodeDown { node: name.clone(), reason: "gone".into(), loss };
        self.network.push((self.now + after, Packet::ToCoordinator(Box::new(input))));
    }

    /// All nodes stand still: each is missed when nothing was heard of it for a second, and long before
    /// it goes on.
    fn stall_all(&mut self) {
        let up = self.nodes.iter().filter(|(_, node)| node.up).map(|(name, _)| name.clone());
        for name in up.collect::<Vec<_>>() {
            let after = Duration::from_millis(self.rng.random_range(1000..1300));
            self.missed(&name, Loss::Unplanned, after);
        }
        let until = self.now + Duration::from_millis(self.rng.random_range(1500..4000));
        for node in self.nodes.values_mut().filter(|node| node.up) {
            node.stalled = Some(until);
        }
        self.stalls += 1;
    }

    /// Lets a little time pass, and whatever happens in it happen.
    pub(crate) fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.random_range(1..20));
        let now = self.now;
        let mut due: Vec<(Duration, Packet)> =
            self.network.extract_if(.., |(at, _)| *at <= now).collect();
        due.sort_by_key(|(at, _)| *at);
        for (_, packet) in due {
            self.deliver(packet);
        }
        if self.coordinator.next_deadline().is_some_and(|at| at <= self.now) {
            self.input(Input::Timer);
        }
        let none_stalls = self.nodes.values().all(|node| node.stalled.is_none());
        if none_stalls && self.faults.stall > 0.0 && self.rng.random_bool(self.faults.stall) {
            self.stall_all();
        }
        let names: Vec<NodeName> = self.nodes.keys().cloned().collect();
        for name in names {
            self.run_node(&name);
        }
        self.run_learner();
    }

    fn deliver(&mut self, packet: Packet) {
        match packet {
            Packet::ToCoordinator(input) => self.input(*input),
            Packet::OfLearner(life, input) if life == self.learner.life => self.input(*input),
            Packet::OfLearner(..) => {}
            Packet::Turns(input, said) => self.input_with(*input, &said),
            Packet::OfLife(name, life, input) => {
                let node = &self.nodes[&name];
                if node.up && node.incarnation == life {
                    self.input(*input);
                }
            }
            Packet::ToNode(name, life, word) => {
                let poison = self.faults.poison.map(|i| TaskId::from(format!("task-{i}")));
                let took = Duration::from_millis(self.rng.random_range(20..400));
                let ends = self.now + took;
                let Some(node) = self.nodes.get_mut(&name) else { return };
                if !node.up || node.incarnation != life || node.stalled.is_some() {
                    return;
                }
                match word {
                    NodeWord::Assign(assign, _) if Some(&assign.task) == poison.as_ref() => {
                        self.kill(&name);
                    }
                    NodeWord::Assign(assign, turns) => {
                        assert!(
                            node.working.len() <= CAPACITY as usize,
                            "seed {}: more than its room",
                            self.seed
                        );
                        if node.working.len() < CAPACITY as usize {
                            node.unacked.remove(&assign.episode);
                            let Assign { episode, attempt, task, group, .. } = assign;
                            let working = Working { attempt, task, group, ends, turns };
                            node.working.insert(episode, working);
                        }
                    }
                    NodeWord::Gone(episode, lease) => {
                        node.unacked.retain(|id, (held, ..)| *id != episode || *held > lease);
                        node.working.retain(|id, held| *id != episode || held.attempt > lease);
                    }
                }
            }
            Packet::Batch(step, episodes) => {
                let train = Duration::from_millis(self.rng.random_range(20..300));
                let learner = &mut self.learner;
                if learner.up && learner.step + 1 == step && learner.training.is_none() {
                    learner.training = Some((step, episodes, self.now + train));
                }
            }
        }
    }

    /// A person lets every task out of quarantine; nothing kills nodes any more.
    pub(crate) fn release_all(&mut self) {
        self.faults.poison = None;
        for task in self.disk.quarantined.keys().cloned().collect::<Vec<_>>() {
            self.input(Input::Release { task });
        }
    }

    /// Leases given out on a task.
    pub(crate) fn leases_on(&self, task: &str) -> u32 {
        let entries = self.disk.episodes.values();
        entries.filter(|entry| entry.task.as_str() == task).map(|entry| entry.attempt).sum()
    }

    /// What the run left behind, for an audit.
    pub(crate) fn facts(&self) -> Facts {
        let learner = &self.learner;
        let checkpoints = learner.history.get(&learner.step).map(|consumed| CheckpointFact {
            name: format!("step-{:08}", learner.step),
            holds: Ok(crrl_control::audit::Held {
                step: Step(learner.step),
                consumed: consumed.clone(),
                finite: true,
            }),
        });
        let setting = Setting {
            plan: self.plan.clone(),
            complete: self.disk.results.complete,
            batches: self.disk.batches.values().cloned().collect(),
            steps: self.disk.steps.iter().map(|(step, version)| (*step, *version)).collect(),
            published: self.disk.published.values().copied().collect(),
            checkpoints: CheckpointFacts::Here(checkpoints.into_iter().collect()),
            adapters: Vec::new(),
            restored: Vec::new(),
        };
        Facts {
            setting,
            entries: self.disk.episodes.values().cloned().collect(),
            transcripts: self.disk.transcripts.values().cloned().collect(),
            history: (1..)
                .zip(&self.disk.history)
                .map(|(number, event)| Line { number, event: Ok(event.clone()) })
                .collect(),
        }
    }

    /// Whether the learner is back at an older checkpoint and has not said so yet.
    pub(crate) fn has_fallen_back(&self) -> bool {
        let committed = self.coordinator.status().step;
        self.learner.step < committed.0
    }

    /// The audit of what is on disk right now.
    pub(crate) fn audit(&self) {
        let verdict = audit(&self.facts());
        assert!(verdict.ok, "seed {}: {:#?}", self.seed, verdict.findings);
    }

    /// What the ledger says was trained on is what the learner's surviving steps were made of.
    pub(crate) fn agrees_with_learner(&self) {
        for entry in self.disk.episodes.values() {
            // A checkpoint that was lost after the run's last word is not the coordinator's to know.
            if let State::Trained(step, _) = entry.state
                && step.0 <= self.learner.step
            {
                let of_step = self.learner.history.get(&step.0);
                assert!(
                    of_step.is_some_and(|ids| ids.contains(&entry.episode)),
                    "seed {}: {entry:?} is not in the learner's step",
                    self.seed
                );
            }
        }
        for row in self.disk.batches.values() {
            for id in &row.episodes {
                let oldest = self.disk.episodes[id].state.outcome().and_then(|o| o.oldest);
                let behind = oldest.map(|at| row.version.0 - at.0);
                let Some(Phase::Train(train)) = self.plan.phases.get(row.phase as usize) else {
                    panic!("seed {}: batch {} is of no train phase", self.seed, row.step);
                };
                assert!(
                    train.staleness_bound().is_none_or(|bound| behind <= Some(bound)),
                    "seed {}: {id} is {behind:?} behind",
                    self.seed
                );
            }
        }
    }

    pub(crate) fn run_until_over(&mut self, steps: u32) {
        for _ in 0..steps {
            if self.over.is_some() {
                return;
            }
            self.step();
        }
        panic!(
            "seed {}: not over after {steps} steps: {:#?}",
            self.seed,
            self.coordinator.status()
        );
    }
}
