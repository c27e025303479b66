//! The thread that follows a run: its cluster while one is up, its history as it grows, its files as
//! they change. It never waits for a viewer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crrl_inspect::feed::{self, Feed, Seen};
use crrl_inspect::frame::Link;
use crrl_inspect::tail::Tail;
use tokio::sync::watch;

use crate::pulse;
use crate::run::Run;

/// Time between two pulses.
const TICK: Duration = Duration::from_millis(1_000);
/// Time between two looks whether there is a cluster to attach to.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What viewers are sent: the newest pulse, as JSON. One that was missed is gone.
pub type Pulses = watch::Receiver<Arc<str>>;

/// The thread. It ends with this.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Begins to follow a run.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(run: &Arc<Run>) -> std::io::Result<(Self, Pulses)> {
        let stop = Arc::new(AtomicBool::new(false));
        let (put, pulses) = watch::channel(Arc::from(pulse::of(run).to_string()));
        let (stopped, run) = (Arc::clone(&stop), Arc::clone(run));
        let thread = std::thread::Builder::new()
            .name("dashboard-watch".into())
            .spawn(move || follow(&run, &put, &stopped))?;
        Ok((Self { stop, thread: Some(thread) }, pulses))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn follow(run: &Run, put: &watch::Sender<Arc<str>>, stopped: &AtomicBool) {
    let mut tail = Tail::new(&run.dir().events());
    let mut feed: Option<Feed> = None;
    let mut next_look = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        if next_look <= Instant::now() {
            next_look = Instant::now() + LOOK_EVERY;
            attach_or_leave(run, &mut feed);
        }
        {
            let mut seen = run.seen();
            if let Some(Seen { frame, link }) = feed.as_mut().and_then(Feed::take) {
                if let Some(frame) = frame {
                    seen.world.fold(frame);
                }
                seen.link = Some(link);
            }
            seen.world.tick(feed::now_ms());
            tail.read(&mut seen.world.history);
        }
        run.look();
        put.send_replace(Arc::from(pulse::of(run).to_string()));
        std::thread::park_timeout(TICK);
    }
}

/// Attaches where a cluster may answer, and leaves one that is gone: a run that is over costs nothing,
/// and one that is resumed is seen again.
fn attach_or_leave(run: &Run, feed: &mut Option<Feed>) {
    let may_answer = feed::is_up(run.dir()) || is_elsewhere(run);
    if feed.is_none() && may_answer {
        match Feed::attach(run.dir(), None) {
            Ok(attached) => {
                *feed = Some(attached);
                run.seen().link = Some(Link::Connecting { reason: None });
            }
            Err(error) => tracing::debug!(%error, "no cluster to attach to"),
        }
    } else if feed.is_some() && !may_answer && run.seen().link != Some(Link::Live) {
        *feed = None;
        run.seen().link = None;
    }
}

/// Whether the run's processes are on other machines: it has addresses, and no host was ever here.
fn is_elsewhere(run: &Run) -> bool {
    !run.dir().host_lock().exists() && run.dir().addresses().is_ok_and(|a| !a.is_empty())
}
