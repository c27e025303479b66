//! One node in a container of this machine, from its image to its end: `host = "docker://IMAGE"`.
//!
//! The program is this very one, mounted into the container, so that any image will do that has a C
//! library of its age, git and a shell. The node is handed its token on its standard input and
//! leaves when that ends, as one that is started over ssh.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, DeviceRequest, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, CreateImageOptionsBuilder,
    InspectNetworkOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptions,
};
use crrl_config::{ClusterConfig, Node};
use crrl_types::{Digest, Host, HostPort, NodeName};
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::admission;
use crate::host::child::Bounds;
use crate::remote::phase::Phases;
use crate::remote::ssh::RemoteError;
use crate::remote::supervise::{LEAVE_TIMEOUT, SIGN_EVERY, TOKEN_GOOD_FOR};
use crate::run_dir::RunDir;

/// How a `host` begins that is a container.
const SCHEME: &str = "docker://";
/// Where the program is in the container.
const PROGRAM: &str = "/crrl/crrl";
/// Where the node's own files are, if nothing else is said.
const DIR: &str = "/crrl/node";
/// How long an image may take to be pulled.
const PULL_TIMEOUT: Duration = Duration::from_secs(600);
/// How long the engine may take to answer anything else.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a `docker://IMAGE?network=NAME` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    image: String,
    /// `host` shares this machine's network.
    network: String,
}

impl Place {
    /// Reads a `host`; `None` where it is no container.
    pub(crate) fn of(host: &str) -> Option<Self> {
        let rest = host.strip_prefix(SCHEME)?;
        let (image, network) = rest.split_once("?network=").unwrap_or((rest, "host"));
        Some(Self { image: image.to_owned(), network: network.to_owned() })
    }
}

/// Whether a node runs in a container of this machine's engine.
#[must_use]
pub fn is_container(node: &Node) -> bool {
    node.host.as_deref().and_then(Place::of).is_some()
}

/// A node's container that runs.
pub(crate) struct Running {
    docker: Docker,
    container: String,
    host: String,
    stdin: Pin<Box<dyn AsyncWrite + Send>>,
    output: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
}

/// The engine, if it answers.
async fn engine() -> Result<Docker, RemoteError> {
    reached(Docker::connect_with_defaults()).await
}

async fn reached(engine: Result<Docker, bollard::errors::Error>) -> Result<Docker, RemoteError> {
    let docker = engine.map_err(|error| {
        Refusal::of(&error).or(|error| {
            RemoteError::Setting(format!(
                "the Docker engine cannot be asked: {error}; start it, or set DOCKER_HOST"
            ))
        })
    })?;
    let answered = answer(docker.ping()).await;
    answered.map_err(|refusal| RemoteError::EngineAway(refusal.to_string()))?;
    Ok(docker)
}

/// What there is for a node that is to run in a container, in words; `None` if it is not to.
///
/// # Errors
/// [`RemoteError`]: the engine does not answer.
pub async fn look(node: &Node) -> Option<Result<String, RemoteError>> {
    let place = Place::of(node.host.as_deref()?)?;
    let look = async {
        let docker = engine().await?;
        let image = place.image.clone();
        Ok(match answer(docker.inspect_image(&image)).await {
            Ok(_) => format!("{}: the Docker engine answers, {image} is here", node.name),
            Err(_) => format!("{}: the Docker engine answers, {image} has to be pulled", node.name),
        })
    };
    Some(look.await)
}

/// Starts a node in a container.
///
/// # Errors
/// [`RemoteError`].
pub(crate) async fn start(
    run: &RunDir,
    config: &ClusterConfig,
    node: &Node,
    place: &Place,
    phases: &mut Phases,
) -> Result<Running, RemoteError> {
    let host = node.host.clone().unwrap_or_default();
    let setting = |message: String| RemoteError::Setting(message);
    phases.enter("connecting");
    let docker = engine().await?;
    match answer(docker.inspect_image(&place.image)).await {
        Ok(_) => {}
        Err(Refusal::Away(message)) => return Err(RemoteError::EngineAway(message)),
        Err(Refusal::Said(_)) => {
            phases.enter("pulling the image");
            pull(&docker, place).await?;
        }
    }
    phases.enter("joining");
    let address = address(&docker, config, run, place).await?;
    let name = NodeName::from(node.name.as_str());
    let hours = config.cluster.certificate_hours;
    let token = admission::token(run, &name, address.as_ref(), hours, TOKEN_GOOD_FOR)
        .map_err(|error| setting(error.to_string()))?;
    let broken = |message: String| RemoteError::Broken { host: host.clone(), message };
    let container = container_name(run, &node.name);
    // One that was left by a process that was killed.
    remove(&docker, &container).await;
    let body = body(run, config, node, place).map_err(setting)?;
    let options = CreateContainerOptionsBuilder::default().name(&container).build();
    let created = answer(docker.create_container(Some(options), body)).await;
    created.map_err(|refusal| refusal.or(broken))?;
    let attach = AttachContainerOptionsBuilder::default()
        .stream(true)
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .build();
    let attached = answer(docker.attach_container(&container, Some(attach))).await;
    let attached = attached.map_err(|refusal| refusal.or(broken))?;
    let started = answer(docker.start_container(&container, None::<StartContainerOptions>)).await;
    if let Err(refusal) = started {
        remove(&docker, &container).await;
        return Err(refusal.or(broken));
    }
    let (mut stdin, output) = (attached.input, attached.output);
    // Neither the command line nor the environment: both are shown to whoever may ask the engine.
    let line = format!("{token}\n");
    stdin.write_all(line.as_bytes()).await.map_err(|error| broken(error.to_string()))?;
    stdin.flush().await.map_err(|error| broken(error.to_string()))?;
    Ok(Running { docker, container, host, stdin, output })
}

impl Running {
    /// Until the node ends, or until it has left because it was asked to.
    pub(crate) async fn attend(self, told: impl Future<Output = ()>) -> Result<(), RemoteError> {
        let Self { docker, container, host, mut stdin, mut output } = self;
        let mut waits = docker.wait_container(&container, None::<WaitContainerOptions>).boxed();
        let mut signs = tokio::time::interval(SIGN_EVERY);
        let mut told = std::pin::pin!(told);
        let mut speaks = true;
        let code = loop {
            tokio::select! {
                line = output.next(), if speaks => match line {
                    Some(Ok(line)) => pass_on(line).await,
                    _ => speaks = false,
                },
                ended = waits.next() => break exit_code(ended),
                _ = signs.tick() => {
                    // One that cannot be given is no matter: the node's end says so.
                    drop(stdin.write_all(b"\n").await);
                    drop(stdin.flush().await);
                }
                () = &mut told => {
                    let _ = stdin.shutdown().await;
                    drop(stdin);
                    break match tokio::time::timeout(LEAVE_TIMEOUT, waits.next()).await {
                        Ok(ended) => exit_code(ended),
                        Err(_) => {
                            tracing::warn!(host, "the node does not leave; its container is removed");
                            Ok(0)
                        }
                    };
                }
            }
        };
        // What it said last.
        while let Ok(Some(Ok(line))) = tokio::time::timeout(LAST_WORDS, output.next()).await {
            pass_on(line).await;
        }
        remove(&docker, &container).await;
        match code {
            Ok(0) => Ok(()),
            Ok(code) => Err(RemoteError::Ended { host, code }),
            Err(message) => Err(RemoteError::Broken { host, message }),
        }
    }
}

/// How long a container's last lines may take.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What the node says goes where this process's words go: into its log.
async fn pass_on(line: LogOutput) {
    let _ = tokio::io::stderr().write_all(&line.into_bytes()).await;
}

type Ended = Option<Result<bollard::models::ContainerWaitResponse, bollard::errors::Error>>;

fn exit_code(ended: Ended) -> Result<i32, String> {
    match ended {
        Some(Ok(response)) => Ok(i32::try_from(response.status_code).unwrap_or(1)),
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => {
            Ok(i32::try_from(code).unwrap_or(1))
        }
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the engine no longer says how the container is".to_owned()),
    }
}

/// Why the engine has not done what it was asked.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// It is not there, or says nothing: it may be on its way back.
    #[error("{0}")]
    Away(String),
    /// It said why.
    #[error("{0}")]
    Said(String),
}

impl Refusal {
    fn of(error: &bollard::errors::Error) -> Self {
        use bollard::errors::Error::{
            HyperLegacyError, HyperResponseError, IOError, RequestTimeoutError, SocketNotFoundError,
        };
        match error {
            HyperLegacyError { .. }
            | HyperResponseError { .. }
            | IOError { .. }
            | RequestTimeoutError
            | SocketNotFoundError(_) => Self::Away(error.to_string()),
            _ => Self::Said(error.to_string()),
        }
    }

    /// As what became of a node; `said` is for what the engine said.
    fn or(self, said: impl FnOnce(String) -> RemoteError) -> RemoteError {
        match self {
            Self::Away(message) => RemoteError::EngineAway(message),
            Self::Said(message) => said(message),
        }
    }
}

/// An answer of the engine, within [`ANSWER_TIMEOUT`].
async fn answer<T>(
    asked: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(answered) => answered.map_err(|error| Refusal::of(&error)),
        Err(_) => Err(Refusal::Away(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}

async fn pull(docker: &Docker, place: &Place) -> Result<(), RemoteError> {
    let options = CreateImageOptionsBuilder::default().from_image(&place.image).build();
    let pulling = async {
        let mut steps = docker.create_image(Some(options), None, None).boxed();
        while let Some(step) = steps.next().await {
            step.map_err(|error| Refusal::of(&error))?;
        }
        Ok(())
    };
    let pulled = tokio::time::timeout(PULL_TIMEOUT, pulling).await;
    let pulled = pulled.unwrap_or_else(|_| Err(Refusal::Said("it took too long".to_owned())));
    pulled.map_err(|refusal| {
        refusal.or(|error| {
            RemoteError::Setting(format!(
                "there is no image {} here, and it cannot be pulled: {error}; docker build or docker \
                 pull makes it",
                place.image
            ))
        })
    })
}

async fn remove(docker: &Docker, container: &str) {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    // There may be none.
    let _ = answer(docker.remove_container(container, Some(options))).await;
}

/// Unique for the run's folder and the node, so that what was left is found again.
fn container_name(run: &RunDir, node: &str) -> String {
    let digest = Digest::of(run.path().as_os_str().as_encoded_bytes()).to_string();
    format!("crrl-{}-{node}", &digest[..8])
}

/// This machine as the container reaches it; none where it is the address it listens on.
async fn address(
    docker: &Docker,
    config: &ClusterConfig,
    run: &RunDir,
    place: &Place,
) -> Result<Option<Host>, RemoteError> {
    if let Ok(address) = config.cluster.address.parse() {
        return Ok(Some(address));
    }
    if place.network == "host" {
        return Ok(None);
    }
    let listens = run.addresses().map_err(|error| RemoteError::Setting(error.to_string()))?;
    if listens.values().any(HostPort::is_loopback) {
        return Err(RemoteError::Setting(format!(
            "a container on the network {} does not reach the loopback address that cluster.listen \
             is; set it to one that is reached, such as 0.0.0.0:7411, or take ?network=host",
            place.network
        )));
    }
    let network = answer(docker.inspect_network(&place.network, None::<InspectNetworkOptions>))
        .await
        .map_err(|refusal| {
            let name = &place.network;
            refusal.or(|error| RemoteError::Setting(format!("network {name}: {error}")))
        })?;
    let gateways = network.ipam.into_iter().flat_map(|ipam| ipam.config.unwrap_or_default());
    let gateway = gateways.filter_map(|config| config.gateway?.parse::<IpAddr>().ok()).next();
    gateway.map(|ip| Some(Host::Ip(ip))).ok_or_else(|| {
        RemoteError::Setting(format!(
            "the network {} has no gateway by which this machine is reached; set cluster.address",
            place.network
        ))
    })
}

/// What the engine is asked for.
fn body(
    run: &RunDir,
    config: &ClusterConfig,
    node: &Node,
    place: &Place,
) -> Result<ContainerCreateBody, String> {
    let program = match &node.binary {
        Some(binary) => absolute(binary)?,
        None => std::env::current_exe().map_err(|error| error.to_string())?,
    };
    let model = absolute(node.model.as_ref().unwrap_or(&config.model.path))?;
    let dir = node.dir.as_ref().map_or(DIR.to_owned(), |dir| dir.display().to_string());
    // Its own files outlive the container: a node counts its lives.
    let own = run.path().join("nodes").join(format!("{}.dir", node.name));
    std::fs::create_dir_all(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let (threads, model) = (node.threads.to_string(), model.display().to_string());
    let command = [
        PROGRAM,
        "node",
        "--join",
        "-",
        "--tied",
        "--threads",
        &threads,
        "--dir",
        &dir,
        "--model",
        &model,
    ];
    let bind = |from: &str, to: &str| format!("{from}:{to}:ro");
    let bounds = Bounds::of(node);
    Ok(ContainerCreateBody {
        image: Some(place.image.clone()),
        user: Some(format!("{uid}:{gid}")),
        entrypoint: Some(Vec::new()),
        cmd: Some(command.map(str::to_owned).to_vec()),
        open_stdin: Some(true),
        // Ends when this process does, however it ends.
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        labels: Some(HashMap::from([("crrl.node".to_owned(), node.name.clone())])),
        host_config: Some(HostConfig {
            binds: Some(vec![
                bind(&program.display().to_string(), PROGRAM),
                bind(&model, &model),
                format!("{}:{dir}", own.display()),
            ]),
            network_mode: Some(place.network.clone()),
            memory: memory_of(bounds),
            device_requests: (config.device_of(node) == "cuda").then(|| vec![request(bounds.gpu)]),
            init: Some(true),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

/// Bytes the engine lets a container have; none sets no bound.
fn memory_of(bounds: Bounds) -> Option<i64> {
    (bounds.memory_bytes > 0).then(|| i64::try_from(bounds.memory_bytes).unwrap_or(i64::MAX))
}

/// One GPU, by the driver's number: in the container it is the only one. Or all of them.
fn request(gpu: Option<u32>) -> DeviceRequest {
    DeviceRequest {
        driver: Some("nvidia".to_owned()),
        device_ids: gpu.map(|gpu| vec![gpu.to_string()]),
        count: gpu.is_none().then_some(-1),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    }
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_a_container_names_its_image_and_network() {
        let place = |image: &str, network: &str| {
            Some(Place { image: image.to_owned(), network: network.to_owned() })
        };
        let image = "registry:5000/debian:bookworm";
        assert_eq!(Place::of(&format!("docker://{image}")), place(image, "host"));
        assert_eq!(Place::of("docker://crrl?network=lab"), place("crrl", "lab"));
        assert_eq!(Place::of("me@box"), None);
    }

    #[tokio::test]
    async fn an_engine_that_is_away_may_come_back_and_one_that_is_none_does_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("docker.sock");
        let engine = || Docker::connect_with_host(&format!("unix://{}", socket.display()));
        let away = reached(engine()).await.expect_err("there is no socket");
        assert!(matches!(away, RemoteError::EngineAway(_)), "{away}");
        assert!(away.is_unreachable() && !away.is_hopeless(), "{away}");
        // The file of one that has ended is left.
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("can be bound"));
        let away = reached(engine()).await.expect_err("nobody listens");
        assert!(away.is_unreachable() && !away.is_hopeless(), "{away}");
        // It may also end between two questions.
        let docker = engine().expect("there is a socket");
        let refusal = answer(docker.inspect_image("debian")).await.expect_err("nobody listens");
        assert!(matches!(refusal, Refusal::Away(_)), "{refusal}");
        let place = Place::of("docker://debian").expect("a container");
        let pulled = pull(&docker, &place).await.expect_err("nobody listens");
        assert!(pulled.is_unreachable() && !pulled.is_hopeless(), "{pulled}");
        let none = reached(Docker::connect_with_host("smoke://signals")).await;
        assert!(none.expect_err("no such scheme").is_hopeless());
        let said = bollard::errors::Error::DockerResponseServerError {
            status_code: 404,
            message: "no such image".to_owned(),
        };
        assert!(matches!(Refusal::of(&said), Refusal::Said(_)));
    }

    /// What the engine is asked for, of a rollout node in a container.
    fn asked_for(change: fn(&mut Node)) -> ContainerCreateBody {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = ClusterConfig::default();
        config.model.path = "/models/small".into();
        let mut node = config.nodes().remove(2);
        node.host = Some("docker://debian".into());
        change(&mut node);
        let place = Place::of("docker://debian").expect("a container");
        body(&RunDir::new(folder.path()), &config, &node, &place).expect("paths")
    }

    #[test]
    fn the_token_is_in_neither_command_nor_environment_and_only_the_nodes_own_folder_is_writable() {
        let body = asked_for(|_| ());
        assert_eq!(body.env, None);
        let command = body.cmd.expect("a command").join(" ");
        assert!(command.contains("node --join - --tied"), "{command}");
        let binds = body.host_config.and_then(|host| host.binds).expect("program and model");
        let writable: Vec<&String> = binds.iter().filter(|bind| !bind.ends_with(":ro")).collect();
        assert!(matches!(writable[..], [own] if own.ends_with(":/crrl/node")), "{binds:?}");
        assert_eq!(body.stdin_once, Some(true));
    }

    #[test]
    fn a_container_has_the_memory_and_the_gpu_of_its_node() {
        let host = |change: fn(&mut Node)| asked_for(change).host_config.expect("settings");
        let free = host(|_| ());
        assert_eq!((free.memory, free.device_requests), (None, None));
        let bounded = host(|node| {
            (node.gpu, node.memory_mib, node.device) = (Some(2), 4096, Some("cuda".into()));
        });
        assert_eq!(bounded.memory, Some(4096 << 20));
        let [request] = &bounded.device_requests.expect("a GPU")[..] else { panic!("one") };
        assert_eq!((&request.device_ids, request.count), (&Some(vec!["2".to_owned()]), None));
        let all = host(|node| node.device = Some("cuda".into())).device_requests.expect("GPUs");
        assert_eq!((&all[0].device_ids, all[0].count), (&None, Some(-1)));
    }
}
