//! The machine, whatever is run on it.

use std::net::UdpSocket;
use std::process::Command;

use crrl_actors::settings;
use crrl_config::ClusterConfig;
use crrl_sandbox::LocalBackend;
use nix::sys::resource::{Resource, getrlimit};

use super::Check;

/// Open files one node may need: sockets, logs, and pipes of every episode's tools.
const FILES_MIN: u64 = 1024;

pub(super) fn checks(config: &ClusterConfig) -> Vec<Check> {
    let mut checks: Vec<Check> = [
        ("git", "every episode works in a git repository"),
        ("bash", "the agent's shell"),
        ("grep", "how policies read code"),
    ]
    .into_iter()
    .map(|(program, why)| program_is_there(program, why))
    .collect();
    checks.push(isolation(config));
    checks.push(files());
    checks.push(cores(config));
    checks.push(udp());
    let nodes = config.nodes();
    if nodes.iter().any(|node| node.is_local() && config.device_of(node) == "cuda") {
        checks.push(cuda());
    }
    checks
}

fn program_is_there(program: &'static str, why: &str) -> Check {
    let fix = format!("install {program} ({why}) with the system's package manager");
    match Command::new(program).arg("--version").output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Check::good(program, text.lines().next().unwrap_or_default().trim())
        }
        Ok(output) => Check::bad(program, format!("it ends with {}", output.status), fix),
        Err(error) => Check::bad(program, error.to_string(), fix),
    }
}

fn isolation(config: &ClusterConfig) -> Check {
    const NAME: &str = "isolation";
    let mut options = settings::sandbox(&config.sandbox);
    options.run_without_isolation = false;
    match LocalBackend::new(options) {
        Ok(_) => Check::good(NAME, "namespaces, limits and a private root can be had"),
        Err(error) if config.sandbox.run_without_isolation => Check::warning(
            NAME,
            format!("{error}"),
            "sandbox.run_without_isolation is set: what the policy types is run as you",
        ),
        Err(error) => Check::bad(
            NAME,
            error.to_string(),
            "mend that, or set sandbox.run_without_isolation = true where nothing can be harmed",
        ),
    }
}

fn files() -> Check {
    const NAME: &str = "open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft >= FILES_MIN => Check::good(NAME, format!("{soft} allowed")),
        Ok((soft, hard)) => Check::warning(
            NAME,
            format!("{soft} allowed, {FILES_MIN} may be needed"),
            format!("ulimit -n {}", hard.min(65_536)),
        ),
        Err(error) => Check::warning(NAME, error.to_string(), "the limit cannot be read"),
    }
}

fn cores(config: &ClusterConfig) -> Check {
    const NAME: &str = "cores";
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let nodes = config.nodes();
    let threads: usize = nodes
        .iter()
        .filter(|node| node.is_local())
        .map(|node| if node.threads == 0 { cores } else { node.threads })
        .sum();
    // The learner takes them all while the others sample: twice over is how it is meant.
    if threads <= 3 * cores {
        return Check::good(
            NAME,
            format!("{cores}, for {threads} threads of {} nodes", nodes.len()),
        );
    }
    Check::warning(
        NAME,
        format!("{cores}, for {threads} threads of {} nodes", nodes.len()),
        "fewer rollout nodes or threads: they only wait for one another",
    )
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
