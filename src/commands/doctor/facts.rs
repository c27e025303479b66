//! What a machine has, measured: by this program where it is, by `sh` where it is not. What that
//! means for a run is not judged here.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crrl_actors::settings;
use crrl_config::ClusterConfig;
use crrl_sandbox::LocalBackend;
use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

/// For `sh -c`: tells what [`Facts::told`] reads. Takes 1 where NVIDIA's driver is asked as well, 0
/// where not, and folders.
pub(super) const SCRIPT: &str = include_str!("facts.sh");
/// Programs that episodes need.
pub(super) const PROGRAMS: [&str; 3] = ["git", "bash", "grep"];

/// For `sh -c`: whether a grep finds anything.
const GREPS: &str = "printf x | \"$0\" -q x";
/// What is said of one that does and has no version to tell, as BusyBox's.
const NO_VERSION: &str = "it tells no version";

/// How long a program may take to say what it is: a machine elsewhere is given 20 s for all of them.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Time between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes of what it says that are kept.
const ANSWER_BYTES_MAX: u64 = 4 << 10;
/// Characters of an answer that are passed on.
const QUOTED_MAX: usize = 200;

/// What a machine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// The version of each of [`PROGRAMS`], or why it does not run.
    pub(super) programs: BTreeMap<String, Result<String, String>>,
    pub(super) isolation: Isolation,
    pub(super) open_files: Option<Limit>,
    /// Processes and threads of this user.
    pub(super) processes: Option<Limit>,
    pub(super) locked_bytes: Option<Limit>,
    pub(super) cores: Option<usize>,
    /// Memory the system has left, in bytes.
    pub(super) memory_bytes: Option<u64>,
    pub(super) group: Group,
    pub(super) folders: Vec<Folder>,
    /// The Docker engine's version, or why it does not answer; none where there is no Docker or it
    /// was not asked.
    pub(super) docker: Option<Result<String, String>>,
    /// What NVIDIA's driver says of its devices; none where it was not asked.
    pub(super) gpu: Option<Result<String, String>>,
}

/// Whether sandboxes can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Isolation {
    /// One was opened and closed.
    Had,
    /// User namespaces can be made. Nobody has tried the rest.
    Namespaces,
    /// What is missing.
    Lacks(String),
    /// There was nothing to try it with.
    Unknown,
}

/// What a process may have; none is as much as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limit {
    pub(super) soft: Option<u64>,
    pub(super) hard: Option<u64>,
}

impl Limit {
    /// Of the table in `/proc/self/limits`.
    fn of(table: &[&str], name: &str) -> Option<Self> {
        let rest = table.iter().find_map(|line| line.strip_prefix(name))?;
        let mut words = rest.split_whitespace();
        let mut next = || match words.next()? {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        };
        Some(Self { soft: next()?, hard: next()? })
    }
}

/// What the process's control group and those above it allow; none is as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) memory_bytes: Option<u64>,
    /// Processes and threads that can still be begun.
    pub(super) processes_left: Option<u64>,
}

impl Group {
    /// Of one line a level: `memory.max`, `pids.max`, `pids.current`.
    fn of(levels: &[&str]) -> Self {
        let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        let mut group = Self::default();
        for level in levels {
            let mut numbers = level.split_whitespace().map(|word| word.parse::<u64>().ok());
            let mut next = || numbers.next().flatten();
            let (memory, processes, begun) = (next(), next(), next());
            let left = processes.map(|most| most.saturating_sub(begun.unwrap_or_default()));
            group.memory_bytes = least(group.memory_bytes, memory);
            group.processes_left = least(group.processes_left, left);
        }
        group
    }
}

/// The disk under a folder that is there or will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// The nearest folder above that exists, or the folder itself.
    pub(super) there: PathBuf,
    /// Room for this user, in bytes.
    pub(super) free_bytes: Option<u64>,
    pub(super) writable: bool,
}

impl Facts {
    /// Of this machine. Sandboxes are tried with the configuration's limits.
    pub(super) fn here(config: &ClusterConfig, folders: &[PathBuf]) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (limits, memory) = (text("/proc/self/limits"), text("/proc/meminfo"));
        let (limits, memory): (Vec<&str>, Vec<&str>) =
            (limits.lines().collect(), memory.lines().collect());
        let levels = levels(&text("/proc/self/cgroup"));
        let levels: Vec<&str> = levels.iter().map(String::as_str).collect();
        let program = |name: &str| (name.to_owned(), version(name, name));
        Self {
            programs: PROGRAMS.into_iter().map(program).collect(),
            isolation: isolation(config),
            open_files: Limit::of(&limits, OPEN_FILES),
            processes: Limit::of(&limits, PROCESSES),
            locked_bytes: Limit::of(&limits, LOCKED),
            cores: std::thread::available_parallelism().ok().map(std::num::NonZero::get),
            memory_bytes: available(&memory),
            group: Group::of(&levels),
            folders: folders.iter().map(|path| folder(path)).collect(),
            docker: None,
            gpu: None,
        }
    }

    /// What [`SCRIPT`] told; none of a text that is something else.
    pub(super) fn told(text: &str) -> Option<Self> {
        let mut parts: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("== ") {
                parts.push((name, Vec::new()));
            } else if let Some((_, lines)) = parts.last_mut() {
                lines.push(line);
            }
        }
        let part = |wanted: &str| {
            let found = parts.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, lines)| lines.as_slice()).unwrap_or_default()
        };
        let limits = part("limits");
        if !parts.iter().any(|(name, _)| *name == "gpu") {
            return None;
        }
        let program = |name: &str| {
            let said = outcome(part(&format!("program {name}")).get(..1).unwrap_or_default());
            (name.to_owned(), said.unwrap_or_else(|| Err("it cannot be told".to_owned())))
        };
        let folder = |(name, lines): &(&str, Vec<&str>)| {
            let path = PathBuf::from(name.strip_prefix("folder ")?);
            let mut words = lines.first()?.splitn(3, ' ');
            let free = words.next()?.parse::<u64>().ok();
            let writable = words.next()? == "yes";
            let there = PathBuf::from(words.next()?);
            Some(Folder { path, there, free_bytes: free.map(|kib| kib << 10), writable })
        };
        Some(Self {
            programs: PROGRAMS.into_iter().map(program).collect(),
            isolation: namespaces(part("namespaces")),
            open_files: Limit::of(limits, OPEN_FILES),
            processes: Limit::of(limits, PROCESSES),
            locked_bytes: Limit::of(limits, LOCKED),
            cores: part("cores").first().and_then(|line| line.trim().parse().ok()),
            memory_bytes: available(part("memory")),
            group: Group::of(part("group")),
            folders: parts.iter().filter_map(folder).collect(),
            docker: outcome(part("docker")),
            gpu: outcome(part("gpu")),
        })
    }

    /// Memory a process may take, in bytes; none where the system does not say.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.memory_bytes.into_iter().chain(self.group.memory_bytes).min()
    }
}

/// Rows of `/proc/self/limits`.
const OPEN_FILES: &str = "Max open files";
/// See above.
const PROCESSES: &str = "Max processes";
/// See above.
const LOCKED: &str = "Max locked memory";

fn isolation(config: &ClusterConfig) -> Isolation {
    let mut options = settings::sandbox(&config.sandbox);
    options.run_without_isolation = false;
    match LocalBackend::new(options) {
        Ok(_) => Isolation::Had,
        Err(error) => Isolation::Lacks(error.to_string()),
    }
}

/// What can be told of namespaces by what the kernel allows, and by trying one.
fn namespaces(lines: &[&str]) -> Isolation {
    let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
    for (name, forbids, wanted) in [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ] {
        if value(name) == Some(forbids) {
            return Isolation::Lacks(format!(
                "the kernel lets nobody have a user namespace; sysctl -w {wanted}"
            ));
        }
    }
    match value("unshare").and_then(|said| outcome(&[said])) {
        Some(Ok(_)) => Isolation::Namespaces,
        Some(Err(said)) => Isolation::Lacks(format!("no user namespace can be had: {said}")),
        None => Isolation::Unknown,
    }
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(lines: &[&str]) -> Option<u64> {
    let line = lines.iter().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The levels [`Group::of`] reads, from the process's own up.
fn levels(own: &str) -> Vec<String> {
    let root = Path::new("/sys/fs/cgroup");
    let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Vec::new();
    };
    let at = root.join(own.trim_start_matches('/'));
    let level = |at: &Path| {
        let value = |name: &str| {
            let text = std::fs::read_to_string(at.join(name)).unwrap_or_else(|_| "-".into());
            text.trim().to_owned()
        };
        format!("{} {} {}", value("memory.max"), value("pids.max"), value("pids.current"))
    };
    at.ancestors().take_while(|at| at.starts_with(root)).map(level).collect()
}

fn folder(path: &Path) -> Folder {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = whole.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let stat = nix::sys::statvfs::statvfs(there).ok();
    Folder {
        path: path.to_owned(),
        there: there.to_owned(),
        free_bytes: stat.map(|stat| stat.blocks_available() * stat.fragment_size()),
        writable: access(there, AccessFlags::W_OK).is_ok(),
    }
}

/// The version of a program, called so, or why it does not run.
fn version(name: &str, program: &str) -> Result<String, String> {
    let ask = |program: &str, arguments: &[&str]| {
        answer(program, arguments).unwrap_or_else(|error| Err(error.to_string()))
    };
    match ask(program, &["--version"]) {
        Ok(said) => Ok(first_line(&said).to_owned()),
        Err(_) if name == "grep" && ask("sh", &["-c", GREPS, program]).is_ok() => {
            Ok(NO_VERSION.to_owned())
        }
        Err(said) => Err(said),
    }
}

/// The Docker engine's version, or why it does not answer; none where there is no Docker.
pub(super) fn docker() -> Option<Result<String, String>> {
    match answer("docker", &["version", "--format", "{{.Server.Version}}"]) {
        Ok(said) => Some(said.map(|said| first_line(&said).to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

/// What a program writes; what it says instead where it fails.
fn answer(program: &str, arguments: &[&str]) -> std::io::Result<Result<String, String>> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let late = Instant::now() + ANSWER_TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > late {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            let seconds = ANSWER_TIMEOUT.as_secs();
            return Err(Error::new(ErrorKind::TimedOut, format!("no answer in {seconds} s")));
        }
        std::thread::sleep(LOOK_EVERY);
    };
    if status.success() {
        return written(child.stdout.take()).map(Ok);
    }
    let error = written(child.stderr.take())?;
    let words = error.lines().next_back().unwrap_or_default();
    Ok(Err(if words.is_empty() { format!("it ends with {status}") } else { words.to_owned() }))
}

fn written(stream: Option<impl Read>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim()
}

/// A part that begins with `yes` or `no`, and goes on with what was said; none where it is empty.
fn outcome(lines: &[&str]) -> Option<Result<String, String>> {
    let (first, more) = lines.split_first()?;
    let (word, first) = first.split_once(' ').unwrap_or((*first, ""));
    let said = std::iter::once(first).chain(more.iter().copied()).map(str::trim);
    let said = said.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let said: String = said.chars().take(QUOTED_MAX).collect();
    match word {
        "yes" => Some(Ok(said)),
        "no" if said.is_empty() => Some(Err("it fails without a word".to_owned())),
        "no" => Some(Err(said)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the script tells of this machine, by the system's own `sh`.
    fn told(folders: &[&str]) -> Facts {
        told_by(&mut Command::new("sh"), folders)
    }

    fn told_by(shell: &mut Command, folders: &[&str]) -> Facts {
        let output =
            shell.args(["-c", SCRIPT, "crrl", "0"]).args(folders).output().expect("a shell");
        assert!(output.status.success(), "{output:?}");
        Facts::told(&String::from_utf8_lossy(&output.stdout)).expect("is what the script tells")
    }

    #[test]
    fn the_script_finds_what_the_program_finds() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let (there, new) = (place.path().join("a b"), place.path().join("not/yet"));
        std::fs::create_dir(&there).expect("writable");
        let folders = [there.clone(), new.clone()];
        let names = folders.each_ref().map(|path| path.to_str().expect("a path in UTF-8"));
        let (script, own) = (told(&names), Facts::here(&ClusterConfig::default(), &folders));
        assert_eq!(script.programs, own.programs);
        assert!(script.programs["git"].as_ref().is_ok_and(|said| said.contains("git version")));
        assert_eq!(script.open_files, own.open_files);
        assert_eq!(script.processes, own.processes);
        assert_eq!(script.locked_bytes, own.locked_bytes);
        assert!(script.open_files.is_some() && script.locked_bytes.is_some());
        assert_eq!(script.group.memory_bytes, own.group.memory_bytes);
        assert!(script.memory_bytes.is_some() && own.memory_bytes.is_some());
        assert_eq!(script.docker.is_some(), docker().is_some());
        for (at, expected) in [(0, there.as_path()), (1, place.path())] {
            let (one, other) = (&script.folders[at], &own.folders[at]);
            assert_eq!((&one.path, &one.there), (&folders[at], &expected.to_owned()));
            assert_eq!((&one.path, &one.there), (&other.path, &other.there));
            assert!(one.writable && other.writable);
            assert!(one.free_bytes.is_some() && other.free_bytes.is_some());
        }
    }

    /// Makes a script a program. It is another process that writes it: a file that this one has open for
    /// writing while it starts a child cannot be run.
    fn program(path: &Path, script: &str) {
        let made = Command::new("sh")
            .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod +x \"$0\""])
            .args([path.as_os_str(), script.as_ref()])
            .status();
        assert!(made.expect("a shell").success());
    }

    #[test]
    fn a_machine_with_busybox_and_a_program_that_hangs_is_told_of_as_well() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| place.path().join(name);
        let found = |name: &str| which(name).display().to_string();
        let grep = format!("[ \"$1\" != --version ] || exit 1\nexec {} \"$@\"", found("grep"));
        program(&at("grep"), &grep);
        // As BusyBox's was before 1.30.
        let timeout =
            format!("[ \"$1\" = -t ] || exit 127\nshift\nexec {} \"$@\"", found("timeout"));
        program(&at("timeout"), &timeout);
        program(&at("git"), "exec sleep 600");
        let path = std::env::var("PATH").expect("is set");
        let mut shell = Command::new("sh");
        shell.env("PATH", format!("{}:{path}", place.path().display()));
        let folder = place.path().to_str().expect("a path in UTF-8");
        let facts = told_by(&mut shell, &[folder]);
        let own = version("grep", at("grep").to_str().expect("a path in UTF-8"));
        assert_eq!((&facts.programs["grep"], own), (&Ok(NO_VERSION.into()), Ok(NO_VERSION.into())));
        assert_eq!(facts.programs["git"], Err("no answer in 2 s".into()));
        assert!(facts.programs["bash"].is_ok() && facts.folders[0].writable, "{facts:?}");
        assert!(version("git", "/bin/false").is_err());
    }

    /// A program of this machine.
    fn which(name: &str) -> PathBuf {
        let path = std::env::var_os("PATH").expect("is set");
        let mut found = std::env::split_paths(&path).map(|folder| folder.join(name));
        found.find(|path| path.is_file()).expect("is installed")
    }

    #[test]
    fn the_tightest_control_group_counts_and_no_bound_is_none() {
        let group = Group::of(&["max 100 60", "1073741824 max -", "2147483648 4096 100", "- - -"]);
        let (memory_bytes, processes_left) = (Some(1 << 30), Some(40));
        assert_eq!(group, Group { memory_bytes, processes_left });
        assert_eq!(Group::of(&[]), Group::default());
        let table =
            ["Limit      Soft Limit  Hard Limit", "Max open files   1024   unlimited  files"];
        let limit = Limit { soft: Some(1024), hard: None };
        assert_eq!(Limit::of(&table, OPEN_FILES), Some(limit));
        assert_eq!(Limit::of(&table, LOCKED), None);
    }

    #[test]
    fn a_kernel_without_user_namespaces_is_told_with_its_setting() {
        let lacks = |lines: &[&str]| match namespaces(lines) {
            Isolation::Lacks(why) => why,
            other => panic!("{other:?}"),
        };
        let off = ["user/max_user_namespaces 0", "unshare no unshare failed"];
        assert!(lacks(&off).contains("user.max_user_namespaces=15000"));
        let ubuntu = ["kernel/apparmor_restrict_unprivileged_userns 1", "unshare yes "];
        assert!(lacks(&ubuntu).contains("apparmor_restrict_unprivileged_userns=0"));
        assert!(lacks(&["unshare no Operation not permitted"]).contains("not permitted"));
        let may = ["user/max_user_namespaces 15000", "unshare yes "];
        assert_eq!(namespaces(&may), Isolation::Namespaces);
        assert_eq!(namespaces(&[]), Isolation::Unknown);
    }
}
