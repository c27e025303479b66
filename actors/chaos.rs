//! What a node does when it is told that something is to go wrong in it.
//!
//! Every fault ends by itself: those of network, disk, clock and actors at their own time, a pause by a
//! small shell that waits beside the process. Nothing is left to undo for whoever injected it; who no
//! longer wants it can have it lifted ([`Fault::can_be_lifted`]).

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crrl_cluster::{Hang, Inbound, Mesh};
use crrl_control::wire::Wire;
use crrl_machine::faults::MACHINE;
use crrl_transport::Faults;
use crrl_types::fault::{Fault, FaultSeen, Injection};
use nix::sys::signal::{Signal, raise};

use crate::bombs::Bombs;
use crate::slow_tools::SlowTools;

/// Faults of the process that are still told of.
const SEEN_MAX: usize = 16;

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
    /// The times actors hang that are not over: which, and how many messages had been held up before.
    hanging: Arc<Mutex<Vec<(u64, u64)>>>,
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

    /// Whether there was one of this number.
    fn lift(&self, id: u64) -> bool {
        self.network.lift(id) || MACHINE.lift(id) || self.slow.lift(id)
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
                lock(&self.hanging).push((id, self.hang.held()));
                self.hang.begin(Duration::from_millis(duration_ms));
            }
        }
    }

    /// Stands still, all threads of the process, until the shell beside it says to go on.
    fn pause(&self, id: u64, time: Duration) {
        let script = format!("sleep {}; kill -CONT {}", time.as_secs_f64(), std::process::id());
        let waiting = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut waiting = match waiting {
            Ok(waiting) => waiting,
            Err(error) => {
                return tracing::error!(%error, "nobody would wake this process: not paused");
            }
        };
        let began = Instant::now();
        let _ = raise(Signal::SIGSTOP);
        let fired = u64::from(began.elapsed() >= time / 2);
        let seen = FaultSeen { id, fault: Fault::Pause, fired, active: false };
        tracing::warn!(after_ms = began.elapsed().as_millis() as u64, "going on after a pause");
        self.tell(seen);
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
        let hangs = self.hang.goes_on();
        let held = |(id, before): (u64, u64)| FaultSeen {
            id,
            fault: Fault::Hang,
            fired: self.hang.held() - before,
            active: hangs,
        };
        let hanging: Vec<FaultSeen> = lock(&self.hanging).iter().copied().map(held).collect();
        if !hangs {
            lock(&self.hanging).clear();
            hanging.iter().for_each(|seen| self.tell(*seen));
        }
        let mut seen = self.network.seen();
        seen.extend(MACHINE.seen());
        seen.extend(self.bombs.seen());
        seen.extend(self.slow.seen());
        seen.extend(hanging.into_iter().filter(|seen| seen.active));
        seen.extend(lock(&self.seen).iter().copied());
        seen
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use crrl_types::fault::Direction;

    use super::*;

    #[test]
    fn a_fault_is_lifted_wherever_it_is() {
        let chaos = Chaos::default();
        let faults = [
            Fault::Drop { direction: Direction::Out, share: 1.0 },
            Fault::ClockSkew { s: 0 },
            Fault::SlowTools { ms: 1 },
        ];
        // Those of the machine are the whole process's.
        let number = |n: u64| 0x6c69_6674_0000 + n;
        for (fault, n) in faults.into_iter().zip(0..) {
            chaos.inject(Injection { id: number(n), fault, duration_ms: 600_000, seed: 1 });
        }
        let active =
            || chaos.seen().iter().filter(|seen| seen.active && seen.id >= number(0)).count();
        assert_eq!(active(), 3);
        assert!(!chaos.lift(number(3)));
        for n in 0..3 {
            assert!(chaos.lift(number(n)), "{:?}", faults[n as usize]);
            assert_eq!(active(), 2 - n as usize);
        }
    }
}
