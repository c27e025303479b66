//! A small world for the coordinator: rollout nodes, a learner and a parameter server as simple
//! as can be, a network that delays, reorders, doubles and loses, and crashes of everyone. Time is
//! stepped; everything follows from the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crrl_control::audit::{CheckpointFact, Facts, Line, Setting, Transcript, audit};
use crrl_control::coordinator::{Assign, BatchRow, Coordinator, EpisodeResult, ROLLBACK_STEPS_MAX};
use crrl_control::ledger::{Entry, Outcome, State, Totals};
use crrl_control::plan::Plan;
use crrl_control::results::Results;
use crrl_control::wire::{BatchRequest, Held, Serving, Wire};
use crrl_control::{Effect, Input, Record, Recovered};
use crrl_types::{
    AdapterVersion, Digest, EpisodeId, Event, EventKind, GroupId, NodeName, Step, TaskId, TokenSpan,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What is durable at the coordinator.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) episodes: BTreeMap<EpisodeId, Entry>,
    batches: BTreeMap<u64, BatchRow>,
    published: BTreeMap<AdapterVersion, Serving>,
    quarantined: BTreeMap<TaskId, String>,
    phase: u32,
    pinned: Option<(Serving, EpisodeId)>,
    pub(crate) results: Results,
    steps: BTreeMap<Step, AdapterVersion>,
    transcripts: BTreeMap<EpisodeId, Transcript>,
    history: Vec<Event>,
}

impl Disk {
    fn write(&mut self, record: Record) {
        match record {
            Record::Episode(entry) => drop(self.episodes.insert(entry.episode, *entry)),
            Record::Batch(row) => drop(self.batches.insert(row.step.0, row)),
            Record::Published(serving) => drop(self.published.insert(serving.version, serving)),
            Record::Phase(phase) => self.phase = phase,
            Record::Pinned(serving, first) => self.pinned = serving.map(|s| (s, first)),
            Record::Quarantined(task, why) => drop(self.quarantined.insert(task, why)),
            Record::Released(task) => drop(self.quarantined.remove(&task)),
            Record::Step { step, version, .. } => drop(self.steps.insert(step, version)),
        }
    }

    fn totals(&self, of: impl Fn(&Entry) -> bool) -> Totals {
        let mut totals = Totals::default();
        for entry in self.episodes.values().filter(|entry| of(entry)) {
            totals.created += 1;
            match entry.state {
                State::Trained(..) => totals.trained += 1,
                State::Measured(_) => totals.measured += 1,
                State::Dropped(_) => totals.dropped += 1,
                State::Failed(_) => totals.failed += 1,
                State::Quarantined(_) => totals.quarantined += 1,
                _ => {}
            }
        }
        totals
    }

    fn recovered(&self) -> Recovered {
        let first =
            self.batches.keys().next_back().map_or(0, |s| s.saturating_sub(ROLLBACK_STEPS_MAX - 1));
        let wanted = |entry: &&Entry| match &entry.state {
            State::Trained(step, _) => step.0 >= first,
            state if state.is_terminal() => self.pinned.is_some() && entry.phase == self.phase,
            _ => true,
        };
        let mut ordinals = BTreeMap::new();
        for entry in self.episodes.values() {
            let slot = ordinals.entry(entry.phase).or_insert(0);
            *slot = (entry.ordinal + 1).max(*slot);
        }
        let next = |max: Option<u64>| max.map_or(0, |max| max + 1);
        Recovered {
            phase: self.phase,
            pinned: self.pinned,
            entries: self.episodes.values().filter(wanted).cloned().collect(),
            batches: self.batches.range(first..).map(|(_, row)| row.clone()).collect(),
            published: self.published.values().copied().collect(),
            quarantined: self.quarantined.clone(),
            totals: self.totals(|_| true),
            phase_totals: self.totals(|entry| entry.phase == self.phase),
            next_episode: EpisodeId(next(self.episodes.keys().next_back().map(|id| id.0))),
            next_group: GroupId(next(self.episodes.values().map(|e| e.group.0).max())),
            ordinals,
            results: self.results.clone(),
        }
    }
}

struct Node {
    up: bool,
    incarnation: u64,
    serving: Serving,
    /// Episodes worked on, and when each ends.
    working: BTreeMap<EpisodeId, (u32, Duration, Assign)>,
    unacked: BTreeMap<EpisodeId, (u32, EpisodeResult, Duration)>,
}

/// Survives its crashes: its checkpoints are durable.
struct Learner {
    up: bool,
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
    Batch(u64, Vec<EpisodeId>),
}

#[derive(Clone)]
enum NodeWord {
    Assign(Assign),
    Gone(EpisodeId, u32),
}

#[derive(Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) loss: f64,
    pub(crate) crash: f64,
    pub(crate) poison: Option<usize>,
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
}

fn serving(version: u64) -> Serving {
    Serving { version: AdapterVersion(version), digest: Digest::of(&version.to_le_bytes()) }
}

/// Five tokens, each under the adapter the result says.
fn transcript(episode: EpisodeId, result: &EpisodeResult) -> Transcript {
    let Serving { version, digest } = result.adapters[0];
    Transcript {
        episode,
        generated: vec![true; 5],
        spans: vec![TokenSpan { start: 0, end: 5, version, digest }],
        finite: true,
    }
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

    /// One input to the coordinator, which may crash before or after it is durable.
    fn input(&mut self, input: Input) {
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
                Effect::Event(kind) if durable => events.push(kind),
                Effect::Keep(episode) if durable => {
                    let result = result.as_ref().expect("kept because it came");
                    self.disk.transcripts.insert(episode, transcript(episode, result));
                }
                Effect::Record(record) if durable => self.disk.write(record),
                Effect::Results(results) if durable => self.disk.results = *results,
                Effect::Over { error } if durable => self.over = Some(error),
                Effect::Assign(assign) if !crash => {
                    let to = assign.to.clone();
                    self.send_to(to, NodeWord::Assign(assign));
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

    fn join(&mut self, name: &NodeName) {
        let node = &self.nodes[name];
        if !node.up {
            return;
        }
        let working = node.working.iter().map(|(id, (attempt, ..))| (*id, *attempt));
        let unacked = node.unacked.iter().map(|(id, (attempt, ..))| (*id, *attempt));
        let holding =
            working.chain(unacked).map(|(episode, attempt)| Held { episode, attempt }).collect();
        let (incarnation, serving) = (node.incarnation, Some(node.serving));
        // A join is repeated by every new connection: it is not lost for good.
        let from = name.clone();
        let input = Input::Join { from, incarnation, capacity: CAPACITY, holding, serving };
        self.network
            .push((self.now + Duration::from_millis(1), Packet::ToCoordinator(Box::new(input))));
    }

    fn down(&mut self, name: &NodeName) {
        let input = Input::NodeDown { node: name.clone(), reason: "killed".into() };
        self.network.push((self.now, Packet::ToCoordinator(Box::new(input))));
    }

    /// Lets a little time pass, and whatever happens in it happen.
    pub(crate) fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.random_range(1..20));
        let mut due = Vec::new();
        let mut index = 0;
        while index < self.network.len() {
            if self.network[index].0 <= self.now {
                due.push(self.network.swap_remove(index).1);
            } else {
                index += 1;
            }
        }
        for packet in due {
            self.deliver(packet);
        }
        if self.coordinator.next_deadline().is_some_and(|at| at <= self.now) {
            self.input(Input::Timer);
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
                if !node.up || node.incarnation != life {
                    return;
                }
                match word {
                    NodeWord::Assign(assign) if Some(&assign.task) == poison.as_ref() => {
                        self.kill(&name);
                    }
                    NodeWord::Assign(assign) => {
                        assert!(
                            node.working.len() <= CAPACITY as usize,
                            "seed {}: more than its room",
                            self.seed
                        );
                        if node.working.len() < CAPACITY as usize {
                            node.unacked.remove(&assign.episode);
                            node.working.insert(assign.episode, (assign.attempt, ends, assign));
                        }
                    }
                    NodeWord::Gone(episode, lease) => {
                        node.unacked.retain(|id, (held, ..)| *id != episode || *held > lease);
                        node.working.retain(|id, (held, ..)| *id != episode || *held > lease);
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

    fn say_what_it_serves(&mut self, name: &NodeName) {
        let node = &self.nodes[name];
        let input = Input::Activated { from: name.clone(), serving: node.serving };
        self.send(Packet::OfLife(name.clone(), node.incarnation, Box::new(input)));
    }

    fn kill(&mut self, name: &NodeName) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.up = false;
            node.working.clear();
            node.unacked.clear();
        }
        self.down(name);
    }

    fn run_node(&mut self, name: &NodeName) {
        let crash = self.rng.random_bool(self.faults.crash / 10.0);
        let node = self.nodes.get_mut(name).expect("its own");
        if !node.up {
            if self.rng.random_bool(0.05) {
                node.up = true;
                node.incarnation += 1;
                node.serving = serving(0);
                self.join(name);
            }
            return;
        }
        if crash {
            return self.kill(name);
        }
        // An engine takes the newest adapter a while after it was made.
        if node.serving.version.0 < self.learner.version && self.rng.random_bool(0.2) {
            node.serving = serving(self.learner.version);
            self.say_what_it_serves(name);
        } else if self.rng.random_bool(0.01) {
            // What was lost is said again with the next heartbeat.
            self.say_what_it_serves(name);
        }
        let (now, node) = (self.now, self.nodes.get_mut(name).expect("its own"));
        let done: Vec<EpisodeId> =
            node.working.iter().filter(|(_, (_, at, _))| *at <= now).map(|(id, _)| *id).collect();
        for episode in done {
            let reward = f64::from(self.rng.random_range(0..4)) / 4.0;
            let node = self.nodes.get_mut(name).expect("its own");
            let Some((attempt, _, _)) = node.working.remove(&episode) else { continue };
            let outcome = Outcome {
                reward,
                success: reward > 0.7,
                oldest: Some(node.serving.version),
                generated: 5,
            };
            let result = EpisodeResult {
                held: Held { episode, attempt },
                outcome,
                adapters: vec![node.serving],
                refused: None,
            };
            node.unacked.insert(episode, (attempt, result, Duration::ZERO));
        }
        let again: Vec<EpisodeResult> = self
            .nodes
            .get_mut(name)
            .expect("its own")
            .unacked
            .values_mut()
            .filter(|(_, _, sent)| {
                *sent == Duration::ZERO || now >= *sent + Duration::from_millis(500)
            })
            .map(|(_, result, sent)| {
                *sent = now;
                result.clone()
            })
            .collect();
        for result in again {
            self.tell(Input::Finished { from: name.clone(), result });
        }
    }

    fn run_learner(&mut self) {
        let crash = self.rng.random_bool(self.faults.crash / 10.0);
        if !self.learner.up {
            self.learner.up = self.rng.random_bool(0.05);
            self.learner.asked = Duration::ZERO;
            return;
        }
        if crash {
            self.learner.up = false;
            self.learner.training = None;
            // The newest checkpoint does not always load.
            if self.learner.step > 0 && self.rng.random_bool(0.2) {
                self.learner.history.remove(&self.learner.step);
                self.learner.step -= 1;
                self.learner.version += 1;
                self.tell(Input::Published { serving: serving(self.learner.version) });
            }
            return self.down(&"learner".into());
        }
        let now = self.now;
        if self.learner.training.as_ref().is_some_and(|(_, _, at)| *at <= now) {
            let (step, episodes, _) = self.learner.training.take().expect("just seen");
            let before: BTreeSet<EpisodeId> =
                self.learner.history.values().flatten().copied().collect();
            for id in &episodes {
                assert!(!before.contains(id), "seed {}: {id} is trained on twice", self.seed);
            }
            self.learner.history.insert(step, episodes.clone());
            self.learner.step = step;
            self.learner.version += 1;
            let version = AdapterVersion(self.learner.version);
            self.tell(Input::Published { serving: serving(version.0) });
            let consumed = episodes;
            self.tell(Input::Committed {
                step: Step(step),
                version,
                consumed,
                metrics: Vec::new(),
            });
            self.learner.asked = Duration::ZERO;
        }
        if self.learner.training.is_none() && now >= self.learner.asked + Duration::from_millis(400)
        {
            self.learner.asked = now;
            let version = AdapterVersion(self.learner.version);
            self.tell(Input::Published { serving: serving(version.0) });
            let request = BatchRequest { step: Step(self.learner.step + 1), version };
            self.tell(Input::BatchWanted { from: "learner".into(), request });
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
            checkpoints: checkpoints.into_iter().collect(),
            adapters: Vec::new(),
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

    /// The audit of what is on disk right now.
    pub(crate) fn audit(&self) {
        let verdict = audit(&self.facts());
        assert!(verdict.ok, "seed {}: {:#?}", self.seed, verdict.findings);
    }

    /// What the ledger says was trained on is what the learner's surviving steps were made of.
    pub(crate) fn agrees_with_learner(&self) {
        for entry in self.disk.episodes.values() {
            if let State::Trained(step, _) = entry.state {
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
                assert!(behind <= Some(2), "seed {}: {id} is {behind:?} behind", self.seed);
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
