//! Starts sandboxes on this machine. Holds no sandbox itself.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::error::{OpenError, SandboxError, Unavailable};
use crate::frame::{self, Answer, Response, Setup};
use crate::launcher::SUBCOMMAND;
use crate::options::Options;
use crate::sandbox::Sandbox;
use crate::template::Template;

/// Time a sandbox may take to be ready; it takes milliseconds.
const READY_TIME_MAX: Duration = Duration::from_secs(10);

/// Sandboxes out of Linux namespaces.
#[derive(Debug, Clone)]
pub struct LocalBackend {
    options: Options,
    launcher: PathBuf,
    isolated: bool,
}

impl LocalBackend {
    /// Opens and closes one empty sandbox to see that every layer is there, blocking (some
    /// 10 ms).
    ///
    /// # Errors
    /// Which layer is missing, and how to enable it.
    pub fn new(options: Options) -> Result<Self, Unavailable> {
        let launcher = match &options.launcher {
            Some(path) => path.clone(),
            None => std::env::current_exe().map_err(|error| Unavailable::Launcher {
                program: "(the running program)".to_owned(),
                reason: error.to_string(),
            })?,
        };
        let backend = Self { options, launcher, isolated: true };
        match backend.probe() {
            Ok(()) => Ok(backend),
            Err(Unavailable::Layer { layer, reason, .. })
                if backend.options.run_without_isolation =>
            {
                tracing::warn!(layer, reason, "NO ISOLATION: the policy's commands run as you");
                Ok(Self { isolated: false, ..backend })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether sandboxes have walls; without, `run_without_isolation` was asked for.
    #[must_use]
    pub fn isolated(&self) -> bool {
        self.isolated
    }

    /// Opens a sandbox with the template's repository in it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn open(&self, template: &Arc<Template>) -> Result<Sandbox, OpenError> {
        let image = template.open_image().map_err(OpenError::Spawn)?;
        let folder = match self.isolated {
            true => None,
            false => Some(
                tempfile::Builder::new()
                    .prefix("crrl-open-")
                    .tempdir()
                    .map_err(OpenError::Spawn)?,
            ),
        };
        let open_folder = folder.as_ref().map(|folder| folder.path().display().to_string());
        let (mut ours, theirs) = UnixStream::pair().map_err(OpenError::Spawn)?;
        let mut command = tokio::process::Command::from(self.command(theirs.into(), image));
        let child = command.kill_on_drop(true).spawn().map_err(OpenError::Spawn)?;
        // The command holds our copy of the other end, which must not stay open.
        drop(command);
        let setup = Setup { limits: self.options.limits.clone(), open_folder };
        frame::write(&mut ours, &setup, &[]).map_err(OpenError::Spawn)?;
        ours.set_nonblocking(true).map_err(OpenError::Spawn)?;
        let stream = tokio::net::UnixStream::from_std(ours).map_err(OpenError::Spawn)?;
        let limits = self.options.limits.clone();
        let mut sandbox = Sandbox::new(child, stream, Arc::clone(template), limits, folder);
        let ready = timeout(READY_TIME_MAX, sandbox.greeting()).await;
        match ready.map_err(|_| SandboxError::Timeout(READY_TIME_MAX))?? {
            Answer::Ready => Ok(sandbox),
            other => Err(refusal(&self.launcher, other).into()),
        }
    }

    fn command(&self, stream: OwnedFd, image: File) -> Command {
        let mut command = Command::new(&self.launcher);
        command.arg(SUBCOMMAND).env_clear().stdin(stream).stdout(image).stderr(Stdio::null());
        command
    }

    fn probe(&self) -> Result<(), Unavailable> {
        let fail = |reason: String| Unavailable::Launcher {
            program: self.launcher.display().to_string(),
            reason,
        };
        let failed = |error: std::io::Error| fail(error.to_string());
        let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_read_timeout(Some(READY_TIME_MAX)).map_err(failed)?;
        let empty = File::open("/dev/null").map_err(failed)?;
        let mut command = self.command(theirs.into(), empty);
        let mut child = command.spawn().map_err(failed)?;
        drop(command);
        let setup = Setup { limits: self.options.limits.clone(), open_folder: None };
        let asked = frame::encode(&setup, &[]).and_then(|frame| ours.write_all(&frame));
        let answer = asked.and_then(|()| frame::read::<Response>(&mut ours));
        drop(ours);
        // It ends by itself as the stream is closed; killing only makes sure.
        let _ = child.kill();
        let _ = child.wait();
        match answer {
            Ok(Some((Response { answer: Answer::Ready, .. }, _))) => Ok(()),
            Ok(Some((Response { answer, .. }, _))) => Err(refusal(&self.launcher, answer)),
            // It may close the stream before or after it was written to.
            Ok(None) => Err(fail(mute())),
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
            {
                Err(fail(mute()))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

fn mute() -> String {
    format!(
        "it ended without a word; it has to call `launcher::main` when its first argument is \
         `{SUBCOMMAND}`"
    )
}

fn refusal(launcher: &std::path::Path, answer: Answer) -> Unavailable {
    match answer {
        Answer::Refused { layer, reason } => Unavailable::layer(&layer, reason),
        other => Unavailable::Launcher {
            program: launcher.display().to_string(),
            reason: format!("it greeted with {other:?}"),
        },
    }
}
