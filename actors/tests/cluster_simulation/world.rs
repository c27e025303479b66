//! The world of one seed: machines on a network, their disks, and what goes wrong with them. Runs
//! until the plan is carried out; everything that happens follows from the seed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crrl_actors::node::{self, Ground, NodeError};
use crrl_cluster::RunDir;
use crrl_cluster::host::prepare::issue;
use crrl_cluster::operator::OperatorClient;
use crrl_config::{Node as NodeConfig, Role};
use crrl_control::plan::PLAN_FILE;
use crrl_control::results::{RESULTS_FILE, Results};
use crrl_sim::disk::{Crash, Disk};
use crrl_sim::machine::{self, Machine};
use crrl_sim::network::InForce;
use crrl_sim::{Network, Record, Rng, os, rules};
use crrl_store::{Hand, Options};
use crrl_transport::{Authority, NetThread};
use crrl_types::NodeName;
use crrl_types::fault::{Fault as Injected, Injection};
use futures::FutureExt;
use rand::seq::SliceRandom;
use rand::{Rng as _, SeedableRng};
use tokio::task::JoinHandle;

use crate::checks;
use crate::faults::{self, Cast, Fault, Packets};
use crate::rollout::{self, Left};
use crate::setting::{Setting, TASKS, address, ip};
use crate::trainer;
use crate::truth::Truth;

/// Simulated time after the last fault within which the plan must be carried out.
const LIVELY: Duration = Duration::from_secs(300);
/// Time between two audits of the run under way.
const AUDIT_EVERY: Duration = Duration::from_secs(5);
/// Longest a host waits before it starts a node again.
const RESTART_MAX_MS: u64 = 2_000;
/// Tasks a machine may have: what is bounded stays bounded.
const TASKS_MAX: usize = 1_000;
/// Name of the certificate faults of nodes are injected with.
const CHAOS: &str = "chaos";

/// How a node's program ended.
type Outcome = Result<(), String>;

struct Node {
    name: NodeName,
    config: NodeConfig,
    ip: IpAddr,
    disk: Disk,
    machine: Option<Machine>,
    main: Option<JoinHandle<Outcome>>,
    lives: u64,
    paused_until: Option<Duration>,
    start_at: Option<Duration>,
    full_until: Option<Duration>,
}

/// The world.
pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) truth: Truth,
    pub(crate) record: Record,
    rng: Rng,
    folder: PathBuf,
    network: Network,
    nodes: Vec<Node>,
    cast: Cast,
    /// Rules in force, and until when.
    rules: Vec<(InForce, Duration)>,
    _mtu: InForce,
    panic: Arc<AtomicBool>,
    next_fault: Option<Duration>,
    next_audit: Duration,
    tools: u64,
    pub(crate) faults: u64,
    pub(crate) audits: u64,
}

impl World {
    pub(crate) fn new(seed: u64, folder: &Path, record: Record, truth: Truth) -> Self {
        let setting = Setting::new(seed);
        record.note(&format!("{setting:?}"));
        let network = Network::new(seed ^ 1, setting.latency, record.clone());
        let mtu = network.rule(rules::mtu(setting.mtu));
        let nodes = setting.config.node.clone();
        let of = |role| nodes.iter().position(|node| node.roles.contains(&role)).expect("is there");
        let cast = Cast {
            nodes: nodes.len(),
            server: of(Role::ParameterServer),
            learner: of(Role::Learner),
        };
        let mut world = Self {
            rng: Rng::seed_from_u64(seed ^ 2),
            folder: folder.to_owned(),
            nodes: Vec::new(),
            cast,
            rules: Vec::new(),
            _mtu: mtu,
            panic: Arc::default(),
            next_fault: Some(Duration::from_secs(1)),
            next_audit: AUDIT_EVERY,
            tools: 0,
            faults: 0,
            audits: 0,
            network,
            setting,
            truth,
            record,
        };
        world.prepare();
        for (index, config) in nodes.into_iter().enumerate() {
            let (network, ip) = (world.network.clone(), ip(index));
            let folder = world.folder.join(&config.name);
            let disk = Disk::new(folder, seed ^ (3 + index as u64), move || network.unplug(ip));
            let start_at = Some(Duration::from_millis(world.rng.random_range(0..300)));
            world.nodes.push(Node {
                name: config.name.as_str().into(),
                config,
                ip,
                disk,
                machine: None,
                main: None,
                lives: 0,
                paused_until: None,
                start_at,
                full_until: None,
            });
        }
        world
    }

    /// The files a run begins with, a folder for each machine.
    fn prepare(&self) {
        let config = &self.setting.config;
        let shared = RunDir::new(self.folder.join("shared"));
        issue(&shared, config, |_| true).expect("certificates");
        let chaos = [CHAOS.to_owned()];
        let authority = Authority::open_or_create(&shared.tls()).expect("was just made");
        authority.issue(&CHAOS.into(), &chaos).expect("a certificate");
        let text = toml::to_string(config).expect("plain");
        let mut addresses = serde_json::Map::new();
        for (index, node) in config.node.iter().enumerate() {
            if node
                .roles
                .iter()
                .any(|role| matches!(role, Role::Coordinator | Role::ParameterServer))
            {
                addresses.insert(node.name.clone(), address(index).to_string().into());
            }
        }
        let addresses = serde_json::Value::Object(addresses).to_string();
        for name in config.node.iter().map(|node| node.name.as_str()).chain([CHAOS]) {
            let run = RunDir::new(self.folder.join(name));
            std::fs::create_dir_all(run.path()).expect("writable");
            std::os::unix::fs::symlink(shared.tls(), run.tls()).expect("writable");
            std::fs::write(run.config_path(), &text).expect("writable");
            std::fs::write(run.addresses_path(), &addresses).expect("writable");
        }
        let coordinator = self.folder.join(&config.node[0].name);
        std::fs::write(coordinator.join(PLAN_FILE), self.setting.plan.to_json()).expect("writable");
        let task =
            |i| format!(r#"{{"instance_id":"task-{i}","problem_statement":"p","patch":"x"}}"#);
        let tasks: Vec<String> = (0..TASKS).map(task).collect();
        std::fs::write(coordinator.join("tasks.jsonl"), tasks.join("\n")).expect("writable");
    }

    pub(crate) fn coordinator(&self) -> RunDir {
        RunDir::new(self.folder.join(self.nodes[0].name.as_str()))
    }

    pub(crate) fn server(&self) -> RunDir {
        RunDir::new(self.folder.join(self.nodes[self.cast.server].name.as_str()))
    }

    pub(crate) fn learner(&self) -> RunDir {
        RunDir::new(self.folder.join(self.nodes[self.cast.learner].name.as_str()))
    }

    pub(crate) fn packets(&self) -> u64 {
        self.network.sent()
    }

    pub(crate) fn lives(&self) -> u64 {
        self.nodes.iter().map(|node| node.lives).sum()
    }

    /// What the run has found out so far.
    pub(crate) fn results(&self) -> Results {
        let bytes = std::fs::read(self.coordinator().path().join(RESULTS_FILE)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Faults, then none, then the end of the run.
    ///
    /// # Errors
    /// What went wrong that must not.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let storm = self.setting.storm;
        self.go_on(storm)?;
        self.heal();
        if !self.is_over() {
            self.go_on(os::now() + LIVELY)?;
        }
        if !self.is_over() {
            return Err(format!("liveness: not over {} s after the last fault", LIVELY.as_secs()));
        }
        checks::at_the_end(self)
    }

    /// Whether the coordinator has left for good.
    fn is_over(&self) -> bool {
        let node = &self.nodes[0];
        node.machine.is_none() && node.start_at.is_none()
    }

    /// Runs until `until`, or until the run is over.
    fn go_on(&mut self, until: Duration) -> Result<(), String> {
        while os::now() < until && !self.is_over() {
            self.network.deliver();
            self.happen(until)?;
            let violations = self.truth.violations();
            if !violations.is_empty() {
                return Err(violations.join("\n"));
            }
            let due = self.due();
            if due.is_empty() {
                let next = self.next().map_or(until, |next| next.min(until));
                os::advance_to(next);
            }
            for index in due {
                self.step(index)?;
            }
        }
        Ok(())
    }

    /// Machines that have something to do, in any order.
    fn due(&mut self) -> Vec<usize> {
        let awake = |node: &&Node| node.paused_until.is_none();
        let machines: Vec<&Machine> =
            self.nodes.iter().filter(awake).filter_map(|node| node.machine.as_ref()).collect();
        let are_due = machine::are_due(&machines);
        let with_machine =
            |(_, node): &(usize, &Node)| node.paused_until.is_none() && node.machine.is_some();
        let indices = self.nodes.iter().enumerate().filter(with_machine).map(|(index, _)| index);
        let mut due: Vec<usize> =
            indices.zip(are_due).filter_map(|(index, due)| due.then_some(index)).collect();
        due.shuffle(&mut self.rng);
        due
    }

    /// When something happens next, if no machine does anything now.
    fn next(&self) -> Option<Duration> {
        let machines = self
            .nodes
            .iter()
            .filter(|node| node.paused_until.is_none())
            .filter_map(|node| node.machine.as_ref()?.deadline());
        let nodes = self
            .nodes
            .iter()
            .flat_map(|node| [node.paused_until, node.start_at, node.full_until])
            .flatten();
        let rules = self.rules.iter().map(|(_, until)| *until);
        let world = [self.network.next(), self.next_fault, Some(self.next_audit)];
        machines.chain(nodes).chain(rules).chain(world.into_iter().flatten()).min()
    }

    /// Whatever is due in the world itself.
    fn happen(&mut self, until: Duration) -> Result<(), String> {
        let now = os::now();
        self.record.at("world");
        let lifted = self.rules.iter().filter(|(_, until)| *until <= now).count();
        if lifted > 0 {
            self.rules.retain(|(_, until)| *until > now);
            self.record.note(&format!("{lifted} rules are lifted"));
        }
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            if node.full_until.is_some_and(|at| at <= now) {
                node.full_until = None;
                node.disk.set_full(false);
                self.record.note(&format!("{} has room on its disk", node.name));
            }
            if node.paused_until.is_some_and(|at| at <= now) {
                node.paused_until = None;
                self.record.note(&format!("{} goes on", node.name));
            }
            if node.start_at.is_some_and(|at| at <= now) {
                self.start(index)?;
            }
        }
        if self.next_fault.is_some_and(|at| at <= now) {
            let mean = self.setting.fault_every.as_secs_f64();
            let wait = -mean * (1.0 - self.rng.random::<f64>()).ln();
            let next = now + Duration::from_secs_f64(wait);
            self.next_fault = (next < until).then_some(next);
            let fault = faults::draw(&mut self.rng, &self.setting.kinds, self.cast);
            self.begin(fault)?;
        }
        if self.next_audit <= now {
            self.next_audit = now + AUDIT_EVERY;
            self.audits += 1;
            checks::under_way(self)?;
            for node in &self.nodes {
                let tasks = node.machine.as_ref().map_or(0, Machine::tasks);
                if tasks > TASKS_MAX {
                    return Err(format!("I8: {} has {tasks} tasks", node.name));
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, fault: Fault) -> Result<(), String> {
        self.faults += 1;
        self.record.note(&format!("fault: {fault:?}"));
        let now = os::now();
        match fault {
            Fault::Crash(index, crash) => self.crash(index, crash)?,
            Fault::CrashInWrite(index, calls, crash) => {
                self.nodes[index].disk.crash_at(calls, crash);
            }
            Fault::Pause(index, time) => self.nodes[index].paused_until = Some(now + time),
            Fault::Isolate(index, time) => self.rule(rules::isolate(ip(index)), time),
            Fault::OneWay(from, to, time) => self.rule(rules::one_way(ip(from), ip(to)), time),
            Fault::Packets(packets, around, time) => {
                let rule = match packets {
                    Packets::Lost(share) => rules::lose(share),
                    Packets::Late(share, most) => rules::delay(share, most),
                    Packets::Twice(share) => rules::twice(share, Duration::from_millis(50)),
                    Packets::Flipped(share) => rules::flip(share),
                    Packets::Cut(share) => rules::cut(share),
                };
                let rule = match around {
                    Some(index) => rules::around(ip(index), rule),
                    None => rule,
                };
                self.rule(rule, time);
            }
            Fault::Panic => self.panic.store(true, Ordering::Relaxed),
            Fault::FullDisk(index, time) => {
                let node = &mut self.nodes[index];
                node.disk.set_full(true);
                node.full_until = Some(now + time);
            }
            Fault::DamagedCheckpoint => {
                self.crash(self.cast.learner, Crash::Kill)?;
                trainer::damage_newest(&self.learner().checkpoints());
            }
            Fault::DamagedAdapter(index, time) => self.damage_adapters(index, time),
        }
        Ok(())
    }

    fn rule(&mut self, rule: rules::Rule, time: Duration) {
        self.rules.push((self.network.rule(rule), os::now() + time));
    }

    /// A tool on the coordinator's machine injects the fault the product itself knows.
    fn damage_adapters(&mut self, index: usize, time: Duration) {
        self.tools += 1;
        let node = self.nodes[index].name.clone();
        let injection = Injection {
            id: self.tools,
            fault: Injected::CorruptAdapter,
            duration_ms: time.as_millis() as u64,
            seed: self.rng.random(),
        };
        let run = RunDir::new(self.folder.join(CHAOS));
        let (network, ip, record) = (self.network.clone(), self.nodes[0].ip, self.record.clone());
        let Some(machine) = &mut self.nodes[0].machine else { return };
        machine.spawn(async move {
            let net = NetThread::here(network.machine(ip));
            let injected = async {
                let tool = OperatorClient::connect_over(&net, &run, CHAOS).await?;
                let injected = tool.inject(&node, injection).await;
                tool.close().await;
                injected
            };
            let injected = injected.await;
            record.note(&format!("damaged adapters of {node}: {injected:?}"));
        });
    }

    /// Nothing goes wrong any more, and whoever is down starts.
    fn heal(&mut self) {
        self.record.at("world");
        self.record.note("healed");
        let now = os::now();
        self.next_fault = None;
        self.rules.clear();
        self.panic.store(false, Ordering::Relaxed);
        for node in &mut self.nodes {
            node.paused_until = None;
            node.full_until = None;
            node.disk.set_full(false);
            node.disk.no_crash();
            if let Some(at) = &mut node.start_at {
                *at = (*at).min(now + Duration::from_millis(RESTART_MAX_MS));
            }
        }
    }

    fn crash(&mut self, index: usize, crash: Crash) -> Result<(), String> {
        if self.nodes[index].machine.is_some() {
            self.nodes[index].disk.crash(crash);
            self.bury(index)?;
        }
        Ok(())
    }

    /// The machine has stopped: whatever runs on it ends here, and its disk is what it was then.
    fn bury(&mut self, index: usize) -> Result<(), String> {
        let wait = Duration::from_millis(self.rng.random_range(50..RESTART_MAX_MS));
        let node = &mut self.nodes[index];
        self.record.note(&format!("{} has crashed in life {}", node.name, node.lives));
        node.main = None;
        node.paused_until = None;
        if let Some(mut machine) = node.machine.take() {
            machine.kill();
        }
        node.disk.restart().map_err(|error| format!("the simulation's own files: {error}"))?;
        node.start_at = Some(os::now() + wait);
        Ok(())
    }

    fn start(&mut self, index: usize) -> Result<(), String> {
        let seed = self.rng.random();
        let node = &mut self.nodes[index];
        node.start_at = None;
        node.lives += 1;
        self.truth.life_begins(&node.name);
        self.record.note(&format!("{} starts life {}", node.name, node.lives));
        let mut machine = Machine::new().map_err(|error| error.to_string())?;
        let (dir, name) = (self.folder.join(node.name.as_str()), node.name.clone());
        let (network, ip) = (self.network.clone(), node.ip);
        let truth = self.truth.clone();
        node.main = Some(if node.config.roles == [Role::Rollout] {
            let manners = self.setting.manners.clone();
            machine.spawn(async move {
                let net = NetThread::here(network.machine(ip));
                match rollout::run(net, &dir, &name, seed, manners, truth).await {
                    Ok(Left::Stopped) => Ok(()),
                    Ok(Left::Killed) => Err("killed by its task".to_owned()),
                    Err(error) => Err(error),
                }
            })
        } else {
            let trainer = trainer::start(seed, self.setting.floats, truth);
            let store = store(seed, self.setting.commit_max, Arc::clone(&self.panic));
            machine.spawn(async move {
                let net = Some(NetThread::here(network.machine(ip)));
                let ground = Ground { net, store, trainer, log: None };
                node::run_on(ground, &dir, &name).await.map_err(|error| match error {
                    NodeError::Hopeless(reason) => format!("hopeless: {reason}"),
                    error => error.to_string(),
                })
            })
        });
        node.machine = Some(machine);
        Ok(())
    }

    fn step(&mut self, index: usize) -> Result<(), String> {
        let node = &mut self.nodes[index];
        let Some(machine) = &mut node.machine else { return Ok(()) };
        self.record.at(node.name.as_str());
        os::watch(node.disk.watcher());
        machine.step();
        drop(os::unwatch());
        self.record.at("world");
        if node.disk.has_crashed() {
            return self.bury(index);
        }
        if node.main.as_ref().is_some_and(JoinHandle::is_finished) {
            self.ended(index)?;
        }
        Ok(())
    }

    /// Tasks that a dying node had beside the one that killed it are blamed with it: of a handful,
    /// none may be left.
    pub(crate) fn may_end_early(&self, results: &Results) -> bool {
        let none_left = results.error.as_deref().is_some_and(|why| why.contains(checks::NONE_LEFT));
        self.setting.manners.poison.is_some() && none_left
    }

    /// A node's program has ended: its host starts it again, unless the run is over.
    fn ended(&mut self, index: usize) -> Result<(), String> {
        let node = &mut self.nodes[index];
        let outcome = match node.main.take().and_then(FutureExt::now_or_never) {
            Some(Ok(outcome)) => outcome,
            Some(Err(panic)) => return Err(format!("{} panicked: {panic}", node.name)),
            None => Err("it did not end".to_owned()),
        };
        self.record.note(&format!("{} has left: {outcome:?}", node.name));
        self.network.unplug(node.ip);
        if let Some(mut machine) = node.machine.take() {
            machine.kill();
        }
        if index == 0 && outcome.is_ok() {
            let results = self.results();
            if results.complete || self.may_end_early(&results) {
                return Ok(());
            }
            return Err(format!("liveness: the run ended early: {:?}", results.error));
        }
        let node = &mut self.nodes[index];
        let wait = Duration::from_millis(self.rng.random_range(100..RESTART_MAX_MS));
        // A person makes room before a node that has none is started again.
        let room = node.full_until.unwrap_or_default();
        node.start_at = Some(os::now().max(room) + wait);
        Ok(())
    }
}

/// A store that is written after a while, by a hand that may fail.
fn store(seed: u64, commit_max: Duration, panic: Arc<AtomicBool>) -> Options {
    let rng = std::sync::Mutex::new(Rng::seed_from_u64(seed));
    let lend = move |work: crrl_store::Work| {
        assert!(!panic.swap(false, Ordering::Relaxed), "{}", checks::INJECTED);
        let share: f64 = rng.lock().expect("one thread").random();
        let takes = commit_max.mul_f64(share * share);
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            work();
        });
    };
    Options { hand: Hand::Lent(Arc::new(lend)), ..Options::default() }
}
