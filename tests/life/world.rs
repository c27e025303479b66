//! A run in a folder of its own, as a user has it: the real binary, real processes, a tiny random
//! policy and a handful of tasks. Its steps take a fraction of a second.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crrl_cluster::{RunDir, host};
use crrl_store::Reader;
use crrl_types::Event;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::MANY_STEPS;

/// How long anything may take on a machine that is busy with other things.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(15);

const CONFIG: &str = r#"
[run]
dir = "run"
steps = 20
[model]
path = "MODEL"
[tasks]
train = "tasks.jsonl"
[agent]
prompt = "brief"
calls_max = 2
tokens_max = 200
turn_tokens_max = 160
nudges_max = 0
[reward]
overlong = 1.0
[rollout]
group_size = 4
groups_per_step = 1
concurrency = 4
lease_s = 60.0
skip_equal_groups = false
[learner]
objective = "dapo"
learning_rate = 1e-2
warmup_steps = 0
[lora]
rank = 2
alpha = 4.0
[cluster]
idle_timeout_ms = 1500
"#;

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) run: RunDir,
    /// The network namespace its commands run in, if not everybody's.
    network: Option<String>,
}

impl World {
    /// A folder with a configuration, tasks and a policy.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = CONFIG.replace("MODEL", &model().display().to_string());
        std::fs::write(folder.path().join("cluster.toml"), config).expect("writable");
        let run = RunDir::new(folder.path().join("run"));
        let world = Self { folder, run, network: None };
        let tree = shipped_tree();
        let tree = tree.to_str().expect("a path in UTF-8");
        world.succeeds(&["tasks", "mutate", tree, "-o", "tasks.jsonl", "-n", "60"]);
        world
    }

    /// A run of [`MANY_STEPS`].
    pub(crate) fn long() -> Self {
        let world = Self::new();
        world.configure("steps = 20", &format!("steps = {MANY_STEPS}"));
        world
    }

    /// Misses nobody who is only slow to answer.
    pub(crate) fn has_patience(&self) {
        let patience = "idle_timeout_ms = 10000\nheartbeat_timeout_ms = 10000";
        self.configure("idle_timeout_ms = 1500", patience);
    }

    /// Runs its commands in a network namespace from now on.
    pub(crate) fn moves_into(&mut self, network: &str) {
        self.network = Some(network.to_owned());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(self.network.as_deref(), self.folder.path(), arguments)
    }

    /// Replaces a piece of the configuration.
    pub(crate) fn configure(&self, from: &str, to: &str) {
        let path = self.folder.path().join("cluster.toml");
        let text = std::fs::read_to_string(&path).expect("was written");
        assert!(text.contains(from), "{from}");
        std::fs::write(path, text.replace(from, to)).expect("writable");
    }

    pub(crate) fn crrl(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary was built")
    }

    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.crrl(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    /// What a command says that must fail, and its exit code.
    pub(crate) fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.crrl(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked"), "{said}");
        (output.status.code().expect("no signal"), said)
    }

    /// Starts a command in the background; what it says goes to a file of that name.
    pub(crate) fn starts(&self, arguments: &[&str], heard: &str) -> Child {
        self.spawns(self.command(arguments), heard)
    }

    /// As [`World::starts`], in another network namespace.
    pub(crate) fn starts_in(&self, network: &str, arguments: &[&str], heard: &str) -> Child {
        self.spawns(command(Some(network), self.folder.path(), arguments), heard)
    }

    fn spawns(&self, mut command: Command, heard: &str) -> Child {
        let out = std::fs::File::create(self.folder.path().join(heard)).expect("writable");
        command.stdout(Stdio::null()).stderr(out).spawn().expect("the binary was built")
    }

    /// The history so far.
    pub(crate) fn history(&self) -> Vec<Event> {
        let text = std::fs::read_to_string(self.run.events()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Starts `crrl train`; it goes away with what is returned.
    pub(crate) fn train(&self, more: &[&str]) -> Training<'_> {
        let heard = self.folder.path().join("train.stderr");
        let out = std::fs::File::create(&heard).expect("writable");
        let child = self
            .command(&[&["train"], more].concat())
            .stdout(Stdio::null())
            .stderr(out)
            .spawn()
            .expect("the binary was built");
        Training { world: self, child, heard }
    }

    /// Optimizer steps that are durable.
    pub(crate) fn steps(&self) -> u64 {
        let steps = Reader::open(&self.run.store()).and_then(|reader| reader.steps());
        steps.map_or(0, |steps| steps.len() as u64)
    }

    /// Waits until so many steps are committed.
    pub(crate) fn reaches(&self, steps: u64) {
        let late = Instant::now() + DEADLINE;
        while self.steps() < steps {
            assert!(Instant::now() < late, "the run does not come to step {steps}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process of a node.
    pub(crate) fn pid(&self, node: &str) -> Option<u32> {
        let state = host::state(&self.run).ok()?;
        state.nodes.into_iter().find(|held| held.name == node)?.pid
    }

    /// Every process of the run that the host knows, and the host.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let state = host::state(&self.run).expect("was started");
        let nodes = state.nodes.iter().filter_map(|node| node.pid);
        nodes.chain([state.host_pid]).collect()
    }

    /// How every node ended last.
    pub(crate) fn exits(&self) -> Vec<(String, String)> {
        let state = host::state(&self.run).expect("was started");
        let exit = |node: host::NodeProcess| (node.name, node.last_exit.unwrap_or_default());
        state.nodes.into_iter().map(exit).collect()
    }

    /// What every node and the host wrote.
    fn logs(&self) -> String {
        let mut text = String::new();
        let files = std::fs::read_dir(self.run.logs()).into_iter().flatten().flatten();
        for file in files {
            let log = std::fs::read_to_string(file.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(12)..].join("\n");
            text += &format!("--- {}\n{last}\n", file.path().display());
        }
        text
    }
}

impl Drop for World {
    /// Whatever became of its test, nothing of it goes on.
    fn drop(&mut self) {
        if matches!(host::host_pid(&self.run), Ok(Some(_))) {
            self.crrl(&["cluster", "down"]);
        }
    }
}

/// A `crrl train` under way.
pub(crate) struct Training<'a> {
    world: &'a World,
    child: Child,
    heard: PathBuf,
}

impl<'a> Training<'a> {
    /// Whose it is.
    pub(crate) fn world(&self) -> &'a World {
        self.world
    }

    /// Waits until something has come about. Fails if the command ends first.
    pub(crate) fn until<T>(&mut self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let late = Instant::now() + DEADLINE;
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            let ended = self.child.try_wait().expect("is ours");
            assert!(ended.is_none() && Instant::now() < late, "no {what}: {}", self.account());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until that many steps are durable.
    pub(crate) fn until_step(&mut self, steps: u64) {
        let world = self.world;
        self.until(&format!("step {steps}"), || (world.steps() >= steps).then_some(()));
    }

    /// Waits until a step is durable and every node is at work: one rollout node alone makes the first.
    pub(crate) fn until_all_work(&mut self) {
        let world = self.world;
        self.until_step(1);
        self.until("every node at work", || {
            world.crrl(&["cluster", "status"]).status.success().then_some(())
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        end(self.child.id(), signal);
    }

    /// Waits for the end; gives the exit code (none after a signal) and what was said.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let late = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("is ours") {
                return (status.code(), self.said());
            }
            assert!(Instant::now() < late, "hangs: {}", self.account());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for an end that must be a good one.
    pub(crate) fn completes(self) -> String {
        let world = self.world;
        let (code, said) = self.ended();
        assert_eq!(code, Some(0), "{said}\n{}", world.logs());
        said
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.heard).unwrap_or_default()
    }

    fn account(&self) -> String {
        let state = host::state(&self.world.run);
        format!("{}\n{state:?}\n{}", self.said(), self.world.logs())
    }
}

impl Drop for Training<'_> {
    fn drop(&mut self) {
        // Its cluster goes with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until none of these processes is left.
pub(crate) fn until_gone(pids: &[u32]) {
    let late = Instant::now() + DEADLINE;
    while pids.iter().any(|pid| is_alive(*pid)) {
        assert!(Instant::now() < late, "still there: {pids:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

fn is_alive(pid: u32) -> bool {
    // A zombie is dead, whoever has not asked for its status yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

/// Sends a signal to a process of the run.
pub(crate) fn end(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("is there");
}

fn command(network: Option<&str>, dir: &Path, arguments: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_crrl");
    let mut command = match network {
        None => Command::new(program),
        Some(network) => {
            let mut inside = Command::new("ip");
            inside.args(["netns", "exec", network, program]);
            inside
        }
    };
    command.args(arguments).current_dir(dir).env_remove("CRRL_LOG").stdin(Stdio::null());
    command
}

fn shipped_tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pytree")
}

/// The policy: made once, good for nothing.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let model = folder.join("life-model");
        let _ = std::fs::remove_dir_all(&model);
        let sizes = "sft --from-scratch --tokens 2048 --batch-tokens 2048 --dim 32 --layers 1 \
                     --heads 2 --vocab 512 --eval-traces 1 --out";
        let mut arguments: Vec<&str> = sizes.split_whitespace().collect();
        let (tree, out) = (shipped_tree(), model.display().to_string());
        arguments.extend([out.as_str(), tree.to_str().expect("a path in UTF-8")]);
        let made = command(None, folder, &arguments).output().expect("the binary was built");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        model
    })
}
