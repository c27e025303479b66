//! What a machine has, judged by what its nodes need, whatever is trained.

use std::net::UdpSocket;
use std::process::Command;

use crrl_config::{ClusterConfig, Node, Role};

use super::Check;
use super::facts::{Facts, Folder, Group, Isolation, Limit, PROGRAMS};

/// Open files one node may need: sockets, logs, and pipes of every episode's tools.
const FILES_MIN: u64 = 1024;
/// As many as are ever advised.
const FILES_PLENTY: u64 = 65_536;
/// Processes and threads the nodes of a machine may need: some dozens each, and those of every
/// episode's commands.
const PROCESSES_MIN: u64 = 1024;
/// Disk a node's folder should have; transcripts, checkpoints and logs.
const DISK_MIN: u64 = 1 << 30;

/// Which machine is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// This one.
    Here,
    /// One that is reached over ssh.
    There,
}

/// This machine. Some of it only it can try itself.
pub(super) fn here(config: &ClusterConfig, facts: &Facts) -> Vec<Check> {
    let nodes: Vec<Node> = config.nodes().into_iter().filter(Node::is_local).collect();
    let mut checks = judge(config, facts, &nodes, Place::Here);
    checks.push(udp());
    if nodes.iter().any(|node| config.device_of(node) == "cuda") {
        checks.push(cuda());
    }
    checks
}

/// What was found on a machine, for the nodes that are to run there.
pub(super) fn judge(
    config: &ClusterConfig,
    facts: &Facts,
    nodes: &[Node],
    place: Place,
) -> Vec<Check> {
    let mut checks = Vec::new();
    // Episodes are worked on by commands other than `train` as well, but only here.
    if place == Place::Here || nodes.iter().any(|node| node.roles.contains(&Role::Rollout)) {
        checks.extend(PROGRAMS.map(|program| program_is_there(facts, program)));
        checks.push(isolation(config, &facts.isolation));
    }
    checks.push(files(facts.open_files));
    checks.push(processes(facts.processes));
    checks.push(locked(facts.locked_bytes));
    checks.push(group(facts.group));
    checks.extend(facts.cores.map(|cores| cores_for(nodes, cores)));
    checks.extend(facts.folders.iter().map(|folder| disk(folder, place)));
    if place == Place::There {
        checks.push(docker(facts.docker.as_ref()));
    }
    checks
}

fn program_is_there(facts: &Facts, program: &'static str) -> Check {
    let why = match program {
        "git" => "every episode works in a git repository",
        "bash" => "the agent's shell",
        _ => "how policies read code",
    };
    let fix = format!("install {program} ({why}) with the system's package manager");
    match facts.programs.get(program) {
        Some(Ok(version)) => Check::good(program, version),
        Some(Err(error)) => Check::bad(program, error, fix),
        None => Check::bad(program, "it was not looked for", fix),
    }
}

fn isolation(config: &ClusterConfig, isolation: &Isolation) -> Check {
    const NAME: &str = "isolation";
    match isolation {
        Isolation::Had => Check::good(NAME, "namespaces, limits and a private root can be had"),
        Isolation::Namespaces => Check::good(
            NAME,
            "user namespaces can be had; the rest can be tried once the program is there",
        ),
        Isolation::Lacks(why) if config.sandbox.run_without_isolation => Check::warning(
            NAME,
            why,
            "sandbox.run_without_isolation is set: what the policy types is run as you",
        ),
        Isolation::Lacks(why) => Check::bad(
            NAME,
            why,
            "mend that, or set sandbox.run_without_isolation = true where nothing can be harmed",
        ),
        Isolation::Unknown => Check::warning(
            NAME,
            "there is no unshare to try user namespaces with, and no crrl yet",
            "ask again once `crrl cluster up` has copied the program, or install util-linux",
        ),
    }
}

fn limit_unknown(name: &'static str) -> Check {
    Check::warning(name, "the limit cannot be read", "see that /proc is mounted")
}

fn files(limit: Option<Limit>) -> Check {
    const NAME: &str = "open files";
    let Some(Limit { soft, hard }) = limit else { return limit_unknown(NAME) };
    match soft {
        None => Check::good(NAME, "no limit"),
        Some(soft) if soft >= FILES_MIN => Check::good(NAME, format!("{soft} allowed")),
        Some(soft) => Check::warning(
            NAME,
            format!("{soft} allowed, {FILES_MIN} may be needed"),
            raise(
                "-n",
                "nofile",
                FILES_MIN,
                hard.map_or(FILES_PLENTY, |hard| hard.min(FILES_PLENTY)),
            ),
        ),
    }
}

fn processes(limit: Option<Limit>) -> Check {
    const NAME: &str = "processes";
    let Some(Limit { soft, hard }) = limit else { return limit_unknown(NAME) };
    match soft {
        None => Check::good(NAME, "no limit"),
        Some(soft) if soft >= PROCESSES_MIN => Check::good(NAME, format!("{soft} allowed")),
        Some(soft) => Check::warning(
            NAME,
            format!(
                "{soft} allowed for this user, threads included; {PROCESSES_MIN} may be needed"
            ),
            raise("-u", "nproc", PROCESSES_MIN, hard.unwrap_or(4 * PROCESSES_MIN)),
        ),
    }
}

/// What to do about a limit: in the shell as far as it goes, and where it is set for good.
fn raise(flag: &str, item: &str, wanted: u64, hard: u64) -> String {
    let for_good =
        format!("{item} in /etc/security/limits.conf (LimitNOFILE, LimitNPROC of a unit)");
    if hard >= wanted {
        format!("ulimit {flag} {hard} before it is started, or {for_good}")
    } else {
        format!("{for_good}; without that no more than {hard} can be had")
    }
}

/// Nothing here locks memory, and the driver's pinned pages are not counted: whatever it is, is enough.
fn locked(limit: Option<Limit>) -> Check {
    const NAME: &str = "locked memory";
    match limit {
        None => limit_unknown(NAME),
        Some(Limit { soft: None, .. }) => Check::good(NAME, "no limit; none is needed"),
        Some(Limit { soft: Some(bytes), .. }) => {
            Check::good(NAME, format!("{} KiB allowed; none is needed", bytes >> 10))
        }
    }
}

fn group(Group { memory_bytes, processes_left }: Group) -> Check {
    const NAME: &str = "control group";
    let memory = memory_bytes.map(|bytes| format!("{} MiB of memory", bytes >> 20));
    let processes = processes_left.map(|left| format!("{left} more processes and threads"));
    let bounds: Vec<String> = memory.into_iter().chain(processes).collect();
    if bounds.is_empty() {
        return Check::good(NAME, "it sets no bounds");
    }
    let found = format!("it allows {}", bounds.join(" and "));
    match processes_left {
        Some(left) if left < PROCESSES_MIN => Check::warning(
            NAME,
            format!("{found}; {PROCESSES_MIN} may be needed"),
            "raise pids.max: TasksMax of the systemd unit or slice, --pids-limit of the container",
        ),
        _ => Check::good(NAME, found),
    }
}

fn cores_for(nodes: &[Node], cores: usize) -> Check {
    const NAME: &str = "cores";
    let threads: usize =
        nodes.iter().map(|node| if node.threads == 0 { cores } else { node.threads }).sum();
    let found = format!("{cores}, for {threads} threads of {} nodes", nodes.len());
    // The learner takes them all while the others sample: twice over is how it is meant.
    if threads <= 3 * cores {
        return Check::good(NAME, found);
    }
    let fix = "fewer rollout nodes or threads: they only wait for one another";
    Check::warning(NAME, found, fix)
}

fn disk(folder: &Folder, place: Place) -> Check {
    const NAME: &str = "disk";
    let Folder { path, there, free_bytes, writable } = folder;
    let setting = match place {
        Place::Here => "run.dir",
        Place::There => "dir in its [[node]]",
    };
    if !writable {
        let found = format!("{}: {} cannot be written", path.display(), there.display());
        return Check::bad(NAME, found, format!("set {setting} to a folder that can be written"));
    }
    let Some(free) = free_bytes else {
        let found = format!("{}: its disk does not say how much is free", path.display());
        return Check::warning(NAME, found, format!("look at it yourself: df {}", there.display()));
    };
    let found = match free >> 30 {
        0 => format!("{} MiB free for {}", free >> 20, path.display()),
        gib => format!("{gib} GiB free for {}", path.display()),
    };
    if *free >= DISK_MIN {
        return Check::good(NAME, found);
    }
    Check::warning(NAME, found, format!("make room, or set {setting} to another disk"))
}

/// Nodes in containers use the engine of this machine: what another machine has is good to know.
fn docker(engine: Option<&Result<String, String>>) -> Check {
    const NAME: &str = "docker";
    match engine {
        None => Check::good(NAME, "not there; no node needs it there"),
        Some(Ok(version)) => Check::good(NAME, format!("the engine answers (version {version})")),
        Some(Err(why)) => Check::good(NAME, format!("{why}; no node needs it there")),
    }
}

fn udp() -> Check {
    const NAME: &str = "UDP on loopback";
    let fix = "a firewall or sandbox blocks UDP on 127.0.0.1; nodes talk over it";
    let exchange = || -> std::io::Result<bool> {
        let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        other.set_read_timeout(Some(std::time::Duration::from_secs(1)))?;
        one.send_to(b"crrl", other.local_addr()?)?;
        let mut buffer = [0; 8];
        let (len, from) = other.recv_from(&mut buffer)?;
        Ok(&buffer[..len] == b"crrl" && from == one.local_addr()?)
    };
    match exchange() {
        Ok(true) => Check::good(NAME, "a packet arrived"),
        Ok(false) => Check::bad(NAME, "another packet arrived than was sent", fix),
        Err(error) => Check::bad(NAME, error.to_string(), fix),
    }
}

fn cuda() -> Check {
    const NAME: &str = "GPU";
    if !cfg!(feature = "cuda") {
        return Check::bad(
            NAME,
            "a node's device is cuda, and this build has no CUDA",
            "cargo install --path . --features cuda, or device = \"cpu\"",
        );
    }
    let output = Command::new("nvidia-smi")
        .args(["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Check::good(NAME, text.trim().replace('\n', "; "))
        }
        Ok(output) => Check::bad(
            NAME,
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            "the driver does not answer: nvidia-smi says why",
        ),
        Err(error) => Check::bad(
            NAME,
            format!("nvidia-smi: {error}"),
            "install NVIDIA's driver; libcuda, libnvrtc and the CUDA headers are needed at run time",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn facts() -> Facts {
        let limit = |number| Some(Limit { soft: Some(number), hard: Some(number) });
        Facts {
            programs: PROGRAMS.iter().map(|name| ((*name).to_owned(), Ok("1".into()))).collect(),
            isolation: Isolation::Had,
            open_files: limit(4096),
            processes: limit(4096),
            locked_bytes: limit(0),
            cores: Some(8),
            memory_bytes: Some(1 << 34),
            group: Group::default(),
            folders: vec![Folder {
                path: "crrl/far".into(),
                there: "/home/me".into(),
                free_bytes: Some(1 << 40),
                writable: true,
            }],
            docker: None,
            gpu: None,
        }
    }

    fn rollout(threads: usize) -> Node {
        Node { name: "far".into(), roles: vec![Role::Rollout], threads, ..Node::default() }
    }

    /// What is not good of a machine with one rollout node.
    fn lacks(facts: &Facts) -> Vec<Check> {
        let all = judge(&ClusterConfig::default(), facts, &[rollout(1)], Place::There);
        all.into_iter().filter(|check| check.verdict != Verdict::Good).collect()
    }

    #[test]
    fn each_thing_a_machine_lacks_is_one_check_with_its_fix() {
        assert_eq!(lacks(&facts()), Vec::new());
        let low = Some(Limit { soft: Some(256), hard: Some(4096) });
        let folder = |free_bytes, writable| {
            let with = |folder| Folder { free_bytes, writable, ..folder };
            facts().folders.into_iter().map(with).collect()
        };
        let none = std::collections::BTreeMap::from([("bash".to_owned(), Err("no".to_owned()))]);
        let programs: std::collections::BTreeMap<_, _> =
            facts().programs.into_iter().chain(none).collect();
        let few = Group { memory_bytes: Some(1 << 30), processes_left: Some(100) };
        for (wrong, name, verdict, fix) in [
            (Facts { programs, ..facts() }, "bash", Verdict::Bad, "install bash"),
            (
                Facts { isolation: Isolation::Lacks("no".into()), ..facts() },
                "isolation",
                Verdict::Bad,
                "sandbox.run_without_isolation",
            ),
            (
                Facts { open_files: low, ..facts() },
                "open files",
                Verdict::Warning,
                "ulimit -n 4096",
            ),
            (Facts { processes: low, ..facts() }, "processes", Verdict::Warning, "ulimit -u 4096"),
            (Facts { group: few, ..facts() }, "control group", Verdict::Warning, "TasksMax"),
            (Facts { cores: Some(0), ..facts() }, "cores", Verdict::Warning, "fewer rollout nodes"),
            (
                Facts { folders: folder(Some(5 << 20), true), ..facts() },
                "disk",
                Verdict::Warning,
                "make room",
            ),
            (
                Facts { folders: folder(Some(1 << 40), false), ..facts() },
                "disk",
                Verdict::Bad,
                "dir in its [[node]]",
            ),
        ] {
            let found = lacks(&wrong);
            let [check] = &found[..] else { panic!("{name}: {found:?}") };
            assert_eq!((check.name.as_str(), check.verdict), (name, verdict), "{check:?}");
            assert!(check.fix.as_ref().is_some_and(|text| text.contains(fix)), "{check:?}");
        }
    }

    #[test]
    fn a_machine_that_only_learns_needs_no_sandbox() {
        let learner = Node { roles: vec![Role::Learner], ..rollout(0) };
        let facts = Facts { isolation: Isolation::Lacks("no".into()), ..facts() };
        let all = judge(&ClusterConfig::default(), &facts, &[learner], Place::There);
        assert!(all.iter().all(|check| check.verdict == Verdict::Good), "{all:?}");
    }
}
