//! The checks that involve more than one key, or a key's range. Each message says which key, what
//! it holds and what it may hold.
//!
//! [`validate`] is asked of every configuration that is read, [`unsayable`] only of what a person says: runs
//! that an earlier build began go on with what that build let them say.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use crrl_types::Staleness;

use crate::sections::{ClusterConfig, Node, Role};

/// Ten years.
const CERTIFICATE_HOURS_MAX: u32 = 24 * 3650;
/// Longest wait for room on a full disk: a day.
const DISK_WAIT_MAX_S: f64 = 86_400.0;
/// Most nodes a task may be the end of before it is handed out no more.
const QUARANTINE_AFTER_MAX: u32 = 100;
/// Least memory a node is given: program, runtime and the smallest model.
const MEMORY_MIN_MIB: u64 = 64;
/// Copies of the ledger that may be kept: each is as large as the ledger.
const LEDGER_COPIES_MAX: u32 = 64;
/// Longest name of a node; a certificate's subject name allows 64.
const NAME_CHARS_MAX: usize = 48;
/// Longest time anything is told to take: a year. Clocks can be read that far ahead.
const TIME_MAX_S: f64 = 365.0 * 86_400.0;
/// Shortest time: what is less is rounded to none.
const TIME_MIN_S: f64 = 0.001;
/// Longest silence and wait in milliseconds: a day.
const WAIT_MAX_MS: u64 = 86_400_000;
/// Most memory and disk: a pebibyte, which still fits a number of bytes.
const SIZE_MAX_MIB: u64 = 1 << 30;
/// Most output of a command: a sandbox's answer holds no more.
const OUTPUT_MAX_KIB: u64 = 64 << 10;
/// Most processes: the most that Linux can number.
const PROCESSES_MAX: u64 = 1 << 22;
/// Most threads of one node.
const THREADS_MAX: usize = 4_096;
/// Most prompts an engine keeps.
const PREFIXES_MAX: u64 = 1 << 20;
/// Most passes over a batch, and pieces of a pass.
const UPDATES_MAX: u64 = 10_000;
/// Most versions an episode may lag.
const STALENESS_MAX: u64 = 1_000_000;
/// Tokens of the shortest transcript: no prompt fits under it.
const TOKENS_MIN: u64 = 64;
/// Characters of output under which tools would answer nothing.
const OUTPUT_CHARS_MIN: u64 = 16;

/// Every problem of a configuration; empty if it can be run.
#[must_use]
pub fn validate(config: &ClusterConfig) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |ok: bool, message: String| {
        if !ok {
            problems.push(message);
        }
    };

    let copies = config.run.ledger_copies;
    check(
        copies <= LEDGER_COPIES_MAX,
        format!(
            "run.ledger_copies is {copies}: at most {LEDGER_COPIES_MAX} are kept, each as large as the \
             ledger"
        ),
    );

    let rollout = &config.rollout;
    check(
        rollout.group_size >= 2,
        format!(
            "rollout.group_size is {}: a group needs at least 2 attempts to be compared",
            rollout.group_size
        ),
    );
    check(
        rollout.groups_per_step >= 1,
        "rollout.groups_per_step is 0: a step needs a group".into(),
    );
    check(rollout.concurrency >= 1, "rollout.concurrency is 0: nothing would ever run".into());
    check(
        rollout.temperature > 0.0 && rollout.temperature.is_finite(),
        format!(
            "rollout.temperature is {}: training needs a temperature above 0",
            rollout.temperature
        ),
    );
    check(
        rollout.top_p > 0.0 && rollout.top_p <= 1.0,
        format!("rollout.top_p is {}: it lies above 0 and at most at 1", rollout.top_p),
    );
    check(
        rollout.lease_s >= config.agent.time_max_s,
        format!(
            "rollout.lease_s ({}) is shorter than agent.time_max_s ({}): every long episode would be \
         taken away before it ends",
            rollout.lease_s, config.agent.time_max_s
        ),
    );

    check(
        rollout.staleness != Staleness::Corrected || config.learner.importance_cap > 0.0,
        "rollout.staleness is \"corrected\" and learner.importance_cap is 0: nothing would correct \
         old tokens"
            .into(),
    );
    check(
        rollout.group_min == 0 || (2..=rollout.group_size).contains(&rollout.group_min),
        format!(
            "rollout.group_min is {}: it is 0, or from 2 to rollout.group_size ({})",
            rollout.group_min, rollout.group_size
        ),
    );
    check(
        rollout.duplicate_after == 0.0
            || rollout.duplicate_after >= 1.0 && rollout.duplicate_after.is_finite(),
        format!("rollout.duplicate_after is {}: it is 0, or 1 or more", rollout.duplicate_after),
    );
    check(
        (1..=QUARANTINE_AFTER_MAX).contains(&rollout.quarantine_after),
        format!(
            "rollout.quarantine_after is {}: it lies from 1 to {QUARANTINE_AFTER_MAX} nodes",
            rollout.quarantine_after
        ),
    );

    let agent = &config.agent;
    check(
        matches!(agent.prompt.as_str(), "full" | "brief"),
        format!("agent.prompt is {:?}: it is \"full\" or \"brief\"", agent.prompt),
    );
    check(agent.calls_max >= 1, "agent.calls_max is 0: the agent could do nothing".into());
    check(
        agent.turn_tokens_max <= agent.tokens_max,
        format!(
            "agent.turn_tokens_max ({}) exceeds agent.tokens_max ({})",
            agent.turn_tokens_max, agent.tokens_max
        ),
    );

    if let Err(error) = config.reward.validate() {
        check(false, format!("[reward]: {error}"));
    }
    check(
        matches!(config.engine.on_swap.as_str(), "keep" | "recompute"),
        format!("engine.on_swap is {:?}: it is \"keep\" or \"recompute\"", config.engine.on_swap),
    );

    let learner = &config.learner;
    check(
        learner.learning_rate > 0.0 && learner.learning_rate.is_finite(),
        format!("learner.learning_rate is {}: it is above 0", learner.learning_rate),
    );
    for (key, value) in [("beta1", learner.beta1), ("beta2", learner.beta2)] {
        check((0.0..1.0).contains(&value), format!("learner.{key} is {value}: it lies in [0, 1)"));
    }
    check(
        learner.clip_low >= 0.0 && learner.clip_low < 1.0,
        format!("learner.clip_low is {}: it lies in [0, 1)", learner.clip_low),
    );
    check(learner.checkpoints_kept >= 1, "learner.checkpoints_kept is 0".into());
    check(
        learner.micro_batch_tokens >= agent.tokens_max,
        format!(
            "learner.micro_batch_tokens ({}) is less than agent.tokens_max ({}): the longest episode \
         would not fit",
            learner.micro_batch_tokens, agent.tokens_max
        ),
    );

    check(config.lora.rank >= 1, "lora.rank is 0".into());
    check(
        !config.lora.targets.is_empty(),
        "lora.targets is empty: nothing would be trained".into(),
    );
    for target in &config.lora.targets {
        let known = ["q", "k", "v", "o", "gate", "up", "down"];
        check(
            known.contains(&target.as_str()),
            format!("lora.targets names {target:?}: it may hold {}", known.join(", ")),
        );
    }
    let distinct: BTreeSet<&String> = config.lora.targets.iter().collect();
    check(
        distinct.len() == config.lora.targets.len(),
        format!("lora.targets is {:?}: each may stand in it once", config.lora.targets),
    );
    let scale = config.lora.alpha.abs();
    check(
        (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&scale),
        format!(
            "lora.alpha is {}: it is a number of single precision, and not 0",
            config.lora.alpha
        ),
    );

    check(
        matches!(config.model.device.as_str(), "cpu" | "cuda"),
        format!("model.device is {:?}: it is \"cpu\" or \"cuda\"", config.model.device),
    );
    let cluster = &config.cluster;
    check(
        cluster.listen.parse::<std::net::SocketAddr>().is_ok(),
        format!(
            "cluster.listen is {:?}: it is an address and a port, such as 127.0.0.1:0",
            cluster.listen
        ),
    );
    check(
        matches!(cluster.relay.as_str(), "auto" | "off")
            || cluster.relay.parse::<std::net::SocketAddr>().is_ok(),
        format!(
            "cluster.relay is {:?}: it is \"auto\", \"off\", or an address and a port, such as \
             10.0.0.7:7420",
            cluster.relay
        ),
    );
    check(cluster.bulk_mib_per_s >= 1, "cluster.bulk_mib_per_s is 0: nothing would arrive".into());
    check(
        cluster.keep_alive_ms.saturating_mul(2) <= cluster.idle_timeout_ms,
        format!(
            "cluster.idle_timeout_ms ({}) must be at least twice cluster.keep_alive_ms ({})",
            cluster.idle_timeout_ms, cluster.keep_alive_ms
        ),
    );
    check(
        cluster.backoff_min_ms <= cluster.backoff_max_ms,
        format!(
            "cluster.backoff_min_ms ({}) exceeds cluster.backoff_max_ms ({})",
            cluster.backoff_min_ms, cluster.backoff_max_ms
        ),
    );

    let telemetry = &config.telemetry;
    let last = config.nodes().len().saturating_sub(1);
    check(
        telemetry.prometheus.is_empty() || telemetry.prometheus_of(last).is_some(),
        format!(
            "telemetry.prometheus is {:?}: it is empty, or an address and a port such as \
             127.0.0.1:9400, with a port above it for each further node",
            telemetry.prometheus
        ),
    );
    check(
        telemetry.otlp.is_empty() || telemetry.otlp.starts_with("http://"),
        format!(
            "telemetry.otlp is {:?}: it is empty, or a collector's address such as \
             http://localhost:4318; TLS is not spoken here",
            telemetry.otlp
        ),
    );
    check(
        (1..=CERTIFICATE_HOURS_MAX).contains(&cluster.certificate_hours),
        format!(
            "cluster.certificate_hours is {}: it lies from 1 to {CERTIFICATE_HOURS_MAX}",
            cluster.certificate_hours
        ),
    );
    check(
        cluster.address.is_empty() || cluster.address.parse::<crrl_types::Host>().is_ok(),
        format!(
            "cluster.address is {:?}: it is an IP address or a host name, such as 10.0.0.5 or \
             trainer.lan",
            cluster.address
        ),
    );
    check(
        (0.0..=DISK_WAIT_MAX_S).contains(&cluster.disk_wait_s),
        format!("cluster.disk_wait_s ({}) is not from 0 to {DISK_WAIT_MAX_S}", cluster.disk_wait_s),
    );

    for (key, value, _) in real_numbers(config) {
        check(!value.is_nan(), format!("{key} is no number"));
    }
    problems.extend(nodes(config));
    problems
}

/// What a person may not say, though folders of runs that an earlier build began may: they, and nodes of such
/// a build, are still understood. Empty if it says nothing of the kind.
#[must_use]
pub fn unsayable(config: &ClusterConfig) -> Vec<String> {
    let mut problems = Vec::new();
    if config.tasks.held_out_samples == 0 {
        problems.push(
            "tasks.held_out_samples is 0: it is at least 1; to evaluate nothing, leave tasks.held_out \
             out"
                .to_owned(),
        );
    }
    problems.extend(outside(&whole_numbers(config), &u64::MAX));
    problems.extend(outside(&real_numbers(config), &f64::MAX));
    problems
}

/// Says in the words of this build what the folder of a run says that an earlier build began: there
/// `tasks.held_out_samples` was 0 for 1.
pub fn renew(config: &mut ClusterConfig) {
    config.tasks.held_out_samples = config.tasks.held_out_samples.max(1);
}

/// A key, what it holds, and the range in which something can be done with that, whatever the others hold.
type Ranged<T> = (&'static str, T, RangeInclusive<T>);

/// Those that hold something outside their range; one that ends in `any` has no upper end.
fn outside<T: PartialOrd + Display>(ranges: &[Ranged<T>], any: &T) -> Vec<String> {
    let wrong = ranges.iter().filter(|(_, value, range)| !range.contains(value));
    wrong
        .map(|(key, value, range)| match (range.start(), range.end()) {
            (low, high) if high == any => format!("{key} is {value}: it is at least {low}"),
            (low, high) => format!("{key} is {value}: it lies from {low} to {high}"),
        })
        .collect()
}

/// Whole numbers and their ranges.
fn whole_numbers(config: &ClusterConfig) -> Vec<Ranged<u64>> {
    let ClusterConfig { run, agent, sandbox, rollout, engine, learner, cluster, .. } = config;
    let (any, sizes, waits) = (u64::MAX, 1..=SIZE_MAX_MIB, 1..=WAIT_MAX_MS);
    vec![
        ("run.steps", run.steps, 1..=any),
        ("agent.tokens_max", agent.tokens_max.into(), TOKENS_MIN..=any),
        ("agent.turn_tokens_max", agent.turn_tokens_max.into(), 1..=any),
        ("agent.output_chars_max", agent.output_chars_max as u64, OUTPUT_CHARS_MIN..=any),
        ("sandbox.cpu_time_max_s", sandbox.cpu_time_max_s, 1..=TIME_MAX_S as u64),
        ("sandbox.memory_mib", sandbox.memory_mib, sizes.clone()),
        ("sandbox.processes_max", sandbox.processes_max, 1..=PROCESSES_MAX),
        ("sandbox.file_mib", sandbox.file_mib, sizes.clone()),
        // A file system of size 0 has no bound at all.
        ("sandbox.disk_mib", sandbox.disk_mib, sizes.clone()),
        ("sandbox.output_kib", sandbox.output_kib as u64, 1..=OUTPUT_MAX_KIB),
        ("rollout.staleness_max", rollout.staleness_max, 0..=STALENESS_MAX),
        ("engine.prefill_tokens_max", engine.prefill_tokens_max as u64, 1..=any),
        ("engine.prefixes_max", engine.prefixes_max as u64, 0..=PREFIXES_MAX),
        ("engine.kv_mib_max", engine.kv_mib_max, sizes),
        ("learner.epochs", learner.epochs.into(), 1..=UPDATES_MAX),
        ("learner.minibatches", learner.minibatches.into(), 1..=UPDATES_MAX),
        ("cluster.keep_alive_ms", cluster.keep_alive_ms, waits.clone()),
        ("cluster.idle_timeout_ms", cluster.idle_timeout_ms, waits.clone()),
        ("cluster.heartbeat_timeout_ms", cluster.heartbeat_timeout_ms, waits),
        ("cluster.backoff_max_ms", cluster.backoff_max_ms, 0..=WAIT_MAX_MS),
    ]
}

/// Numbers with a fraction and their ranges; what is not finite lies in none.
fn real_numbers(config: &ClusterConfig) -> Vec<Ranged<f64>> {
    let ClusterConfig { agent, sandbox, rollout, learner, cluster, .. } = config;
    let (any, times) = (f64::MAX, TIME_MIN_S..=TIME_MAX_S);
    vec![
        ("agent.time_max_s", agent.time_max_s, times.clone()),
        ("sandbox.command_time_max_s", sandbox.command_time_max_s, times.clone()),
        ("rollout.lease_s", rollout.lease_s, times),
        ("learner.weight_decay", learner.weight_decay, 0.0..=any),
        ("learner.grad_norm_max", learner.grad_norm_max, 0.0..=any),
        ("learner.clip_high", learner.clip_high, 0.0..=any),
        ("learner.kl_beta", learner.kl_beta, 0.0..=any),
        ("learner.importance_cap", learner.importance_cap, 0.0..=any),
        ("cluster.restart_window_s", cluster.restart_window_s, 0.0..=TIME_MAX_S),
    ]
}

/// Whether a node may have this name: files and certificates are named after it.
#[must_use]
pub fn is_node_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.chars().all(plain)
}

fn nodes(config: &ClusterConfig) -> Vec<String> {
    let mut problems = Vec::new();
    let nodes = config.nodes();
    let mut names = BTreeSet::new();
    for node in &nodes {
        if !is_node_name(&node.name) {
            problems.push(format!(
                "node name {:?}: letters, digits and '-', at most {NAME_CHARS_MAX}",
                node.name
            ));
        }
        if !names.insert(&node.name) {
            problems.push(format!("two nodes are named {:?}", node.name));
        }
        let dialled = |role: &Role| matches!(role, Role::Coordinator | Role::ParameterServer);
        if node.external && node.roles.iter().any(dialled) {
            problems.push(format!(
                "node {:?} is external: coordinator and parameter server are started with the run",
                node.name
            ));
        }
        let ssh = [("dir", &node.dir), ("model", &node.model), ("binary", &node.binary)];
        match &node.host {
            Some(_) if node.external => problems.push(format!(
                "node {:?} has a host and is external: either it is started over ssh, or somebody \
                 else starts it",
                node.name
            )),
            Some(_) if node.roles.iter().any(dialled) => problems.push(format!(
                "node {:?} has a host: coordinator and parameter server run where the run's folder \
                 is",
                node.name
            )),
            // ssh would take it for an option.
            Some(host) if host.is_empty() || host.starts_with('-') => problems.push(format!(
                "node {:?} has the host {host:?}: write user@machine, or a name of ssh's \
                 configuration",
                node.name
            )),
            None if ssh.iter().any(|(_, path)| path.is_some()) => {
                let set = ssh.iter().filter(|(_, path)| path.is_some()).map(|(key, _)| *key);
                problems.push(format!(
                    "node {:?} has {} and no host: that is for nodes started over ssh",
                    node.name,
                    set.collect::<Vec<_>>().join(" and ")
                ));
            }
            _ => {}
        }
        if node.roles.is_empty() {
            problems.push(format!("node {:?} has no role", node.name));
        }
        problems.extend(resources(config, node));
    }
    for (role, text) in [
        (Role::Coordinator, "coordinator"),
        (Role::ParameterServer, "parameter-server"),
        (Role::Learner, "learner"),
    ] {
        let count = nodes.iter().filter(|node| node.roles.contains(&role)).count();
        if count != 1 {
            problems.push(format!("{count} nodes have the role {text}: a cluster has exactly one"));
        }
    }
    if !nodes.iter().any(|node| node.roles.contains(&Role::Rollout)) {
        problems.push("no node has the role rollout: nothing would generate".into());
    }
    problems
}

/// What a node takes of its machine.
fn resources(config: &ClusterConfig, node: &Node) -> Vec<String> {
    let Node { name, threads, device, gpu, memory_mib, relay, .. } = node;
    let mut problems = Vec::new();
    let mut check = |is_good: bool, problem: String| {
        if !is_good {
            problems.push(problem);
        }
    };
    check(
        device.as_deref().is_none_or(|device| matches!(device, "cpu" | "cuda")),
        format!("node {name:?} has device = {device:?}: it is \"cpu\" or \"cuda\""),
    );
    check(
        gpu.is_none() || config.device_of(node) == "cuda",
        format!("node {name:?} has a gpu and computes on the CPU: say device = \"cuda\""),
    );
    check(
        *threads <= THREADS_MAX,
        format!(
            "node {name:?} has threads = {threads}: it is at most {THREADS_MAX}; 0 takes one for each core"
        ),
    );
    check(
        *memory_mib == 0 || *memory_mib >= MEMORY_MIN_MIB,
        format!(
            "node {name:?} has memory_mib = {memory_mib}: no node starts in less than \
             {MEMORY_MIN_MIB}; 0 sets no bound"
        ),
    );
    check(
        *memory_mib <= SIZE_MAX_MIB,
        format!("node {name:?} has memory_mib = {memory_mib}: it is at most {SIZE_MAX_MIB}"),
    );
    check(
        !node.external || (gpu.is_none() && *memory_mib == 0),
        format!("node {name:?} is external: whoever starts it says which gpu and how much memory"),
    );
    if let Some(relay) = relay {
        check(
            relay == "off" || relay.parse::<std::net::SocketAddr>().is_ok(),
            format!(
                "node {name:?} has relay = {relay:?}: it is \"off\", or an address and a port, such \
                 as 10.0.0.7:7420"
            ),
        );
        check(
            node.roles == [Role::Rollout],
            format!("node {name:?} has a relay: only rollout nodes pass adapters on"),
        );
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_of_its_machine_what_makes_sense() {
        let good = || {
            let mut config =
                ClusterConfig { node: ClusterConfig::default_nodes(), ..Default::default() };
            config.learner.micro_batch_tokens = config.agent.tokens_max;
            config
        };
        type Change = fn(&mut Node);
        let cases: [(Change, Option<&str>); 9] = [
            (|node| node.device = Some("cuda".into()), None),
            (|node| (node.device, node.gpu) = (Some("cuda".into()), Some(1)), None),
            (|node| node.memory_mib = 4096, None),
            (|node| node.relay = Some("10.0.0.7:7420".into()), None),
            (|node| node.device = Some("tpu".into()), Some("\"cpu\" or \"cuda\"")),
            (|node| node.gpu = Some(0), Some("say device = \"cuda\"")),
            (|node| node.memory_mib = 3, Some("no node starts in less")),
            (|node| node.relay = Some("here".into()), Some("an address and a port")),
            (|node| (node.external, node.memory_mib) = (true, 4096), Some("whoever starts it")),
        ];
        for (change, why) in cases {
            let mut config = good();
            change(&mut config.node[3]);
            let problems = validate(&config);
            match why {
                None => assert_eq!(problems, Vec::<String>::new()),
                Some(why) => {
                    assert!(problems.iter().any(|p| p.contains(why)), "{why}: {problems:?}");
                }
            }
        }
        let mut config = good();
        config.node[1].relay = Some("10.0.0.7:7420".into());
        assert!(validate(&config).iter().any(|p| p.contains("only rollout nodes pass")));
    }

    #[test]
    fn the_defaults_can_be_run() {
        let mut config = ClusterConfig::default();
        config.learner.micro_batch_tokens = config.agent.tokens_max;
        assert_eq!(validate(&config), Vec::<String>::new());
    }

    #[test]
    fn a_host_is_for_nodes_that_can_be_elsewhere() {
        let mut config =
            ClusterConfig { node: ClusterConfig::default_nodes(), ..Default::default() };
        config.learner.micro_batch_tokens = config.agent.tokens_max;
        config.node[3].host = Some("me@box".into());
        config.node[3].dir = Some("/tmp/x".into());
        assert_eq!(validate(&config), Vec::<String>::new());
        for (at, host, why) in [
            (0, "me@box", "run where the run's folder is"),
            (3, "-oProxyCommand=evil", "user@machine"),
            (3, "", "user@machine"),
        ] {
            let mut wrong = config.clone();
            wrong.node[at].host = Some(host.into());
            let problems = validate(&wrong);
            assert!(problems.iter().any(|problem| problem.contains(why)), "{host}: {problems:?}");
        }
        let mut wrong = config;
        wrong.node[3].host = None;
        assert!(validate(&wrong).iter().any(|p| p.contains("has dir and no host")));
    }

    #[test]
    fn a_task_is_quarantined_after_one_node_at_least_and_some_time() {
        for (after, is_good) in [(0, false), (1, true), (100, true), (101, false)] {
            let mut config = ClusterConfig::default();
            config.learner.micro_batch_tokens = config.agent.tokens_max;
            config.rollout.quarantine_after = after;
            let problems = validate(&config);
            assert_eq!(problems.is_empty(), is_good, "{after}: {problems:?}");
            assert!(is_good || problems[0].contains("rollout.quarantine_after"), "{problems:?}");
        }
    }

    #[test]
    fn numbers_that_would_end_a_node_later_are_refused_by_their_key() {
        type Change = fn(&mut ClusterConfig);
        let cases: [(&str, Change); 28] = [
            ("run.steps", |c| c.run.steps = 0),
            ("agent.tokens_max", |c| (c.agent.tokens_max, c.agent.turn_tokens_max) = (63, 8)),
            ("agent.turn_tokens_max", |c| c.agent.turn_tokens_max = 0),
            ("agent.output_chars_max", |c| c.agent.output_chars_max = 15),
            ("agent.time_max_s", |c| c.agent.time_max_s = 1e-5),
            ("sandbox.command_time_max_s", |c| c.sandbox.command_time_max_s = -1.0),
            ("sandbox.command_time_max_s", |c| c.sandbox.command_time_max_s = f64::NAN),
            ("sandbox.command_time_max_s", |c| c.sandbox.command_time_max_s = f64::INFINITY),
            ("sandbox.cpu_time_max_s", |c| c.sandbox.cpu_time_max_s = 0),
            ("sandbox.memory_mib", |c| c.sandbox.memory_mib = 1 << 44),
            ("sandbox.processes_max", |c| c.sandbox.processes_max = u64::MAX),
            ("sandbox.file_mib", |c| c.sandbox.file_mib = 0),
            ("sandbox.disk_mib", |c| c.sandbox.disk_mib = 0),
            ("sandbox.output_kib", |c| c.sandbox.output_kib = 0),
            ("rollout.lease_s", |c| c.rollout.lease_s = f64::INFINITY),
            ("rollout.staleness_max", |c| c.rollout.staleness_max = u64::MAX),
            ("engine.prefixes_max", |c| c.engine.prefixes_max = usize::MAX),
            ("engine.kv_mib_max", |c| c.engine.kv_mib_max = 0),
            ("learner.weight_decay", |c| c.learner.weight_decay = -0.1),
            ("learner.grad_norm_max", |c| c.learner.grad_norm_max = f64::NAN),
            ("learner.clip_high", |c| c.learner.clip_high = f64::INFINITY),
            ("learner.kl_beta", |c| c.learner.kl_beta = -1.0),
            ("learner.importance_cap", |c| c.learner.importance_cap = f64::INFINITY),
            ("learner.epochs", |c| c.learner.epochs = u32::MAX),
            ("lora.alpha", |c| c.lora.alpha = 0.0),
            ("lora.targets", |c| c.lora.targets = vec!["q".into(), "q".into()]),
            ("cluster.heartbeat_timeout_ms", |c| c.cluster.heartbeat_timeout_ms = 0),
            ("cluster.restart_window_s", |c| c.cluster.restart_window_s = f64::INFINITY),
        ];
        for (key, change) in cases {
            let mut config = ClusterConfig::default();
            change(&mut config);
            let mut problems = validate(&config);
            // Whoever is refused by the first is not asked the second.
            if problems.is_empty() {
                problems = unsayable(&config);
            }
            let [problem] = &problems[..] else { panic!("{key}: {problems:?}") };
            assert!(problem.starts_with(&format!("{key} is ")), "{key}: {problem}");
        }
    }

    #[test]
    fn what_runs_of_an_earlier_build_say_is_refused_of_people_alone() {
        type Change = fn(&mut ClusterConfig);
        let cases: [(&str, Change); 5] = [
            ("tasks.held_out_samples", |c| c.tasks.held_out_samples = 0),
            ("learner.importance_cap", |c| c.learner.importance_cap = -1.0),
            ("sandbox.disk_mib", |c| c.sandbox.disk_mib = 0),
            ("cluster.restart_window_s", |c| c.cluster.restart_window_s = -1.0),
            ("cluster.heartbeat_timeout_ms", |c| {
                c.cluster.heartbeat_timeout_ms = 2 * WAIT_MAX_MS;
            }),
        ];
        assert_eq!(unsayable(&ClusterConfig::default()), Vec::<String>::new());
        for (key, change) in cases {
            let mut config = ClusterConfig::default();
            change(&mut config);
            let problems = unsayable(&config);
            let [problem] = &problems[..] else { panic!("{key}: {problems:?}") };
            assert!(problem.starts_with(&format!("{key} is ")), "{problem}");
            // As it stands in the folder of a run that an earlier build began.
            assert_eq!(validate(&config), Vec::<String>::new(), "{key}");
        }
    }

    #[test]
    fn a_run_of_an_earlier_build_says_what_it_meant_once_it_is_renewed() {
        let (mut config, wanted) = (ClusterConfig::default(), ClusterConfig::default());
        config.tasks.held_out_samples = 0;
        renew(&mut config);
        assert_eq!(config, wanted);
        config.tasks.held_out_samples = 4;
        renew(&mut config);
        assert_eq!(config.tasks.held_out_samples, 4);
    }

    #[test]
    fn the_address_of_this_machine_may_be_a_name() {
        for (address, is_good) in
            [("", true), ("10.0.0.5", true), ("trainer.lan", true), ("10.0.0.300", false)]
        {
            let mut config = ClusterConfig::default();
            config.learner.micro_batch_tokens = config.agent.tokens_max;
            config.cluster.address = address.into();
            let problems = validate(&config);
            assert_eq!(problems.is_empty(), is_good, "{address}: {problems:?}");
            assert!(is_good || problems[0].contains("cluster.address"), "{problems:?}");
        }
    }

    #[test]
    fn two_nodes_of_one_name_are_refused_by_name() {
        let mut config =
            ClusterConfig { node: ClusterConfig::default_nodes(), ..Default::default() };
        config.node[3].name = "rollout-0".into();
        assert!(validate(&config).iter().any(|p| p.contains("two nodes are named \"rollout-0\"")));
    }
}
