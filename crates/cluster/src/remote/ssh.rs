//! One machine: reaching it, and the program there.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crrl_config::{ClusterConfig, Node};
use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder, Stdio};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::remote::ABOUT_SUBCOMMAND;
use crate::remote::about::{About, digest};

/// How long ssh may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a command may take that only looks.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the program may take to be copied.
const COPY_TIMEOUT: Duration = Duration::from_secs(600);
/// Silence after which ssh asks whether the other side is there; it gives up after three.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Seconds ssh's own process stays when nobody uses it, should this one be killed.
const IDLE_S: NonZeroUsize = NonZeroUsize::new(15).expect("is not 0");
/// Bytes of the program that are sent at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Characters of what a machine says that are passed on.
const QUOTED_MAX: usize = 400;

/// Makes a file of the standard input, readable and runnable by its owner alone. `$0` is the folder,
/// `$1` the name. What was left there by a connection that broke is removed after an hour.
const UPLOAD: &str = "umask 077 && mkdir -p \"$0\" && find \"$0\" -name '.crrl.*' -mmin +60 -delete; \
                      cat > \"$0/$1\" && chmod 700 \"$0/$1\"";

/// What went wrong with a node on another machine.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The run's configuration, or a file here.
    #[error("{0}")]
    Setting(String),
    /// There is no ssh here.
    #[error("ssh cannot be run: {0}; install OpenSSH's client with the system's package manager")]
    NoSsh(std::io::Error),
    /// Nobody answers.
    #[error(
        "{host} cannot be reached by ssh: {message}; try it by hand: ssh {host} true, and see to the \
         host in [[node]], the name, the network"
    )]
    Unreachable {
        /// As it is configured.
        host: String,
        /// What ssh said.
        message: String,
    },
    /// The engine that runs containers does not answer.
    #[error("the Docker engine does not answer: {0}; start it, or set DOCKER_HOST")]
    EngineAway(String),
    /// Nobody vouches for the machine.
    #[error(
        "the host key of {host} is not known: {message}; compare it with the machine's own and \
         accept it once: ssh {host} (a key that has changed: ssh-keygen -R removes the old one)"
    )]
    HostKey {
        /// As it is configured.
        host: String,
        /// What ssh said.
        message: String,
    },
    /// The machine does not let us in.
    #[error(
        "{host} does not let this user in: {message}; ssh-copy-id {host} brings your key there, \
         ssh-add makes the agent hold it"
    )]
    Login {
        /// As it is configured.
        host: String,
        /// What ssh said.
        message: String,
    },
    /// The program cannot be copied, or does not run there.
    #[error("the program cannot be had on {host}: {message}")]
    Program {
        /// As it is configured.
        host: String,
        /// What was said.
        message: String,
    },
    /// The connection broke.
    #[error("the connection to {host} broke: {message}")]
    Broken {
        /// As it is configured.
        host: String,
        /// What ssh said.
        message: String,
    },
    /// The node ended.
    #[error("the node on {host} ended with exit code {code}")]
    Ended {
        /// As it is configured.
        host: String,
        /// See `crrl --help`.
        code: i32,
    },
}

impl RemoteError {
    /// Whether a person has to do something first.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::Setting(_) | Self::NoSsh(_) | Self::HostKey { .. } | Self::Login { .. } => true,
            Self::Program { .. } => true,
            Self::Unreachable { .. } | Self::EngineAway(_) | Self::Broken { .. } => false,
            // Usage or configuration, failed preflight.
            Self::Ended { code, .. } => matches!(code, 2 | 4),
        }
    }

    /// Whether nobody is there who could start the node: of a node that has run this says nothing.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::EngineAway(_))
    }
}

/// What ssh said when it did not connect, sorted by what is to be done about it.
fn connect_error(host: &str, text: &str) -> RemoteError {
    let (host, message) = (host.to_owned(), last_words(text));
    let says = |what: &str| text.contains(what);
    if says("Host key verification failed") || says("HOST IDENTIFICATION HAS CHANGED") {
        let changed = says("HOST IDENTIFICATION HAS CHANGED");
        let message = if changed { "it has CHANGED".into() } else { message };
        RemoteError::HostKey { host, message }
    } else if says("Permission denied") || says("Too many authentication failures") {
        RemoteError::Login { host, message }
    } else {
        RemoteError::Unreachable { host, message }
    }
}

/// The last line that says something.
fn last_words(text: &str) -> String {
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no reason");
    last.chars().take(QUOTED_MAX).collect()
}

/// The error and its causes.
fn chain(error: &openssh::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}\n{cause}");
        source = cause.source();
    }
    text
}

/// A machine that was reached.
#[derive(Debug)]
pub struct Machine {
    host: String,
    session: Arc<Session>,
    /// The folder of the node there, relative to the home folder where it does not begin with `/`.
    dir: String,
    /// The program here.
    binary: PathBuf,
}

impl Machine {
    /// Connects to the machine of a node.
    ///
    /// # Errors
    /// [`RemoteError`], within seconds.
    pub async fn connect(config: &ClusterConfig, node: &Node) -> Result<Self, RemoteError> {
        let host = node
            .host
            .clone()
            .ok_or_else(|| RemoteError::Setting(format!("node {} has no host", node.name)))?;
        let dir = Self::folder_of(node);
        let binary = match &node.binary {
            Some(path) => path.clone(),
            None => std::env::current_exe().map_err(|error| {
                RemoteError::Setting(format!("this program's own file cannot be found: {error}"))
            })?,
        };
        let mut builder = SessionBuilder::default();
        builder
            .known_hosts_check(KnownHosts::Strict)
            .connect_timeout(CONNECT_TIMEOUT)
            .server_alive_interval(ALIVE_EVERY)
            .control_directory(std::env::temp_dir())
            .control_persist(ControlPersist::IdleFor(IDLE_S));
        if !config.cluster.ssh_config.as_os_str().is_empty() {
            builder.config_file(&config.cluster.ssh_config);
        }
        let connecting = tokio::time::timeout(2 * CONNECT_TIMEOUT, builder.connect(&host)).await;
        match connecting {
            Ok(Ok(session)) => Ok(Self { host, session: Arc::new(session), dir, binary }),
            Ok(Err(openssh::Error::Connect(error)))
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                Err(RemoteError::NoSsh(error))
            }
            Ok(Err(error)) => Err(connect_error(&host, &chain(&error))),
            Err(_) => Err(connect_error(&host, "ssh did not get anywhere in time")),
        }
    }

    /// As it is configured.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The session, for a command that goes on.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session)
    }

    /// The folder of a node on its machine, relative to the home folder where it does not begin
    /// with `/`.
    #[must_use]
    pub fn folder_of(node: &Node) -> String {
        match &node.dir {
            Some(dir) => dir.display().to_string(),
            None => format!("crrl/{}", node.name),
        }
    }

    pub(crate) fn dir(&self) -> &str {
        &self.dir
    }

    /// Where the program is there.
    pub(crate) fn program(&self) -> String {
        format!("{}/bin/crrl", self.dir)
    }

    fn broken(&self, message: &str) -> RemoteError {
        RemoteError::Broken { host: self.host.clone(), message: last_words(message) }
    }

    fn refused(&self, message: impl Into<String>) -> RemoteError {
        RemoteError::Program { host: self.host.clone(), message: message.into() }
    }

    /// What the program there says of itself; none where there is no program that can say it.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn about(&self, more: &[&str]) -> Result<Option<About>, RemoteError> {
        Ok(self.ask(&self.program(), more).await?.ok())
    }

    /// As [`Machine::about`], of a program by its path; what it said instead where it does not.
    async fn ask(
        &self,
        program: &str,
        more: &[&str],
    ) -> Result<Result<About, String>, RemoteError> {
        let mut command = self.session.command(program);
        let asking = async {
            let output = command.arg(ABOUT_SUBCOMMAND).args(more).output().await;
            match output {
                Ok(output) => Ok(serde_json::from_slice(&output.stdout).map_err(|error| {
                    let said = String::from_utf8_lossy(&output.stderr);
                    if said.trim().is_empty() { error.to_string() } else { last_words(&said) }
                })),
                Err(openssh::Error::Remote(error)) => Ok(Err(error.to_string())),
                Err(error) => Err(self.broken(&chain(&error))),
            }
        };
        tokio::time::timeout(LOOK_TIMEOUT, asking)
            .await
            .unwrap_or_else(|_| Err(self.broken("a command took too long")))
    }

    /// The digest of the program that is to be there.
    ///
    /// # Errors
    /// Its file here cannot be read.
    pub fn wanted(&self) -> Result<String, RemoteError> {
        digest(&self.binary).map_err(|error| {
            RemoteError::Setting(format!("cannot read {}: {error}", self.binary.display()))
        })
    }

    /// Copies the program there and sees that it runs. It is moved to its place whole.
    ///
    /// # Errors
    /// [`RemoteError`], with what to do about it.
    pub(crate) async fn copy(&self, wanted: &str) -> Result<About, RemoteError> {
        let name = format!(".crrl.{}.{}", &wanted[..wanted.len().min(12)], std::process::id());
        let bin = format!("{}/bin", self.dir);
        let upload = tokio::time::timeout(COPY_TIMEOUT, self.upload(&bin, &name)).await;
        upload.map_err(|_| self.broken("the program took too long to be copied"))??;
        let temporary = format!("{bin}/{name}");
        let about = match self.ask(&temporary, &[]).await? {
            Ok(about) if about.digest == wanted => about,
            Ok(_) => return Err(self.refused("another file arrived than was sent; try again")),
            Err(said) => {
                return Err(self.refused(format!(
                    "{} does not run there ({said}): say binary = \"FILE\" in its [[node]], with a \
                     build for that machine",
                    self.binary.display()
                )));
            }
        };
        self.succeeds("mv", &["-f", &temporary, &self.program()]).await?;
        Ok(about)
    }

    async fn upload(&self, bin: &str, name: &str) -> Result<(), RemoteError> {
        let read = |error: std::io::Error| {
            RemoteError::Setting(format!("cannot read {}: {error}", self.binary.display()))
        };
        let mut file = tokio::fs::File::open(&self.binary).await.map_err(read)?;
        let mut child = self
            .session
            .command("sh")
            .args(["-c", UPLOAD, bin, name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .await
            .map_err(|error| self.broken(&chain(&error)))?;
        let mut stdin = child.stdin().take().ok_or_else(|| self.broken("no standard input"))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let sent = loop {
            match file.read(&mut chunk).await.map_err(read)? {
                0 => break Ok(()),
                len => {
                    if let Err(error) = stdin.write_all(&chunk[..len]).await {
                        break Err(error);
                    }
                }
            }
        };
        drop(stdin);
        // A full disk there ends the command, and with it our writing: its own words say more.
        let output = child.wait_with_output().await.map_err(|e| self.broken(&chain(&e)))?;
        if !output.status.success() {
            let said = last_words(&String::from_utf8_lossy(&output.stderr));
            return Err(self.refused(format!("it cannot be written to {bin}: {said}")));
        }
        sent.map_err(|error| self.broken(&error.to_string()))
    }

    async fn succeeds(&self, program: &str, arguments: &[&str]) -> Result<(), RemoteError> {
        let mut command = self.session.command(program);
        let running = command.args(arguments).output();
        let output = tokio::time::timeout(LOOK_TIMEOUT, running)
            .await
            .map_err(|_| self.broken("a command took too long"))?
            .map_err(|error| self.broken(&chain(&error)))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(self.refused(last_words(&String::from_utf8_lossy(&output.stderr)))),
        }
    }

    /// What the program there answers; none where there is none, or it does not know the question.
    ///
    /// # Errors
    /// The connection broke, or it takes too long.
    pub async fn answer(&self, arguments: &[&str]) -> Result<Option<Vec<u8>>, RemoteError> {
        self.output_of(&self.program(), arguments).await
    }

    /// What a script tells that `sh` runs there with these arguments; none where it fails.
    ///
    /// # Errors
    /// The connection broke, or it takes too long.
    pub async fn script(
        &self,
        script: &str,
        arguments: &[&str],
    ) -> Result<Option<Vec<u8>>, RemoteError> {
        let all: Vec<&str> =
            ["-c", script, "crrl"].into_iter().chain(arguments.iter().copied()).collect();
        self.output_of("sh", &all).await
    }

    async fn output_of(
        &self,
        program: &str,
        arguments: &[&str],
    ) -> Result<Option<Vec<u8>>, RemoteError> {
        let mut command = self.session.command(program);
        let running = command.args(arguments).stdin(Stdio::null()).output();
        let output = tokio::time::timeout(LOOK_TIMEOUT, running)
            .await
            .map_err(|_| self.broken("a command took too long"))?;
        match output {
            Ok(output) => Ok(output.status.success().then_some(output.stdout)),
            Err(openssh::Error::Remote(_)) => Ok(None),
            Err(error) => Err(self.broken(&chain(&error))),
        }
    }

    /// Whether a folder is there.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn has_folder(&self, path: &Path) -> Result<bool, RemoteError> {
        let mut command = self.session.command("test");
        let output = command.arg("-d").arg(path.display().to_string()).output().await;
        output.map(|o| o.status.success()).map_err(|error| self.broken(&chain(&error)))
    }

    /// Leaves.
    pub async fn close(self) {
        // Whoever is gone already need not be told.
        if let Some(session) = Arc::into_inner(self.session) {
            let _ = tokio::time::timeout(ALIVE_EVERY, session.close()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_is_sorted_by_what_to_do() {
        let error = |text: &str| connect_error("me@box", text);
        let unknown = error(
            "failed to connect to the remote host\nNo ED25519 host key is known for box and you \
             have requested strict checking.\nHost key verification failed.",
        );
        assert!(matches!(unknown, RemoteError::HostKey { .. }) && unknown.is_hopeless());
        assert!(unknown.to_string().contains("ssh me@box"), "{unknown}");
        let login = error("me@box: Permission denied (publickey).");
        assert!(matches!(login, RemoteError::Login { .. }) && login.is_hopeless());
        assert!(login.to_string().contains("ssh-copy-id me@box"), "{login}");
        let dead = error("connect to host box port 22: Connection refused");
        assert!(matches!(dead, RemoteError::Unreachable { .. }) && !dead.is_hopeless());
        assert!(dead.is_unreachable() && !login.is_unreachable());
        assert!(dead.to_string().contains("Connection refused"), "{dead}");
    }
}
