//! Injects faults one after the other into a running cluster and watches what becomes of it.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use crrl_cluster::{OperatorClient, OperatorError, RunDir, Snapshot, host};
use crrl_config::faults::{Scenario, Target};
use crrl_control::resilience::{Injected, Observed, observe, throughput};
use crrl_control::wire::NodeRole;
use crrl_transport::{Authority, random_bytes};
use crrl_types::fault::{Fault, Injection};
use crrl_types::{Event, NodeName};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;

use super::level::{Level, Pair, judge};
use super::scenario::sign;
use super::targets::{Live, fitting, is_awaited, is_up};
use crate::commands::failure::{Coded, DENIED, INTERRUPTED, UNREACHABLE};
use crate::commands::place::not_up;
use crate::interrupt::Interrupt;

/// Name and role of the certificate faults are injected under.
const CHAOS: &str = "chaos";
/// Time between two looks at the history.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A node that is meant and not up yet is waited for so long: a coordinator that has just been started
/// again does not know everybody.
const LIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A coordinator that was killed is dialled again for so long.
const REACH_TIMEOUT: Duration = Duration::from_secs(30);
/// A time in the history that is further from our own is of a clock that is wrong.
const SKEWED_MS: u64 = 5_000;
/// A node that could be reached again says within this what fired in it.
const FIRED_TIMEOUT: Duration = Duration::from_secs(5);
/// A node that has lifted a fault says so within this; it reports once a second.
const LIFTED_TIMEOUT: Duration = Duration::from_secs(4);
/// One that was cut off, or stood still, and was told by its host has to find the coordinator again before:
/// a dial that was under way takes a few seconds to fail.
const FOUND_TIMEOUT: Duration = Duration::from_secs(15);
/// What is said of a fault that neither a message nor the host could end.
const UNHEARD: &str = "is not known to be lifted: its node may hear nothing of it, and it is no process \
                       the host of this machine could tell";
/// How long saying goodbye to a coordinator may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// How a campaign is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// What nodes and chances are drawn from.
    pub(super) seed: u64,
    /// How long throughput is measured, before and after each fault.
    pub(super) window: Duration,
    /// How long after a fault's end throughput has to be back at its level.
    pub(super) within: Duration,
    /// How long the cluster may take to recover.
    pub(super) patience: Duration,
    /// How long it is waited for training to begin.
    pub(super) wait: Duration,
}

/// What became of one fault.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Outcome {
    /// The scenario.
    pub(super) fault: String,
    /// The node.
    pub(super) node: String,
    /// How often it did something: packets, adapters, updates; 1 for a process.
    pub(super) fired: u64,
    /// Seconds until the cluster noticed that the node was gone; absent if it never was.
    pub(super) noticed_s: Option<f64>,
    /// Seconds from the fault's end until the node was at work again; absent if it never was.
    pub(super) recovered_s: Option<f64>,
    /// Episodes per second over the window before the fault; from its begin until the node was at work
    /// again; and over the window that begins the stated time after its end.
    pub(super) throughput: [f64; 3],
    /// Whether throughput was back at its level by then, as far as one fault tells.
    pub(super) level: Level,
    /// What faults are judged together by; none where the history's own times were wrong.
    #[serde(skip)]
    pub(super) pair: Option<Pair>,
}

impl Outcome {
    /// Whether the fault happened and the cluster got over it.
    pub(super) fn survived(&self) -> bool {
        self.fired > 0 && self.recovered_s.is_some()
    }
}

/// A run, and the certificate to harm it with.
pub(super) struct Campaign {
    run: RunDir,
    options: Options,
    rng: StdRng,
    runtime: tokio::runtime::Runtime,
    /// Whether a person wants it to stop, or it has ended.
    interrupted: Arc<AtomicBool>,
    /// Every event read so far, and the bytes of the file they took.
    history: Vec<Event>,
    read_bytes: u64,
    /// Whether the clock the history is written by may be wrong: then it is our own that counts.
    skewed: bool,
}

impl Campaign {
    /// Gets a certificate for the chaos role from the run's own authority.
    pub(super) fn begin(run: RunDir, options: Options) -> anyhow::Result<Self> {
        if host::host_pid(&run)?.is_none() {
            return Err(unreachable(not_up(&run)));
        }
        Authority::open_or_create(&run.tls())
            .and_then(|authority| authority.issue(&CHAOS.into(), &[CHAOS.to_owned()]))
            .context("no certificate for the chaos role can be had")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start an event loop")?;
        let rng = StdRng::seed_from_u64(options.seed);
        let interrupted = interrupted(&runtime).context("signals cannot be listened to")?;
        Ok(Self {
            run,
            options,
            rng,
            runtime,
            interrupted,
            history: Vec::new(),
            read_bytes: 0,
            skewed: false,
        })
    }

    /// Waits until there is training to disturb.
    pub(super) fn until_training(&self, told: &dyn Fn(&str)) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.options.wait;
        loop {
            let phase = self.snapshot(REACH_TIMEOUT)?.progress.phase;
            if phase.starts_with("training") {
                return Ok(());
            }
            if phase == "done" || phase.starts_with("failed") {
                return Err(unreachable(format!("the run is {phase}: nothing is left to disturb")));
            }
            if Instant::now() > deadline {
                return Err(unreachable(format!(
                    "the run is still {phase}; faults are injected while it trains (--wait)"
                )));
            }
            told(&phase);
            self.rest(LOOK_EVERY * 5)?;
        }
    }

    /// Injects one fault and watches until the cluster is over it. Where a person wants it to stop, the
    /// fault is lifted first.
    pub(super) fn inject(&mut self, scenario: &Scenario) -> anyhow::Result<Outcome> {
        let node = self.choose(&scenario.target)?;
        let name = node.name.clone();
        // Work as it is without the fault, to compare with.
        self.rest(self.options.window)?;
        let lives = self.life(&name);
        // Not from the seed: a fault of an earlier campaign on this run would answer for this one.
        let id = u64::from_ne_bytes(random_bytes().context("the fault gets no number")?);
        let injection = Injection {
            id,
            fault: scenario.fault,
            duration_ms: (scenario.duration_s * 1000.0) as u64,
            seed: self.rng.random(),
        };
        self.history()?;
        self.skewed = matches!(scenario.fault, Fault::ClockSkew { .. });
        let from_ms = now_ms();
        self.send(&node, injection)?;
        let until_ms = from_ms + injection.duration_ms;
        let sign = sign(&node.roles, scenario.fault);
        let is_missed = dies_of(scenario.fault);
        let injected = Injected { node: name.clone(), sign, from_ms, until_ms, is_missed };
        let deadline =
            Instant::now() + Duration::from_millis(injection.duration_ms) + self.options.patience;
        let seen = loop {
            let seen = observe(self.history()?, &injected);
            if (seen.recovered_ms.is_some() && now_ms() >= until_ms) || Instant::now() > deadline {
                break seen;
            }
            if self.is_interrupted() {
                return Err(self.stopped(&name, injection, until_ms));
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let fired = self.fired(&name, injection, lives, &seen);
        let Observed { noticed_ms, recovered_ms } = seen;
        let over_ms = recovered_ms.unwrap_or_else(now_ms);
        // What was written while the clock was wrong has been read by now.
        self.history()?;
        let times_are_true = !std::mem::take(&mut self.skewed);
        let window_ms = self.options.window.as_millis() as u64;
        let back_ms = until_ms + self.options.within.as_millis() as u64;
        self.rest(Duration::from_millis((back_ms + window_ms).saturating_sub(now_ms())))?;
        let history = self.history()?;
        let pair = Pair::of(history, from_ms - window_ms, back_ms, window_ms);
        let during = throughput(history, from_ms, over_ms);
        let level = if times_are_true {
            judge(&[&pair])
        } else {
            Level::unknown("the history's own times were wrong")
        };
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1000.0;
        Ok(Outcome {
            fault: scenario.name.clone(),
            node: name.to_string(),
            fired,
            noticed_s: noticed_ms.map(|at| seconds(from_ms, at)),
            recovered_s: recovered_ms.map(|at| seconds(until_ms, at)),
            throughput: [pair.before, during, pair.after],
            level,
            pair: times_are_true.then_some(pair),
        })
    }

    /// One of those that are up now: nodes come and go while a campaign goes on, and not all of them are
    /// in the run's configuration.
    fn choose(&mut self, target: &Target) -> anyhow::Result<Live> {
        let deadline = Instant::now() + LIVE_TIMEOUT;
        loop {
            let reports = self.snapshot(REACH_TIMEOUT)?.nodes;
            let processes = host::state(&self.run).unwrap_or_default().nodes;
            let fitting = fitting(&reports, target);
            let is_complete = !fitting.is_empty() && !is_awaited(&processes, &reports, target);
            if is_complete || Instant::now() > deadline {
                return fitting.choose(&mut self.rng).cloned().ok_or_else(|| {
                    let up = reports.iter().filter(|report| is_up(report));
                    let names: Vec<&str> = up.map(|report| report.node.as_str()).collect();
                    Coded::usage(format!(
                        "no node that is up and takes work fits {target:?}; there are {}",
                        names.join(", ")
                    ))
                });
            }
            self.rest(LOOK_EVERY)?;
        }
    }

    fn send(&self, Live { name: node, roles }: &Live, injection: Injection) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let client = OperatorClient::connect_as(&self.run, CHAOS)
                .await
                .map_err(|error| unanswered(&error))?;
            let sent = client.inject(node, injection).await;
            // One that is cut off or dead by now cannot be told goodbye.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, client.close()).await;
            match sent {
                // Whoever kills the coordinator gets no answer from it.
                Err(OperatorError::Unreachable(_)) if roles.contains(&NodeRole::Coordinator) => {
                    Ok(())
                }
                Err(error) => Err(unanswered(&error)),
                Ok(()) => Ok(()),
            }
        })
    }

    fn lift(&self, node: &NodeName, injection: Injection) -> Result<(), OperatorError> {
        self.runtime.block_on(async {
            let client = OperatorClient::connect_as(&self.run, CHAOS).await?;
            let lifted = client.lift(node, injection).await;
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, client.close()).await;
            lifted
        })
    }

    /// Ends the fault that is under way, and says what became of it.
    fn stopped(&self, node: &NodeName, injection: Injection, until_ms: u64) -> anyhow::Error {
        let fault = injection.fault;
        let left_s = until_ms.saturating_sub(now_ms()).div_ceil(1000);
        let became = if left_s == 0 {
            "is over".to_owned()
        } else if matches!(host::host_pid(&self.run), Ok(None)) {
            "has ended with the cluster".to_owned()
        } else if !fault.can_be_lifted() {
            format!("cannot be lifted; it ends by itself in {left_s} s")
        } else {
            match self.end_early(node, injection) {
                Ok(how) => how.to_owned(),
                Err(why) => format!("{why}; it ends by itself in {left_s} s"),
            }
        };
        interruption(format!("interrupted: the fault in {node} ({fault}) {became}"))
    }

    /// Ends a fault before its time: whether it was, and how, or what is not known of it.
    fn end_early(&self, node: &NodeName, injection: Injection) -> Result<&'static str, String> {
        let is_deaf = injection.fault.may_deafen();
        let by_host = is_deaf.then(|| host::lift(&self.run, node.as_str(), injection.id));
        match by_host {
            Some(Ok(true)) => {
                // The node has heard it; this is so that it can be read in the run's log of orders.
                let _ = self.lift(node, injection);
                return match self.goes_on(node, injection) {
                    true => Ok("was lifted by its host"),
                    false => {
                        Err("is not known to be lifted, though its host told its node".to_owned())
                    }
                };
            }
            Some(Err(error)) => tracing::debug!(%error, "not lifted by the host"),
            Some(Ok(false)) | None => {}
        }
        match self.lift(node, injection) {
            Ok(()) if self.is_over(node, injection.id, LIFTED_TIMEOUT) => Ok("was lifted"),
            Ok(()) if is_deaf => Err(UNHEARD.to_owned()),
            Ok(()) => Err("is not known to be lifted".to_owned()),
            Err(error) => Err(format!("was not lifted ({error})")),
        }
    }

    /// Whether a node that its host has told is rid of the fault. Of one that stands still the system says so.
    fn goes_on(&self, node: &NodeName, injection: Injection) -> bool {
        if !matches!(injection.fault, Fault::Pause) {
            return self.is_over(node, injection.id, FOUND_TIMEOUT);
        }
        let processes = host::state(&self.run).unwrap_or_default().nodes;
        let pid =
            processes.iter().find(|held| held.name == node.as_str()).and_then(|held| held.pid);
        let deadline = Instant::now() + LIFTED_TIMEOUT;
        while pid.is_some_and(is_stopped) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    /// Whether the node itself says so within this time.
    fn is_over(&self, node: &NodeName, id: u64, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            let snapshot = self.runtime.block_on(async {
                let client = OperatorClient::connect_as(&self.run, CHAOS).await?;
                let snapshot = client.status().await;
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, client.close()).await;
                snapshot
            });
            let over = snapshot.is_ok_and(|snapshot| {
                let report = snapshot.nodes.iter().find(|report| report.node == *node);
                let seen = report.and_then(|report| report.faults.iter().find(|f| f.id == id));
                seen.is_some_and(|seen| !seen.active)
            });
            if over {
                return true;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        false
    }

    /// No fault is under way any more: from now on the first signal ends the program.
    pub(super) fn ends(&self) {
        self.interrupted.store(true, Ordering::Release);
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// Waits while no fault is under way, unless a person wants it all to stop.
    fn rest(&self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        loop {
            if self.is_interrupted() {
                return Err(interruption("interrupted: no fault was under way".to_owned()));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    fn snapshot(&self, within: Duration) -> anyhow::Result<Snapshot> {
        let deadline = Instant::now() + within;
        loop {
            let seen = self.runtime.block_on(async {
                let client = OperatorClient::connect_as(&self.run, CHAOS).await?;
                let snapshot = client.status().await;
                client.close().await;
                snapshot
            });
            match seen {
                Ok(snapshot) => return Ok(snapshot),
                Err(error) if Instant::now() > deadline || host::host_pid(&self.run)?.is_none() => {
                    return Err(unreachable(error.to_string()));
                }
                Err(_) => self.rest(LOOK_EVERY)?,
            }
        }
    }

    /// How often the host has started a node again; none where somebody else starts it.
    fn life(&self, node: &NodeName) -> Option<u32> {
        let state = host::state(&self.run).unwrap_or_default();
        state.nodes.iter().find(|n| n.name == node.as_str()).map(|n| n.restarts)
    }

    /// How often a fault did something, by the word of the node it was injected into. For a process that
    /// is no more, by that of its host, or by the history where it has none here.
    fn fired(
        &self,
        node: &NodeName,
        injection: Injection,
        lives: Option<u32>,
        seen: &Observed,
    ) -> u64 {
        if dies_of(injection.fault) {
            return u64::from(match lives {
                Some(_) => self.life(node) > lives,
                None => seen.noticed_ms.is_some(),
            });
        }
        let deadline = Instant::now() + FIRED_TIMEOUT;
        let mut fired = 0;
        while Instant::now() < deadline && !self.is_interrupted() {
            if let Ok(snapshot) = self.snapshot(FIRED_TIMEOUT) {
                let report = snapshot.nodes.into_iter().find(|report| report.node == *node);
                let seen = report
                    .and_then(|report| report.faults.into_iter().find(|f| f.id == injection.id));
                if let Some(seen) = seen {
                    fired = seen.fired;
                    if !seen.active {
                        break;
                    }
                }
            }
            std::thread::sleep(LOOK_EVERY * 2);
        }
        fired
    }

    /// Reads on where the last look ended: a long history is not read over and over beside the
    /// cluster that is measured.
    fn history(&mut self) -> anyhow::Result<&[Event]> {
        let path = self.run.events();
        let mut text = Vec::new();
        std::fs::File::open(&path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(self.read_bytes))?;
                file.read_to_end(&mut text)
            })
            .with_context(|| format!("cannot read {}", path.display()))?;
        // The last line may be half written.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.read_bytes += whole as u64;
        let lines = text[..whole].split(|byte| *byte == b'\n');
        let mut events: Vec<Event> =
            lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let now_ms = now_ms();
        for event in &mut events {
            if self.skewed && event.at_ms.abs_diff(now_ms) > SKEWED_MS {
                event.at_ms = now_ms;
            } else if event.at_ms > now_ms + SKEWED_MS {
                // Of a clock that was ahead before this campaign began: it says nothing of what comes.
                event.at_ms = 0;
            }
        }
        self.history.append(&mut events);
        Ok(&self.history)
    }
}

/// Whether a process stands still. One that is no more does not.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold anything, brackets too.
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}

/// Whether a process does not live through it.
fn dies_of(fault: Fault) -> bool {
    matches!(fault, Fault::Kill | Fault::TornWrite)
}

/// Set at the first signal that asks this program to stop. A second one waits for nothing.
fn interrupted(runtime: &tokio::runtime::Runtime) -> std::io::Result<Arc<AtomicBool>> {
    let _inside = runtime.enter();
    let mut interrupt = Interrupt::listen()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&interrupted);
    runtime.spawn(async move {
        loop {
            interrupt.said().await;
            if told.swap(true, Ordering::AcqRel) {
                std::process::exit(INTERRUPTED.into());
            }
        }
    });
    Ok(interrupted)
}

fn interruption(message: String) -> anyhow::Error {
    Coded { code: INTERRUPTED, message }.into()
}

fn unreachable(message: String) -> anyhow::Error {
    Coded { code: UNREACHABLE, message }.into()
}

/// A cluster that did not do what it was asked: it refused, or did not answer.
fn unanswered(error: &OperatorError) -> anyhow::Error {
    let code = if matches!(error, OperatorError::Refused(_)) { DENIED } else { UNREACHABLE };
    Coded { code, message: error.to_string() }.into()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, waitpid};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_refusal_is_told_from_silence() {
        let code =
            |error: OperatorError| unanswered(&error).downcast::<Coded>().map(|coded| coded.code);
        let refused = code(OperatorError::Refused("no such node".into())).expect("has a code");
        let silent = code(OperatorError::Unreachable("gone".into())).expect("has a code");
        assert_eq!((refused, silent), (DENIED, UNREACHABLE));
    }

    #[test]
    fn a_process_that_stands_still_is_told_from_one_that_goes_on_or_is_no_more() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("a program");
        let number = child.id();
        let pid = Pid::from_raw(i32::try_from(number).expect("a number of a process"));
        assert!(!is_stopped(number));
        for (signal, seen) in
            [(Signal::SIGSTOP, WaitPidFlag::WUNTRACED), (Signal::SIGCONT, WaitPidFlag::WCONTINUED)]
        {
            kill(pid, signal).expect("is there");
            waitpid(pid, Some(seen)).expect("is ours");
            assert_eq!(is_stopped(number), signal == Signal::SIGSTOP);
        }
        child.kill().expect("is there");
        child.wait().expect("is ours");
        assert!(!is_stopped(number));
    }
}
