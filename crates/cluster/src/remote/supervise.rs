//! One node on another machine, from the first connection to its end. It is started once: whether it
//! is started again is for the host process to decide, as for every node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crrl_config::{ClusterConfig, Node};
use crrl_types::{Host, HostPort, NodeName};
use openssh::{Child, ChildStdin, Session, Stdio};
use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::admission;
use crate::host::child::{Bounds, GPU_ORDER, VISIBLE_GPUS};
use crate::remote::about::About;
use crate::remote::container::{self, Place};
use crate::remote::phase::Phases;
use crate::remote::ssh::{Machine, RemoteError};
use crate::run_dir::RunDir;

/// Time between two signs of life on the node's standard input; see
/// [`crate::remote::TIED_SILENCE_MAX`].
pub(crate) const SIGN_EVERY: Duration = Duration::from_secs(4);
/// How long the node's token is good for: it is used at once.
pub(crate) const TOKEN_GOOD_FOR: Duration = Duration::from_secs(120);
/// How long the node may take to leave once its standard input has ended; the host process waits a
/// little longer.
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_secs(4);

/// Starts a node on its machine and watches it until it ends or this process is told to stop.
///
/// # Errors
/// [`RemoteError`]: how far it came, and what to do.
pub async fn run(run: &RunDir, name: &NodeName) -> Result<(), RemoteError> {
    let setting = |error: &dyn std::fmt::Display| RemoteError::Setting(error.to_string());
    let config = run.config().map_err(|error| setting(&error))?;
    let node = config.nodes().into_iter().find(|node| node.name == name.as_str());
    let node = node.ok_or_else(|| RemoteError::Setting(format!("there is no node {name}")))?;
    let mut phases = Phases::begin(run, &node.name, node.host.as_deref().unwrap_or_default());
    let told = told_to_stop().map_err(|error| setting(&error))?;
    tokio::pin!(told);
    let place = node.host.as_deref().and_then(Place::of);
    let starting = async {
        Ok(match &place {
            Some(place) => {
                Started::Container(container::start(run, &config, &node, place, &mut phases).await?)
            }
            None => Started::Ssh(Box::new(start(run, &config, &node, &mut phases).await?)),
        })
    };
    let outcome = tokio::select! {
        () = &mut told => return Ok(()),
        started = starting => started,
    };
    let outcome = match outcome {
        Ok(running) => {
            phases.runs();
            match running {
                Started::Ssh(running) => running.attend(told).await,
                Started::Container(running) => running.attend(told).await,
            }
        }
        Err(error) => Err(error),
    };
    match &outcome {
        Ok(()) => phases.enter("left"),
        Err(error) => phases.failed(&error.to_string()),
    }
    outcome
}

/// Resolves at the first signal that asks a node to go.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut restart = signal(SignalKind::user_defined1())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = restart.recv() => {}
        }
    })
}

/// A node that runs, and how it is held.
enum Started {
    Ssh(Box<Running>),
    Container(container::Running),
}

struct Running {
    machine: Machine,
    child: Child<Arc<Session>>,
    stdin: ChildStdin,
}

async fn start(
    run: &RunDir,
    config: &ClusterConfig,
    node: &Node,
    phases: &mut Phases,
) -> Result<Running, RemoteError> {
    phases.enter("connecting");
    let machine = Machine::connect(config, node).await?;
    phases.enter("looking for the program");
    let wanted = machine.wanted()?;
    let about = match machine.about(&[]).await? {
        Some(about) if about.digest == wanted => about,
        _ => {
            phases.enter("copying the program");
            machine.copy(&wanted).await?
        }
    };
    phases.enter("joining");
    let address = address(config, run, &about, node)?;
    let hours = config.cluster.certificate_hours;
    let name = NodeName::from(node.name.as_str());
    let token = admission::token(run, &name, address.as_ref(), hours, TOKEN_GOOD_FOR)
        .map_err(|error| RemoteError::Setting(error.to_string()))?;
    let threads = node.threads.to_string();
    let mut arguments = vec!["node", "--join", "-", "--tied", "--threads", &threads, "--dir"];
    arguments.push(machine.dir());
    let model = node.model.as_ref().map(|path| path.display().to_string());
    if let Some(model) = &model {
        arguments.extend(["--model", model]);
    }
    let broken = |message: String| RemoteError::Broken { host: machine.host().to_owned(), message };
    let (program, wrap) = (machine.program(), wrap(Bounds::of(node)));
    let (first, before) = match &wrap {
        Some(script) => ("sh", vec!["-c", script.as_str(), program.as_str()]),
        None => (program.as_str(), Vec::new()),
    };
    let mut child = machine
        .session()
        .arc_command(first)
        .args(before)
        .args(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit())
        .spawn()
        .await
        .map_err(|error| broken(error.to_string()))?;
    let mut stdin = child.stdin().take().ok_or_else(|| broken("no standard input".into()))?;
    // On the standard input: a command line is seen by everybody on that machine.
    let line = format!("{token}\n");
    stdin.write_all(line.as_bytes()).await.map_err(|error| broken(error.to_string()))?;
    Ok(Running { machine, child, stdin })
}

/// What sh is told to start a program within bounds; nothing where there are none.
fn wrap(Bounds { gpu, memory_bytes }: Bounds) -> Option<String> {
    if (gpu, memory_bytes) == (None, 0) {
        return None;
    }
    let mut script = String::new();
    if memory_bytes > 0 {
        script += &format!("ulimit -S -d {} && ", memory_bytes >> 10);
    }
    if let Some(gpu) = gpu {
        let (order, by) = GPU_ORDER;
        script += &format!("export {order}={by} {VISIBLE_GPUS}={gpu} && ");
    }
    Some(script + "exec \"$0\" \"$@\"")
}

/// This machine as that one reaches it; none where it is the address it listens on.
fn address(
    config: &ClusterConfig,
    run: &RunDir,
    about: &About,
    node: &Node,
) -> Result<Option<Host>, RemoteError> {
    if let Ok(address) = config.cluster.address.parse() {
        return Ok(Some(address));
    }
    let listens = run.addresses().map_err(|error| RemoteError::Setting(error.to_string()))?;
    let listens = listens.values().filter_map(HostPort::socket_addr);
    let reached = reached_at(listens, about.ssh_ends()).map_err(|why| {
        RemoteError::Setting(format!(
            "{} on {} cannot reach this machine: {why}",
            node.name,
            node.host.as_deref().unwrap_or_default()
        ))
    })?;
    Ok(reached.map(Host::Ip))
}

/// Where a machine reaches nodes that listen here, by the two ends of the ssh connection to it; none
/// is where they listen.
///
/// # Errors
/// It cannot, and what to set.
pub fn reached_at(
    mut listens: impl Iterator<Item = SocketAddr>,
    ends: Option<(IpAddr, IpAddr)>,
) -> Result<Option<IpAddr>, String> {
    let elsewhere = ends.is_none_or(|(_, there)| !there.is_loopback());
    let Some(first) = listens.next().map(|address| address.ip()) else {
        return Err("nobody listens yet; crrl cluster up".into());
    };
    match ends {
        _ if first.is_loopback() && elsewhere => Err(format!(
            "cluster.listen is the loopback address {first}; set it to one that is reached, such as \
             0.0.0.0:7411"
        )),
        _ if !first.is_unspecified() => Ok(None),
        Some((here, _)) => Ok(Some(here)),
        None => Err("it does not say by which address ssh came; set cluster.address".into()),
    }
}

impl Running {
    /// Until the node ends, or until it has left because it was asked to.
    async fn attend(self, told: impl Future<Output = ()>) -> Result<(), RemoteError> {
        let Self { machine, child, mut stdin } = self;
        let host = machine.host().to_owned();
        let mut ended = std::pin::pin!(child.wait());
        let mut signs = tokio::time::interval(SIGN_EVERY);
        let mut told = std::pin::pin!(told);
        let status = loop {
            tokio::select! {
                status = &mut ended => break status,
                // One that cannot be given is no matter: the node's end says so.
                _ = signs.tick() => drop(stdin.write_all(b"\n").await),
                () = &mut told => {
                    drop(stdin);
                    let left = tokio::time::timeout(LEAVE_TIMEOUT, &mut ended).await;
                    break match left {
                        Ok(status) => status,
                        Err(_) => {
                            tracing::warn!(host, "the node does not leave; it ends by itself");
                            return Ok(());
                        }
                    };
                }
            }
        };
        let outcome = match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(RemoteError::Ended { host, code: status.code().unwrap_or(1) }),
            Err(error) => Err(RemoteError::Broken { host, message: error.to_string() }),
        };
        machine.close().await;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_within_bounds_is_the_only_one_they_are_for() {
        assert_eq!(wrap(Bounds::default()), None);
        let script = wrap(Bounds { gpu: Some(3), memory_bytes: 256 << 20 }).expect("bounds");
        let output = std::process::Command::new("sh")
            .args([
                "-c",
                &script,
                "sh",
                "-c",
                "echo $CUDA_VISIBLE_DEVICES $(ulimit -d) \"$0\"",
                "a b",
            ])
            .output()
            .expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "3 262144 a b\n");
    }

    #[test]
    fn a_machine_reaches_this_one_where_ssh_came_from_or_where_it_listens() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let at = |listen: &str, ends| {
            let listens = [listen.parse().expect("an address")];
            reached_at(listens.into_iter(), ends)
        };
        let ends = Some((ip("10.0.0.5"), ip("10.0.0.9")));
        assert_eq!(at("0.0.0.0:7411", ends), Ok(Some(ip("10.0.0.5"))));
        assert_eq!(at("10.0.0.1:7411", ends), Ok(None));
        assert!(at("127.0.0.1:7411", ends).expect_err("elsewhere").contains("cluster.listen"));
        let same = Some((ip("127.0.0.1"), ip("127.0.0.1")));
        assert_eq!(at("127.0.0.1:7411", same), Ok(None));
        assert!(at("0.0.0.0:7411", None).expect_err("unknown").contains("cluster.address"));
    }
}
