//! Faults of the disk and the clock, injected while a node runs. Each ends by itself at its own time.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crrl_types::fault::{Fault, FaultSeen, Injection};

/// What Linux says of a full disk (ENOSPC).
const NO_SPACE: i32 = 28;
/// Faults that are over and still told of.
const SEEN_MAX: usize = 16;

/// Those of this process.
pub static MACHINE: Faults = Faults::new();

/// What is wrong with a machine.
#[derive(Debug)]
pub struct Faults {
    any: AtomicBool,
    skew_s: AtomicI64,
    list: Mutex<List>,
}

#[derive(Debug)]
struct List {
    active: Vec<Active>,
    over: VecDeque<FaultSeen>,
}

#[derive(Debug)]
struct Active {
    injection: Injection,
    until: Instant,
    fired: u64,
}

impl Active {
    fn seen(&self, active: bool) -> FaultSeen {
        let Injection { id, fault, .. } = self.injection;
        FaultSeen { id, fault, fired: self.fired, active }
    }
}

impl Faults {
    /// Nothing is wrong.
    #[must_use]
    pub const fn new() -> Self {
        let list = List { active: Vec::new(), over: VecDeque::new() };
        Self { any: AtomicBool::new(false), skew_s: AtomicI64::new(0), list: Mutex::new(list) }
    }

    /// A fault begins. Those that are not of the disk or the clock do nothing here.
    pub fn begin(&self, injection: Injection) {
        let now = Instant::now();
        let until = now + Duration::from_millis(injection.duration_ms);
        let mut list = lock(&self.list);
        list.active.push(Active { injection, until, fired: 0 });
        self.look(&mut list, now);
    }

    /// Ends the fault of this number before its time; whether there was one.
    pub fn lift(&self, id: u64) -> bool {
        let now = Instant::now();
        let mut list = lock(&self.list);
        let mut found = false;
        for active in list.active.iter_mut().filter(|a| a.injection.id == id && a.until > now) {
            active.until = now;
            found = true;
        }
        self.look(&mut list, now);
        found
    }

    /// What is known of every fault, the last few that are over included.
    #[must_use]
    pub fn seen(&self) -> Vec<FaultSeen> {
        let mut list = lock(&self.list);
        self.look(&mut list, Instant::now());
        let active = list.active.iter().map(|active| active.seen(true));
        list.over.iter().copied().chain(active).collect()
    }

    pub(crate) fn before_write(&self) -> io::Result<()> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut late = Duration::ZERO;
        let mut full = false;
        {
            let mut list = lock(&self.list);
            self.look(&mut list, Instant::now());
            for active in &mut list.active {
                match active.injection.fault {
                    Fault::SlowDisk { ms } => late += Duration::from_millis(ms.into()),
                    Fault::FullDisk => full = true,
                    _ => continue,
                }
                active.fired += 1;
            }
        }
        // As a slow disk does: whoever writes waits, and holds nothing meanwhile.
        std::thread::sleep(late);
        if full { Err(io::Error::from_raw_os_error(NO_SPACE)) } else { Ok(()) }
    }

    pub(crate) fn skew_s(&self) -> i64 {
        if !self.any.load(Ordering::Acquire) {
            return 0;
        }
        let mut list = lock(&self.list);
        self.look(&mut list, Instant::now());
        for active in &mut list.active {
            active.fired += u64::from(matches!(active.injection.fault, Fault::ClockSkew { .. }));
        }
        self.skew_s.load(Ordering::Acquire)
    }

    /// Lets go of what is over.
    fn look(&self, list: &mut List, now: Instant) {
        let all = std::mem::take(&mut list.active);
        let (active, over): (Vec<_>, Vec<_>) = all.into_iter().partition(|a| a.until > now);
        list.active = active;
        list.over.extend(over.iter().map(|over| over.seen(false)));
        let too_many = list.over.len().saturating_sub(SEEN_MAX);
        list.over.drain(..too_many);
        let skew = |active: &Active| match active.injection.fault {
            Fault::ClockSkew { s } => i64::from(s),
            _ => 0,
        };
        self.skew_s.store(list.active.iter().map(skew).sum(), Ordering::Release);
        self.any.store(!list.active.is_empty(), Ordering::Release);
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injection(fault: Fault, duration_ms: u64) -> Injection {
        Injection { id: 7, fault, duration_ms, seed: 0 }
    }

    #[test]
    fn a_full_disk_refuses_each_write_and_counts_it() {
        let machine = Faults::new();
        machine.before_write().expect("nothing is wrong");
        machine.begin(injection(Fault::FullDisk, 60_000));
        for _ in 0..3 {
            let error = machine.before_write().expect_err("full");
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
        let seen = FaultSeen { id: 7, fault: Fault::FullDisk, fired: 3, active: true };
        assert_eq!(machine.seen(), [seen]);
    }

    #[test]
    fn a_fault_ends_by_itself() {
        let machine = Faults::new();
        machine.begin(injection(Fault::FullDisk, 0));
        machine.begin(injection(Fault::ClockSkew { s: 60 }, 0));
        machine.before_write().expect("over");
        assert_eq!(machine.skew_s(), 0);
        assert!(machine.seen().iter().all(|seen| !seen.active));
    }

    #[test]
    fn a_fault_that_is_lifted_is_over_and_the_others_go_on() {
        let machine = Faults::new();
        machine.begin(injection(Fault::FullDisk, 60_000));
        machine.begin(Injection { id: 8, ..injection(Fault::ClockSkew { s: 60 }, 60_000) });
        machine.before_write().expect_err("full");
        assert!(!machine.lift(9), "nobody has begun it");
        assert!(machine.lift(7));
        assert!(!machine.lift(7), "it is over");
        machine.before_write().expect("has room again");
        let seen = FaultSeen { id: 7, fault: Fault::FullDisk, fired: 1, active: false };
        assert_eq!(machine.seen().first(), Some(&seen));
        assert_eq!(machine.skew_s(), 60);
        assert!(machine.lift(8));
        assert_eq!(machine.skew_s(), 0);
    }

    #[test]
    fn a_slow_disk_takes_its_time() {
        let machine = Faults::new();
        machine.begin(injection(Fault::SlowDisk { ms: 30 }, 60_000));
        let began = Instant::now();
        machine.before_write().expect("slow, not full");
        assert!(began.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn skews_add_up_and_looking_at_the_clock_is_what_they_do() {
        let machine = Faults::new();
        machine.begin(injection(Fault::ClockSkew { s: 60 }, 60_000));
        machine.begin(injection(Fault::ClockSkew { s: -10 }, 60_000));
        assert_eq!(machine.skew_s(), 50);
        assert!(machine.seen().iter().all(|seen| seen.fired == 1));
    }
}
