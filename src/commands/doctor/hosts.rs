//! Machines that nodes are started on over ssh.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crrl_cluster::remote::about::{Echo, clock_ms};
use crrl_cluster::remote::supervise::reached_at;
use crrl_cluster::remote::{About, Machine, RemoteError, is_container, look_at_container};
use crrl_cluster::{RunDir, host};
use crrl_config::{ClusterConfig, Node};
use crrl_transport::Protocols;
use crrl_types::Host;
use futures::StreamExt as _;

use super::Check;
use super::facts::{Facts, SCRIPT};
use super::machine::{Place, judge};
use super::run::{memory, weights_bytes};
use crate::commands::failure::quoted;
use crate::run::absolute;

/// Clocks that differ by more make times in logs and events misleading.
const SKEW_WARNED_MS: u64 = 2_000;
/// Clocks that differ by more come near to how long certificates are valid.
const SKEW_MAX_MS: u64 = 3_600_000;
/// How long everything may take that is asked of one machine.
const MACHINE_TIMEOUT: Duration = Duration::from_secs(60);
/// Machines that are looked at at once: each takes a few processes of ssh here.
const AT_ONCE: usize = 32;
/// Name of the check of the connection.
const SSH: &str = "ssh";
/// Name of the check that fails where a machine does not say what it has.
const EQUIPMENT: &str = "machine there";

/// Machines at the same time; nothing where no node has a host.
pub(super) fn checks(config: &ClusterConfig) -> Vec<Check> {
    let nodes: Vec<Node> = config.nodes().into_iter().filter(|node| node.host.is_some()).collect();
    if nodes.is_empty() {
        return Vec::new();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return vec![Check::bad(SSH, error.to_string(), "see to the system's limits")];
        }
    };
    let run = RunDir::new(absolute(&config.run.dir));
    let up = host::host_pid(&run).ok().flatten().is_some();
    let listen = config.cluster.listen.parse().ok().filter(|_| !up);
    let echo = listen.and_then(|address: SocketAddr| Echo::open(address).ok());
    let at = echo.as_ref().map(Echo::address);
    let asked = Asked { config, nodes: &nodes, echo: at, up };
    let all = nodes.iter().map(|node| bounded(&asked, node));
    let all = futures::stream::iter(all).buffered(AT_ONCE).collect::<Vec<_>>();
    runtime.block_on(all).into_iter().flatten().collect()
}

/// What is asked of every machine.
struct Asked<'a> {
    config: &'a ClusterConfig,
    /// Every node that has a host.
    nodes: &'a [Node],
    /// Where packets are sent back, if that could be opened.
    echo: Option<SocketAddr>,
    /// Whether the run is up.
    up: bool,
}

impl Asked<'_> {
    /// The nodes on one machine, if this is the first of them: a machine is looked at once.
    fn beside(&self, node: &Node) -> Option<Vec<Node>> {
        let same = self.nodes.iter().filter(|other| other.host == node.host);
        let same: Vec<Node> = same.cloned().collect();
        same.first().is_some_and(|first| first.name == node.name).then_some(same)
    }
}

/// What was found of a node's machine within its time.
async fn bounded(asked: &Asked<'_>, node: &Node) -> Vec<Check> {
    let host = node.host.as_deref().unwrap_or_default();
    let mut checks = Vec::new();
    let looking = Box::pin(machine(asked, node, &mut checks));
    let late = tokio::time::timeout(MACHINE_TIMEOUT, looking).await.is_err();
    if late {
        let seconds = MACHINE_TIMEOUT.as_secs();
        let found = format!("{}: {host} has not answered everything in {seconds} s", node.name);
        let fix = format!("see what keeps it: ssh {} uptime, and the network", quoted(host));
        checks.push(Check::bad(SSH, found, fix));
    }
    if is_container(node) {
        return checks;
    }
    checks.into_iter().map(|check| check.on(host)).collect()
}

async fn machine(asked: &Asked<'_>, node: &Node, checks: &mut Vec<Check>) {
    match look_at_container(node).await {
        Some(Ok(found)) => return checks.push(Check::good("docker", found)),
        Some(Err(error)) => return checks.push(failed("docker", node, &error)),
        None => {}
    }
    let machine = match Machine::connect(asked.config, node).await {
        Ok(machine) => machine,
        Err(error) => return checks.push(failed(SSH, node, &error)),
    };
    let reached =
        format!("{} on {}: its host key is known, this user is let in", node.name, machine.host());
    checks.push(Check::good(SSH, reached));
    if let Err(error) = look(asked, node, &machine, checks).await {
        checks.push(failed(SSH, node, &error));
    }
    machine.close().await;
}

/// Errors of ssh say last what to do.
fn failed(name: &str, node: &Node, error: &RemoteError) -> Check {
    let text = error.to_string();
    let (found, fix) = text.rsplit_once("; ").unwrap_or((&text, "try again"));
    Check::bad(name, format!("{}: {found}", node.name), fix)
}

async fn look(
    asked: &Asked<'_>,
    node: &Node,
    machine: &Machine,
    checks: &mut Vec<Check>,
) -> Result<(), RemoteError> {
    let Asked { config, echo, up, .. } = *asked;
    checks.push(model(config, node, machine).await?);
    let gpu = config.device_of(node) == "cuda";
    let before = clock_ms();
    let about = machine.about(if gpu { &["--gpu"] } else { &[] }).await?;
    let after = clock_ms();
    let wanted = machine.wanted()?;
    checks.push(program(node, about.as_ref(), &wanted));
    if let Some(nodes) = asked.beside(node) {
        let same = about.as_ref().is_some_and(|about| about.digest == wanted);
        let cuda = nodes.iter().any(|node| config.device_of(node) == "cuda");
        match facts(machine, &nodes, same, cuda && about.is_none()).await {
            Ok(facts) => checks.extend(equipment(config, node, machine, &nodes, facts.as_ref())),
            // What is asked next may be answered all the same.
            Err(error) => checks.push(failed(EQUIPMENT, node, &error)),
        }
    }
    let Some(about) = about else { return Ok(()) };
    checks.push(clock(node, about.clock_ms, before, after));
    if let Some(gpu) = &about.gpu {
        checks.push(driver(node, gpu));
    }
    if !up {
        checks.push(udp(config, node, machine, &about, echo).await?);
    }
    Ok(())
}

/// What the machine has: by the program there, if it is the one that is to be there, else by `sh`.
/// None where neither tells.
async fn facts(
    machine: &Machine,
    nodes: &[Node],
    program: bool,
    gpu: bool,
) -> Result<Option<Facts>, RemoteError> {
    let folders: Vec<String> = nodes.iter().map(Machine::folder_of).collect();
    if program {
        let mut arguments = vec!["doctor", "--this-machine"];
        arguments.extend(folders.iter().flat_map(|folder| ["--folder", folder.as_str()]));
        let said = machine.answer(&arguments).await?;
        if let Some(facts) = said.and_then(|said| serde_json::from_slice(&said).ok()) {
            return Ok(Some(facts));
        }
    }
    let mut arguments = vec![if gpu { "1" } else { "0" }];
    arguments.extend(folders.iter().map(String::as_str));
    let told = machine.script(SCRIPT, &arguments).await?;
    Ok(told.and_then(|told| Facts::told(&String::from_utf8_lossy(&told))))
}

/// The same checks as of this machine, for every node that is to run there.
fn equipment(
    config: &ClusterConfig,
    node: &Node,
    machine: &Machine,
    nodes: &[Node],
    facts: Option<&Facts>,
) -> Vec<Check> {
    let host = machine.host();
    let Some(facts) = facts else {
        let found = format!("{host}: it does not say what it has");
        let fix =
            format!("see that the login shell there can run sh: ssh {} sh -c id", quoted(host));
        return vec![Check::bad(EQUIPMENT, found, fix)];
    };
    let mut checks = judge(config, facts, nodes, Place::There);
    // The files there are the same: that is what the check of the model is for.
    let weights = weights_bytes(&config.model.path);
    if weights > 0 {
        checks.push(memory(config, nodes, weights, facts.free_bytes()));
    }
    let mut checks: Vec<Check> = checks.into_iter().map(|check| check.there(host)).collect();
    checks.extend(facts.gpu.as_ref().map(|gpu| driver(node, gpu)));
    checks
}

async fn model(
    config: &ClusterConfig,
    node: &Node,
    machine: &Machine,
) -> Result<Check, RemoteError> {
    const NAME: &str = "model there";
    let path: PathBuf = node.model.clone().unwrap_or_else(|| absolute(&config.model.path));
    let found = format!("{}: {}", node.name, path.display());
    Ok(match machine.has_folder(&path).await? {
        true => Check::good(NAME, found),
        false => Check::bad(
            NAME,
            format!("{found} is not there"),
            format!(
                "copy the run's model there (scp -r {} {}:), or say model = \"PATH\" in its [[node]]",
                Path::new(&config.model.path).display(),
                machine.host()
            ),
        ),
    })
}

fn program(node: &Node, about: Option<&About>, wanted: &str) -> Check {
    const NAME: &str = "program there";
    let name = &node.name;
    let fix = "nothing: `crrl cluster up` copies this one";
    match about {
        None => Check::warning(NAME, format!("{name}: not there yet"), fix),
        Some(about) if about.digest == wanted => {
            let About { version, protocols, .. } = about;
            Check::good(NAME, format!("{name}: this one ({version}, protocol {protocols})"))
        }
        Some(About { version, protocols, .. }) => {
            let ours = Protocols::default();
            let found = format!(
                "{name}: another build ({version}, protocol {protocols}; this one speaks {ours})"
            );
            Check::warning(NAME, found, fix)
        }
    }
}

/// How far a clock that was read between two moments here is from the nearest of them.
fn skew_ms(there: u64, before: u64, after: u64) -> u64 {
    there.abs_diff(there.clamp(before, after.max(before)))
}

fn clock(node: &Node, there: u64, before: u64, after: u64) -> Check {
    const NAME: &str = "clock there";
    let skew = skew_ms(there, before, after);
    let found = format!("{}: {:.1} s from this one", node.name, skew as f64 / 1e3);
    let fix = "let both machines keep time (chrony, systemd-timesyncd)";
    if skew <= SKEW_WARNED_MS {
        Check::good(NAME, found)
    } else if skew <= SKEW_MAX_MS {
        Check::warning(NAME, found, fix)
    } else {
        Check::bad(NAME, format!("{found}; certificates would be refused"), fix)
    }
}

fn driver(node: &Node, gpu: &Result<String, String>) -> Check {
    const NAME: &str = "GPU there";
    match gpu {
        Ok(devices) => Check::good(NAME, format!("{}: {devices}", node.name)),
        Err(error) => {
            Check::bad(NAME, format!("{}: {error}", node.name), "install NVIDIA's driver there")
        }
    }
}

async fn udp(
    config: &ClusterConfig,
    node: &Node,
    machine: &Machine,
    about: &About,
    echo: Option<SocketAddr>,
) -> Result<Check, RemoteError> {
    const NAME: &str = "UDP both ways";
    let name = &node.name;
    let Some(echo) = echo else {
        let found = format!("{name}: {} cannot be opened here", config.cluster.listen);
        return Ok(Check::bad(NAME, found, "see the check of the port"));
    };
    let host: Result<Option<Host>, String> = match config.cluster.address.parse() {
        Ok(host) => Ok(Some(host)),
        Err(_) => reached_at([echo].into_iter(), about.ssh_ends()).map(|ip| ip.map(Host::Ip)),
    };
    let address = match host {
        Ok(host) => host.unwrap_or(Host::Ip(echo.ip())).with_port(echo.port()),
        Err(why) => return Ok(Check::bad(NAME, format!("{name} cannot reach this machine"), why)),
    };
    let about = machine.about(&["--reach", &address.to_string()]).await?;
    Ok(match about.and_then(|about| about.reached) {
        Some(Ok(ms)) => Check::good(NAME, format!("{name}: {address} and back in {ms:.1} ms")),
        other => {
            let why = other.and_then(Result::err).unwrap_or("it was not tried".into());
            Check::bad(
                NAME,
                format!("{name}: {address} and back: {why}"),
                format!(
                    "let UDP through to port {} of this machine (firewall, security group), or set \
                     cluster.address to the address {name} reaches it at",
                    address.port()
                ),
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_counts_as_right_where_the_answer_may_have_taken_as_long() {
        assert_eq!(skew_ms(150, 100, 200), 0);
        assert_eq!(skew_ms(90, 100, 200), 10);
        assert_eq!(skew_ms(260, 100, 200), 60);
    }
}
