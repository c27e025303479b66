//! What a seed sets up: who is there, what the plan is, and what may go wrong.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crrl_config::{AdapterDtype, ClusterConfig, Node, Role};
use crrl_control::plan::{Evaluate, Limits, Phase, Plan, StalePolicy, Train};
use crrl_sim::Rng;
use crrl_types::{Late, Sampling, Staleness, Stragglers};
use rand::seq::SliceRandom;
use rand::{Rng as _, SeedableRng};

use crate::faults::Kind;
use crate::rollout::Manners;

/// Tasks of the plan.
pub(crate) const TASKS: usize = 6;
/// Attempts at a task in an evaluation.
pub(crate) const SAMPLES: u32 = 2;

/// Everything that follows from a seed before the first step.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) config: ClusterConfig,
    pub(crate) plan: Plan,
    pub(crate) manners: Manners,
    /// Kinds of faults that happen.
    pub(crate) kinds: Vec<Kind>,
    /// Time between two faults, on average.
    pub(crate) fault_every: Duration,
    /// How long things go wrong.
    pub(crate) storm: Duration,
    /// Shortest and longest time a packet takes.
    pub(crate) latency: (Duration, Duration),
    pub(crate) mtu: usize,
    /// Longest time a commit takes.
    pub(crate) commit_max: Duration,
    /// Numbers of an adapter.
    pub(crate) floats: usize,
}

/// Where a node is.
pub(crate) fn ip(index: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, index as u8 + 1).into()
}

/// Where a node listens, if it does.
pub(crate) fn address(index: usize) -> SocketAddr {
    SocketAddr::new(ip(index), 7000)
}

impl Setting {
    /// Whether slow attempts are handed to a second node.
    pub(crate) fn duplicates(&self) -> bool {
        let duplicates = |phase: &Phase| matches!(phase, Phase::Train(train) if train.stragglers.duplicate_after > 0.0);
        self.plan.phases.iter().any(duplicates)
    }

    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let poison = rng.random_bool(0.15);
        let mut kinds = Kind::ALL.to_vec();
        kinds.retain(|kind| !(poison && kind.kills_at_random()));
        // A few kinds at a time: with all of them at once, one hides what another would show.
        kinds.shuffle(&mut rng);
        kinds.truncate(rng.random_range(1..=5));
        let costs_leases = |kind: &Kind| kind.kills_at_random() || *kind == Kind::Panic;
        let is_mild = !poison && !kinds.iter().any(costs_leases);
        let mut setting = Self {
            config: config(&mut rng, seed),
            plan: plan(&mut rng, seed, poison),
            manners: Manners {
                takes_max: Duration::from_millis(rng.random_range(100..2500)),
                failing: if rng.random_bool(0.5) { 0.03 } else { 0.0 },
                broken: if rng.random_bool(0.5) { 0.02 } else { 0.0 },
                long: if rng.random_bool(0.2) { 0.02 } else { 0.0 },
                poison: poison.then(|| "task-2".to_owned()),
            },
            kinds,
            fault_every: Duration::from_millis(rng.random_range(400..4000)),
            storm: Duration::from_secs(rng.random_range(10..45)),
            latency: (
                Duration::from_micros(rng.random_range(50..2000)),
                Duration::from_micros(rng.random_range(2000..30_000)),
            ),
            mtu: *[1252, 1472, 1472, 8972].choose(&mut rng),
            commit_max: Duration::from_millis(*[5, 20, 400].choose(&mut rng)),
            floats: rng.random_range(100..12_000),
        };
        // What is shipped is to do where faults cost no leases.
        if is_mild {
            let lease_ms = setting.plan.limits.lease_ms;
            setting.plan.limits = Limits { lease_ms, ..Limits::default() };
        }
        setting
    }
}

trait Choose<T> {
    fn choose(&self, rng: &mut Rng) -> &T;
}

impl<T, const N: usize> Choose<T> for [T; N] {
    fn choose(&self, rng: &mut Rng) -> &T {
        &self[rng.random_range(0..N)]
    }
}

fn config(rng: &mut Rng, seed: u64) -> ClusterConfig {
    let node = |name: String, roles: &[Role]| Node {
        name,
        roles: roles.to_vec(),
        threads: 1,
        ..Node::default()
    };
    let mut nodes = Vec::new();
    if rng.random_bool(0.5) {
        nodes.push(node("coordinator".into(), &[Role::Coordinator, Role::ParameterServer]));
    } else {
        nodes.push(node("coordinator".into(), &[Role::Coordinator]));
        nodes.push(node("server".into(), &[Role::ParameterServer]));
    }
    nodes.push(node("learner".into(), &[Role::Learner]));
    for index in 0..rng.random_range(2..=3) {
        nodes.push(node(format!("rollout-{index}"), &[Role::Rollout]));
    }
    let mut config = ClusterConfig { node: nodes, ..ClusterConfig::default() };
    config.run.seed = seed;
    config.cluster.listen = address(0).to_string();
    // Nobody waits for room: the clock stands still meanwhile.
    config.cluster.disk_wait_s = 0.0;
    config.cluster.relay = "off".into();
    // Not drawn: seeds that once found something are to draw what they drew then.
    if seed.is_multiple_of(3) {
        config.learner.adapter_dtype = AdapterDtype::Bf16;
    }
    config
}

fn plan(rng: &mut Rng, seed: u64, poison: bool) -> Plan {
    let tasks = || "tasks.jsonl".into();
    let evaluate = |label: &str| {
        Phase::Evaluate(Evaluate {
            label: label.into(),
            tasks: tasks(),
            tasks_max: 0,
            samples: SAMPLES,
            sampling: Sampling::default(),
        })
    };
    let train = Phase::Train(Train {
        tasks: tasks(),
        steps: rng.random_range(3..=8),
        group_size: rng.random_range(2..=4),
        groups_per_step: rng.random_range(1..=3),
        sampling: Sampling::default(),
        staleness_max: rng.random_range(0..=2),
        stale: if rng.random() { StalePolicy::TrainRest } else { StalePolicy::Refill },
        sync: rng.random_bool(0.3),
        skip_equal_groups: rng.random_bool(0.7),
        // Not drawn, as above.
        staleness: match seed % 8 {
            3 => Staleness::Strict,
            6 => Staleness::Corrected,
            _ => Staleness::Bounded,
        },
        stragglers: Stragglers {
            group_min: if rng.random_bool(0.3) { 2 } else { 0 },
            late: if rng.random() { Late::Drop } else { Late::Carry },
            duplicate_after: if rng.random_bool(0.3) { 2.0 } else { 0.0 },
        },
    });
    let mut phases = vec![train, evaluate("after")];
    if rng.random_bool(0.5) {
        phases.insert(0, evaluate("before"));
    }
    let mut plan = Plan::new(seed, phases);
    plan.limits.lease_ms = rng.random_range(4_000..12_000);
    plan.limits.attempts_max = 100;
    plan.limits.failed_groups_max = 1_000;
    // Where nodes die by chance, no task is to blame.
    plan.limits.kills_max = if poison { 3 } else { 10_000 };
    plan
}
