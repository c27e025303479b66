//! What a configuration names: model, tasks, folder, port, certificates.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use crrl_cluster::{RunDir, host};
use crrl_config::{ClusterConfig, Node, Role};
use crrl_model::ModelDir;
use crrl_tasks::TaskSet;
use crrl_transport::{Facts, revoked};

use super::Check;
use crate::requirements::{self, Opening, Problem, Prompts};
use crate::run::absolute;

/// Memory the learner takes beyond the weights, in their multiples: gradients, moments, activations.
const LEARNER_WEIGHTS: u64 = 4;

/// The options that name task files, and the checks of what is in them.
const TRAIN: &str = "tasks.train";
const HELD_OUT: &str = "tasks.held_out";
const SPLIT: &str = "held-out side";
const PROMPT: &str = "opening prompt";

/// `is_own` says that somebody wrote the configuration: the quickstart makes its own tasks.
/// `free_memory` is in bytes; none where the system does not say.
pub(super) fn checks(config: &ClusterConfig, is_own: bool, free_memory: Option<u64>) -> Vec<Check> {
    let run = RunDir::new(absolute(&config.run.dir));
    let (mut checks, model) = model(config, free_memory);
    if is_own {
        checks.extend(work(config, model.as_ref()));
    }
    checks.push(port(config, &run));
    checks.extend(certificates(&run));
    checks
}

/// The model, and the memory it takes.
fn model(config: &ClusterConfig, free_memory: Option<u64>) -> (Vec<Check>, Option<ModelDir>) {
    const NAME: &str = "model";
    let path = &config.model.path;
    match requirements::model(path) {
        Err(problem) => (vec![bad(NAME, problem)], None),
        Ok(model) => {
            let bytes = weights_bytes(path);
            let mib = bytes >> 20;
            let checks = vec![
                Check::good(NAME, format!("{}, {mib} MiB of weights", path.display())),
                memory(config, &local(config), bytes, free_memory),
            ];
            (checks, Some(model))
        }
    }
}

fn bad(name: &str, Problem { found, fix }: Problem) -> Check {
    Check::bad(name, found, fix)
}

fn warning(name: &str, Problem { found, fix }: Problem) -> Check {
    Check::warning(name, found, fix)
}

/// The task files, by themselves, beside each other, and with the model.
fn work(config: &ClusterConfig, model: Option<&ModelDir>) -> Vec<Check> {
    let (mut checks, mut sets) = (Vec::new(), Vec::new());
    let files = [(TRAIN, Some(&config.tasks.train)), (HELD_OUT, config.tasks.held_out.as_ref())];
    for (name, file) in files.into_iter().filter_map(|(name, file)| Some((name, file?))) {
        let set = requirements::tasks(name, file);
        match set.and_then(|set| requirements::patches(file, &set, &|| ()).map(|()| set)) {
            Err(problem) => checks.push(bad(name, problem)),
            Ok(set) => {
                let found = format!("{} tasks in {}", set.tasks.len(), file.display());
                checks.push(Check::good(name, found));
                sets.push((name, file, set));
            }
        }
    }
    let of = |wanted: &str| sets.iter().find(|(name, ..)| *name == wanted);
    let (train, held_out) = (of(TRAIN), of(HELD_OUT));
    if let (Some((_, _, train)), Some((_, _, held_out))) = (train, held_out) {
        checks.extend(requirements::apart(train, held_out).err().map(|found| bad(SPLIT, found)));
    }
    let strays = train.and_then(|(_, file, train)| requirements::strays(file, train));
    checks.extend(strays.map(|found| warning(SPLIT, found)));
    let Some(model) = model else { return checks };
    match Prompts::of(config, model) {
        Err(problem) => checks.push(bad(PROMPT, problem)),
        Ok(prompts) => checks.extend(sets.iter().map(|(_, _, set)| opening(&prompts, set))),
    }
    checks
}

fn opening(prompts: &Prompts, set: &TaskSet) -> Check {
    match prompts.opening(set) {
        Err(problem) => bad(PROMPT, problem),
        Ok(Opening { tight: Some(problem), .. }) => warning(PROMPT, problem),
        Ok(Opening { tokens, tight: None }) => {
            Check::good(PROMPT, format!("{tokens} tokens at most, room for {}", prompts.room()))
        }
    }
}

fn local(config: &ClusterConfig) -> Vec<Node> {
    config.nodes().into_iter().filter(Node::is_local).collect()
}

/// Bytes of its weight files; 0 where it cannot be looked at.
pub(super) fn weights_bytes(path: &Path) -> u64 {
    let files = std::fs::read_dir(path).into_iter().flatten().flatten();
    let weights = files.filter(|file| file.path().extension().is_some_and(|e| e == "safetensors"));
    weights.filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum()
}

/// Whether weights in f32, on every one of these nodes, find room in what is free on their machine.
/// Files are mostly of 2 bytes a weight.
pub(super) fn memory(
    config: &ClusterConfig,
    nodes: &[Node],
    file_bytes: u64,
    free: Option<u64>,
) -> Check {
    const NAME: &str = "memory";
    let f32_bytes = 2 * file_bytes;
    let needed: u64 = nodes
        .iter()
        .filter(|node| config.device_of(node) == "cpu")
        .map(|node| {
            let learns = u64::from(node.roles.contains(&Role::Learner)) * LEARNER_WEIGHTS;
            let samples = u64::from(node.roles.contains(&Role::Rollout));
            (learns + samples) * f32_bytes
        })
        .sum();
    let Some(free) = free else {
        return Check::warning(NAME, "the system does not say", "look at it yourself: free -h");
    };
    let found = format!("{} MiB available, about {} MiB needed", free >> 20, needed >> 20);
    if free > needed {
        return Check::good(NAME, found);
    }
    let fix = "fewer rollout nodes, learner.checkpoint_activations = true, a smaller model";
    Check::warning(NAME, found, fix)
}

fn port(config: &ClusterConfig, run: &RunDir) -> Check {
    const NAME: &str = "port";
    let listen = &config.cluster.listen;
    let Ok(address) = listen.parse::<SocketAddr>() else {
        return Check::bad(
            NAME,
            format!("cluster.listen is {listen:?}"),
            "an address and a port, such as 127.0.0.1:0",
        );
    };
    if let Ok(Some(pid)) = host::host_pid(run) {
        return Check::good(NAME, format!("the run is up (host pid {pid})"));
    }
    match UdpSocket::bind(address) {
        Ok(_) if address.port() == 0 => {
            Check::good(NAME, format!("a free one of {}", address.ip()))
        }
        Ok(_) => Check::good(NAME, format!("{address} is free (UDP)")),
        Err(error) => Check::bad(
            NAME,
            format!("{address}: {error}"),
            "ss -lunp shows who holds it; cluster.listen names another (port 0 takes a free one)",
        ),
    }
}

/// Certificates of a run that was started before.
fn certificates(run: &RunDir) -> Vec<Check> {
    const NAME: &str = "certificates";
    let tls = run.tls();
    let Ok(entries) = std::fs::read_dir(&tls) else { return Vec::new() };
    let list = match revoked(&tls) {
        Ok(list) => list,
        Err(error) => {
            return vec![Check::bad(NAME, error.to_string(), "mend or remove the file")];
        }
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_s = now.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let (mut good, mut problems) = (0, Vec::new());
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_member = path.extension().is_some_and(|e| e == "pem")
            && path.file_stem().is_some_and(|stem| stem != "ca");
        if !is_member {
            continue;
        }
        let facts = std::fs::read(&path).ok().and_then(|pem| Facts::from_pem(&pem).ok());
        match facts {
            None => problems.push(format!("{} cannot be read", path.display())),
            Some(facts) if list.contains_key(&facts.fingerprint.to_string()) => {
                problems.push(format!("that of {} was revoked", facts.identity.name));
            }
            Some(facts) if facts.valid_until_s < now_s => {
                problems.push(format!("that of {} has expired", facts.identity.name));
            }
            Some(_) => good += 1,
        }
    }
    if problems.is_empty() {
        return vec![Check::good(NAME, format!("{good} in {}", tls.display()))];
    }
    let fix = "`crrl cluster up` issues new ones to its own nodes; guests need another invitation";
    vec![Check::warning(NAME, problems.join("; "), fix)]
}
