//! Machines that nodes are started on over ssh.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crrl_cluster::remote::about::{Echo, clock_ms};
use crrl_cluster::remote::supervise::reached_at;
use crrl_cluster::remote::{About, Machine, RemoteError, look_at_container};
use crrl_cluster::{RunDir, host};
use crrl_config::{ClusterConfig, Node};
use crrl_transport::Protocols;
use futures::future::join_all;

use super::Check;
use crate::run::absolute;

/// Clocks that differ by more make times in logs and events misleading.
const SKEW_WARNED_MS: u64 = 2_000;
/// Clocks that differ by more come near to how long certificates are valid.
const SKEW_MAX_MS: u64 = 3_600_000;

/// Every machine at the same time; nothing where no node has a host.
pub(super) fn checks(config: &ClusterConfig) -> Vec<Check> {
    let nodes: Vec<Node> = config.nodes().into_iter().filter(|node| node.host.is_some()).collect();
    if nodes.is_empty() {
        return Vec::new();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return vec![Check::bad("ssh", error.to_string(), "see to the system's limits")];
        }
    };
    let run = RunDir::new(absolute(&config.run.dir));
    let up = host::host_pid(&run).ok().flatten().is_some();
    let listen = config.cluster.listen.parse().ok().filter(|_| !up);
    let echo = listen.and_then(|address: SocketAddr| Echo::open(address).ok());
    let at = echo.as_ref().map(Echo::address);
    let all = nodes.iter().map(|node| machine(config, node, at, up));
    runtime.block_on(join_all(all)).into_iter().flatten().collect()
}

async fn machine(
    config: &ClusterConfig,
    node: &Node,
    echo: Option<SocketAddr>,
    up: bool,
) -> Vec<Check> {
    const NAME: &str = "ssh";
    match look_at_container(node).await {
        Some(Ok(found)) => return vec![Check::good("docker", found)],
        Some(Err(error)) => return vec![failed("docker", node, &error)],
        None => {}
    }
    let machine = match Machine::connect(config, node).await {
        Ok(machine) => machine,
        Err(error) => return vec![failed(NAME, node, &error)],
    };
    let reached =
        format!("{} on {}: its host key is known, this user is let in", node.name, machine.host());
    let mut checks = vec![Check::good(NAME, reached)];
    match look(config, node, &machine, echo, up).await {
        Ok(more) => checks.extend(more),
        Err(error) => checks.push(failed(NAME, node, &error)),
    }
    machine.close().await;
    checks
}

/// Errors of ssh say last what to do.
fn failed(name: &'static str, node: &Node, error: &RemoteError) -> Check {
    let text = error.to_string();
    let (found, fix) = text.rsplit_once("; ").unwrap_or((&text, "try again"));
    Check::bad(name, format!("{}: {found}", node.name), fix)
}

async fn look(
    config: &ClusterConfig,
    node: &Node,
    machine: &Machine,
    echo: Option<SocketAddr>,
    up: bool,
) -> Result<Vec<Check>, RemoteError> {
    let mut checks = vec![model(config, node, machine).await?];
    let gpu = config.device_of(node) == "cuda";
    let before = clock_ms();
    let about = machine.about(if gpu { &["--gpu"] } else { &[] }).await?;
    let after = clock_ms();
    let wanted = machine.wanted()?;
    checks.push(program(node, about.as_ref(), &wanted));
    let Some(about) = about else { return Ok(checks) };
    checks.push(clock(node, about.clock_ms, before, after));
    if let Some(gpu) = &about.gpu {
        checks.push(driver(node, gpu));
    }
    if !up {
        checks.push(udp(config, node, machine, &about, echo).await?);
    }
    Ok(checks)
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
    let address: Result<Option<IpAddr>, String> = match config.cluster.address.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => reached_at([echo].into_iter(), about.ssh_ends()),
    };
    let address = match address {
        Ok(address) => SocketAddr::new(address.unwrap_or(echo.ip()), echo.port()),
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
