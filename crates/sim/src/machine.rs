//! One machine: a tokio runtime of its own, run until it would wait, and killed.
//!
//! A step runs everything on the machine that can run. It never waits and never lets time pass.

use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::os;

/// A machine. Dropping it kills what runs on it.
#[derive(Debug)]
pub struct Machine {
    runtime: Option<Runtime>,
    /// What its runtime waits for events with, once it has waited.
    epoll: Option<RawFd>,
    deadline: Option<Duration>,
    /// Whether it has something to do that no event tells of.
    fresh: bool,
}

impl Machine {
    /// A machine with nothing on it.
    ///
    /// # Errors
    /// The system gives no event queue.
    pub fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime: Some(runtime), epoll: None, deadline: None, fresh: true })
    }

    /// Starts a task on it.
    ///
    /// # Panics
    /// On a machine that was killed.
    pub fn spawn<F>(&mut self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.fresh = true;
        self.runtime.as_ref().expect("a machine that was not killed").spawn(task)
    }

    /// Tasks on it that have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.runtime.as_ref().map_or(0, |runtime| runtime.metrics().num_alive_tasks())
    }

    /// When it has something to do if nothing reaches it from outside.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        if self.fresh { Some(Duration::ZERO) } else { self.deadline }
    }

    /// Runs everything that can run.
    pub fn step(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        os::step_begins();
        runtime.block_on(UntilIdle);
        self.fresh = false;
        if let Some(parked) = os::parked() {
            self.epoll = Some(parked.epoll);
            let wait = u64::try_from(parked.timeout).ok().map(Duration::from_millis);
            self.deadline = wait.map(|wait| os::now() + wait);
        }
    }

    /// Ends everything on it, in the middle of whatever it does.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Whether each of the machines has something to do now.
#[must_use]
pub fn are_due(machines: &[&Machine]) -> Vec<bool> {
    let now = os::now();
    let epolls: Vec<RawFd> = machines.iter().map(|machine| machine.epoll.unwrap_or(-1)).collect();
    let rung = os::ready(&epolls);
    let due = |machine: &Machine| machine.deadline().is_some_and(|at| at <= now);
    machines.iter().zip(rung).map(|(machine, rung)| rung || due(machine)).collect()
}

/// Resolves when the runtime would wait.
struct UntilIdle;

impl Future for UntilIdle {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if os::parked().is_some() {
            return Poll::Ready(());
        }
        os::step_waits(context.waker());
        Poll::Pending
    }
}
