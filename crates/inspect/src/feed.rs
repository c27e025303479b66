//! Frames of a running cluster. Newest only: a viewer that does not look misses some and delays none.

use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crrl_cluster::host::{self, NodeProcess};
use crrl_cluster::operator::Subscription;
use crrl_cluster::{OperatorClient, OperatorError, RunDir};
use tokio::sync::watch;

use crate::error::InspectError;
use crate::frame::{Frame, Link};

/// First wait before a coordinator that left is dialled again; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest such wait.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Now, in milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A connection to a cluster, for whoever looks at it frame by frame.
#[derive(Debug)]
pub struct Session {
    run: RunDir,
    client: OperatorClient,
    subscription: Subscription,
}

impl Session {
    /// Dials the coordinator of a run with a certificate of its folder; without a name, the operator's.
    ///
    /// # Errors
    /// [`InspectError`]: no run, no such certificate, nothing up, no answer.
    pub async fn open(run: &RunDir, who: Option<&str>) -> Result<Self, InspectError> {
        check(run, who)?;
        let unreachable = |source| match source {
            OperatorError::NotARun(says) if who.is_some() => InspectError::Usage(says),
            // Nothing here and nobody there: a certificate that is refused is another matter.
            OperatorError::Silent(_) | OperatorError::NotARun(_) if !is_up(run) => {
                InspectError::NotUp(run.path().to_owned())
            }
            source => InspectError::Unreachable { path: run.path().to_owned(), source },
        };
        let client = connect(run, who).await.map_err(unreachable)?;
        let subscription = client.subscribe().await.map_err(|error| match error {
            OperatorError::Refused(says) => {
                InspectError::Refused { path: run.path().to_owned(), says }
            }
            error => unreachable(error),
        })?;
        Ok(Self { run: run.clone(), client, subscription })
    }

    /// The next frame, about five a second.
    ///
    /// # Errors
    /// The coordinator left, or hangs.
    pub async fn next(&mut self) -> Result<Frame, OperatorError> {
        let snapshot = self.subscription.next().await?;
        Ok(Frame { at_ms: now_ms(), snapshot, processes: processes(&self.run) })
    }

    /// Leaves.
    pub async fn close(self) {
        self.client.close().await;
    }
}

/// Whether the folder is a run's, and has the certificate that was named, if one was.
///
/// # Errors
/// [`InspectError::NotARun`], or [`InspectError::Usage`] for the certificate.
pub fn check(run: &RunDir, who: Option<&str>) -> Result<(), InspectError> {
    if !run.config_path().is_file() {
        return Err(InspectError::NotARun(run.path().to_owned()));
    }
    let Some(who) = who else { return Ok(()) };
    let path = run.tls().join(format!("{who}.pem"));
    if path.is_file() {
        return Ok(());
    }
    let path = path.display();
    let says = format!("there is no {path}; `crrl tls issue {who} --role viewer` makes one");
    Err(InspectError::Usage(says))
}

/// Dials with a certificate of the run's folder; without a name, as [`OperatorClient::connect`] does.
pub(crate) async fn connect(
    run: &RunDir,
    who: Option<&str>,
) -> Result<OperatorClient, OperatorError> {
    match who {
        Some(who) => OperatorClient::connect_as(run, who).await,
        None => OperatorClient::connect(run).await,
    }
}

/// Whether the processes of the run are up on this machine.
#[must_use]
pub fn is_up(run: &RunDir) -> bool {
    host::host_pid(run).is_ok_and(|pid| pid.is_some())
}

fn processes(run: &RunDir) -> Vec<NodeProcess> {
    // What a host wrote that has ended is no longer so.
    if is_up(run) {
        host::state(run).map(|state| state.nodes).unwrap_or_default()
    } else {
        Vec::new()
    }
}

/// What came last.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The last frame.
    pub frame: Option<Frame>,
    /// Whether more come.
    pub link: Link,
}

/// Frames of a cluster, kept coming by a thread that dials again where it has to.
#[derive(Debug)]
pub struct Feed {
    seen: watch::Receiver<Seen>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Attaches to a run with a certificate of its folder; without a name, the operator's. Returns at
    /// once; a cluster that starts is waited for.
    ///
    /// # Errors
    /// No run there, no such certificate, or no thread to be had.
    pub fn attach(run: &RunDir, who: Option<&str>) -> Result<Self, InspectError> {
        check(run, who)?;
        let (put, seen) =
            watch::channel(Seen { frame: None, link: Link::Connecting { reason: None } });
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (run, who) = (run.clone(), who.map(str::to_owned));
        let thread = std::thread::Builder::new().name("inspect-feed".into()).spawn(move || {
            runtime.block_on(follow(&run, who.as_deref(), &put, stopped));
        })?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// What came since this was asked last; nothing if nothing did.
    pub fn take(&mut self) -> Option<Seen> {
        let is_new = self.seen.has_changed().unwrap_or(false);
        is_new.then(|| self.seen.borrow_and_update().clone())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn follow(
    run: &RunDir,
    who: Option<&str>,
    put: &watch::Sender<Seen>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let session = tokio::select! {
            _ = stopped.changed() => return,
            session = Session::open(run, who) => session,
        };
        let reason = match session {
            Err(error) => error.to_string(),
            Ok(mut session) => {
                let error = loop {
                    let next = tokio::select! {
                        _ = stopped.changed() => {
                            session.close().await;
                            return;
                        }
                        next = session.next() => next,
                    };
                    match next {
                        Ok(frame) => {
                            backoff = BACKOFF_MIN;
                            put.send_replace(Seen { frame: Some(frame), link: Link::Live });
                        }
                        Err(error) => break error,
                    }
                };
                session.close().await;
                error.to_string()
            }
        };
        put.send_modify(|seen| {
            seen.link = match std::mem::replace(&mut seen.link, Link::Live) {
                Link::Connecting { .. } => Link::Connecting { reason: Some(reason) },
                Link::Lost { since_ms, .. } => Link::Lost { reason, since_ms },
                Link::Live | Link::Past | Link::Replay { .. } => {
                    Link::Lost { reason, since_ms: now_ms() }
                }
            };
        });
        tokio::select! {
            _ = stopped.changed() => return,
            () = tokio::time::sleep(backoff) => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}
