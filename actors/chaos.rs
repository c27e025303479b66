//! What a node does when it is told that something is to go wrong in it.
//!
//! Every fault ends by itself: those of network, disk, clock and actors at their own time, a pause by a
//! small shell that waits beside the process. Nothing is left to undo for whoever injected it; who no
//! longer wants it can have it lifted ([`Fault::can_be_lifted`]): by a message, or by this machine's host
//! where the node hears none.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crrl_cluster::host::LIFT_SIGNAL;
use crrl_cluster::{Hang, Inbound, Mesh, RunDir};
use crrl_control::wire::Wire;
use crrl_machine::faults::MACHINE;
use crrl_transport::Faults;
use crrl_types::NodeName;
use crrl_types::fault::{Fault, FaultSeen, Injection};
use nix::sys::signal::{Signal, killpg, raise};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::bombs::Bombs;
use crate::slow_tools::SlowTools;

/// Faults of the process that are still told of.
const SEEN_MAX: usize = 16;
/// A process that stood still for so long did stand still.
const PAUSE_SEEN: Duration = Duration::from_millis(50);

/// Updates of the learner that are to be spoilt, or checkpoints that are to be torn. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Poison(Arc<AtomicU32>);

impl Poison {
    /// Whether the next update is to be spoilt; each drop of it counts once.
    #[must_use]
    pub fn take(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// The faults of one node. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Chaos {
    network: Faults,
    poison: Poison,
    torn: Poison,
    bombs: Bombs,
    slow: SlowTools,
    hang: Hang,
    seen: Arc<Mutex<Vec<FaultSeen>>>,
    poisoned: Arc<Mutex<Vec<u64>>>,
    hanging: Arc<Mutex<Vec<Hanging>>>,
}

/// A time in which actors hang.
#[derive(Debug, Clone, Copy)]
struct Hanging {
    id: u64,
    until: Instant,
    /// Messages that had been held up before it began.
    held_before: u64,
}

impl Chaos {
    /// Of a node: its network's faults, and whatever else goes wrong in it.
    #[must_use]
    pub fn of(mesh: &Mesh, hang: &Hang) -> Self {
        Self { network: mesh.faults().clone(), hang: hang.clone(), ..Self::default() }
    }

    /// For the learner's thread: checkpoints that are to be torn.
    #[must_use]
    pub fn torn(&self) -> Poison {
        self.torn.clone()
    }

    /// For the episodes of a rollout node.
    #[must_use]
    pub fn bombs(&self) -> Bombs {
        self.bombs.clone()
    }

    /// For their tool calls.
    #[must_use]
    pub fn slow_tools(&self) -> SlowTools {
        self.slow.clone()
    }

    /// For the learner's thread.
    #[must_use]
    pub fn poison(&self) -> Poison {
        self.poison.clone()
    }

    /// Takes a message; says nothing back: what fired is in the node's reports.
    pub fn inbound(&self, inbound: &Inbound) {
        match inbound.wire {
            Wire::Inject(injection) => {
                tracing::warn!(from = %inbound.from, ?injection, "a fault begins");
                self.inject(injection);
            }
            Wire::Lift { id } => {
                let found = self.lift(id);
                tracing::warn!(from = %inbound.from, id, found, "a fault is lifted");
            }
            _ => {}
        }
    }

    /// Ends faults of this node that the host says are over, as long as the runtime is there.
    ///
    /// # Errors
    /// The system takes no handler of signals.
    pub fn heed_host(&self, run: &RunDir, node: &NodeName) -> std::io::Result<()> {
        let mut told = signal(SignalKind::from_raw(LIFT_SIGNAL as i32))?;
        let (chaos, run, node) = (self.clone(), run.clone(), node.clone());
        tokio::spawn(async move {
            while told.recv().await.is_some() {
                chaos.look_what_is_over(&run, &node);
            }
        });
        Ok(())
    }

    /// The signal may have come from elsewhere: then there is no file.
    fn look_what_is_over(&self, run: &RunDir, node: &NodeName) {
        for (id, wanted) in run.lifts_wanted(node.as_str()) {
            let found = self.lift(id);
            tracing::warn!(id, found, "a fault is lifted by the host");
            // Whoever waits for it sees by this that it has been heard.
            if let Err(error) = std::fs::remove_file(&wanted) {
                tracing::warn!(%error, path = %wanted.display(), "cannot be removed");
            }
        }
    }

    /// Whether there was one of this number. A pause is over by the time anybody hears of it.
    fn lift(&self, id: u64) -> bool {
        self.network.lift(id) || MACHINE.lift(id) || self.slow.lift(id) || self.lift_hang(id)
    }

    fn lift_hang(&self, id: u64) -> bool {
        let now = Instant::now();
        let mut hanging = lock(&self.hanging);
        let Some(found) = hanging.iter_mut().find(|hang| hang.id == id && hang.until > now) else {
            return false;
        };
        found.until = now;
        self.hold(&hanging);
        true
    }

    /// Actors are held up until the last of these is over.
    fn hold(&self, hanging: &[Hanging]) {
        if let Some(last) = hanging.iter().map(|hang| hang.until).max() {
            self.hang.hold_until(last);
        }
    }

    fn inject(&self, injection: Injection) {
        let Injection { id, fault, duration_ms, .. } = injection;
        match fault {
            Fault::Kill => {
                // Fails only for a signal that does not exist.
                let _ = raise(Signal::SIGKILL);
            }
            Fault::Pause => self.pause(id, Duration::from_millis(duration_ms)),
            Fault::NotFinite => {
                lock(&self.poisoned).push(id);
                self.poison.add();
            }
            Fault::Drop { .. }
            | Fault::Delay { .. }
            | Fault::Duplicate { .. }
            | Fault::Corrupt { .. }
            | Fault::Truncate { .. }
            | Fault::CorruptAdapter => self.network.begin(injection),
            Fault::SlowDisk { .. } | Fault::FullDisk | Fault::ClockSkew { .. } => {
                MACHINE.begin(injection);
            }
            // The process dies of it: nobody is left to say so but the host.
            Fault::TornWrite => self.torn.add(),
            Fault::Bomb(bomb) => self.bombs.add(id, bomb),
            Fault::SlowTools { .. } => self.slow.begin(injection),
            Fault::Hang => {
                let until = Instant::now() + Duration::from_millis(duration_ms);
                let mut hanging = lock(&self.hanging);
                hanging.push(Hanging { id, until, held_before: self.hang.held() });
                self.hold(&hanging);
            }
        }
    }

    /// Stands still, all threads of the process, until the shell beside it says to go on, or the host.
    fn pause(&self, id: u64, time: Duration) {
        // It ends with this process, should that be killed meanwhile.
        let script = format!(
            "s={}; while [ $s -gt 0 ]; do kill -0 {pid} || exit; sleep 1; s=$((s - 1)); done; \
             sleep {}; kill -CONT {pid}",
            time.as_secs(),
            Duration::from_nanos(time.subsec_nanos().into()).as_secs_f64(),
            pid = std::process::id(),
        );
        let waiting = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut waiting = match waiting {
            Ok(waiting) => waiting,
            Err(error) => {
                return tracing::error!(%error, "nobody would wake this process: not paused");
            }
        };
        let began = Instant::now();
        let _ = raise(Signal::SIGSTOP);
        let fired = u64::from(began.elapsed() >= PAUSE_SEEN.min(time / 2));
        let seen = FaultSeen { id, fault: Fault::Pause, fired, active: false };
        tracing::warn!(after_ms = began.elapsed().as_millis() as u64, "going on after a pause");
        self.tell(seen);
        // Woken before its time, the process needs neither the shell nor what that waits for.
        if let Ok(group) = i32::try_from(waiting.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = waiting.wait();
    }

    fn tell(&self, seen: FaultSeen) {
        let mut list = lock(&self.seen);
        list.push(seen);
        if list.len() > SEEN_MAX {
            list.remove(0);
        }
    }

    /// What is known of every fault, the last few that are over included.
    #[must_use]
    pub fn seen(&self) -> Vec<FaultSeen> {
        if self.poison.is_empty() {
            for id in lock(&self.poisoned).drain(..) {
                self.tell(FaultSeen { id, fault: Fault::NotFinite, fired: 1, active: false });
            }
        }
        let hanging = self.seen_hanging();
        hanging.iter().filter(|seen| !seen.active).for_each(|seen| self.tell(*seen));
        let mut seen = self.network.seen();
        seen.extend(MACHINE.seen());
        seen.extend(self.bombs.seen());
        seen.extend(self.slow.seen());
        seen.extend(hanging.into_iter().filter(|seen| seen.active));
        seen.extend(lock(&self.seen).iter().copied());
        seen
    }

    /// Those that are over are forgotten.
    fn seen_hanging(&self) -> Vec<FaultSeen> {
        let (now, held) = (Instant::now(), self.hang.held());
        let mut hanging = lock(&self.hanging);
        let seen = hanging.iter().map(|hang| FaultSeen {
            id: hang.id,
            fault: Fault::Hang,
            fired: held - hang.held_before,
            active: hang.until > now,
        });
        let seen = seen.collect();
        hanging.retain(|hang| hang.until > now);
        seen
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use crrl_cluster::run_dir::write_atomic;
    use crrl_types::fault::Direction;

    use super::*;

    #[test]
    fn a_fault_is_lifted_wherever_it_is() {
        let chaos = Chaos::default();
        let faults = [
            Fault::Drop { direction: Direction::Out, share: 1.0 },
            Fault::ClockSkew { s: 0 },
            Fault::SlowTools { ms: 1 },
            Fault::Hang,
        ];
        let count = faults.len();
        // Those of the machine are the whole process's.
        let number = |n: u64| 0x6c69_6674_0000 + n;
        for (fault, n) in faults.into_iter().zip(0..) {
            chaos.inject(Injection { id: number(n), fault, duration_ms: 600_000, seed: 1 });
        }
        let active =
            || chaos.seen().iter().filter(|seen| seen.active && seen.id >= number(0)).count();
        assert_eq!(active(), count);
        assert!(!chaos.lift(number(count as u64)));
        for (fault, n) in faults.into_iter().zip(0..) {
            assert!(chaos.lift(number(n)), "{fault:?}");
            assert_eq!(active(), count - 1 - n as usize, "{fault:?}");
            assert!(!chaos.lift(number(n)), "{fault:?} is over");
        }
        assert!(!chaos.hang.goes_on());
    }

    #[test]
    fn actors_hang_until_the_last_of_several_hangs_is_lifted() {
        let chaos = Chaos::default();
        for (id, duration_ms) in [(1, 600_000), (2, 500_000)] {
            chaos.inject(Injection { id, fault: Fault::Hang, duration_ms, seed: 1 });
        }
        assert!(chaos.lift(1) && chaos.hang.goes_on());
        assert!(chaos.lift(2) && !chaos.hang.goes_on());
    }

    #[test]
    fn what_the_host_says_is_over_is_and_the_host_sees_that() {
        let chaos = Chaos::default();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (run, node) = (RunDir::new(folder.path()), NodeName::from("rollout-0"));
        let begin = |id| {
            let fault = Fault::Drop { direction: Direction::Both, share: 1.0 };
            chaos.inject(Injection { id, fault, duration_ms: 600_000, seed: 1 });
        };
        begin(6);
        begin(7);
        let active = || chaos.network.seen().iter().filter(|seen| seen.active).count();
        let told = |numbers: &[u64]| {
            for number in numbers {
                write_atomic(&run.lift_wanted(node.as_str(), *number), b"").expect("writable");
            }
            chaos.look_what_is_over(&run, &node);
            assert_eq!(run.lifts_wanted(node.as_str()), [], "who waits is not told");
        };
        told(&[]);
        assert_eq!(active(), 2, "nobody has said that it is over");
        told(&[8]);
        assert_eq!(active(), 2, "there is no such fault");
        // Two that inject at the same time, each with its own.
        told(&[6, 7]);
        assert_eq!(active(), 0);
    }
}
