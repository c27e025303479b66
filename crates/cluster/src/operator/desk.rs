//! Orders, traces and questions that are under way from the coordinator to nodes, by their numbers.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crrl_types::actor::SnapshotAnswer;
use crrl_types::{NodeName, OrderAnswer, Traced};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::order_log::OrderLog;
use crate::peer::lock;

/// Orders under way at once.
pub(crate) const ORDERS_MAX: usize = 16;
/// Traces of the whole cluster at once.
pub(crate) const TRACES_MAX: usize = 8;
/// Snapshots that are being asked for at once.
pub(crate) const SNAPSHOTS_MAX: usize = 16;
/// Readings of a trace that wait to be sent to whoever traces.
const UNREAD_MAX: usize = 32;

/// What is under way.
pub(crate) struct Desk {
    pub(crate) log: OrderLog,
    /// Places of orders.
    pub(crate) orders: Semaphore,
    /// Places of traces.
    pub(crate) traces: Semaphore,
    /// Places of questions for snapshots.
    pub(crate) snapshots: Semaphore,
    /// Refusals are written down one after the other.
    pub(crate) refusals: tokio::sync::Mutex<()>,
    next: AtomicU64,
    answers: Mutex<HashMap<u64, (NodeName, oneshot::Sender<OrderAnswer>)>>,
    shown: Mutex<HashMap<u64, (NodeName, oneshot::Sender<SnapshotAnswer>)>>,
    traced: Mutex<HashMap<u64, (NodeName, mpsc::Sender<Traced>)>>,
}

/// A number that is waited for under; forgotten when dropped.
pub(crate) struct Number<'a> {
    desk: &'a Desk,
    pub(crate) id: u64,
}

impl Desk {
    /// Numbers of this life are no numbers of another.
    pub(crate) fn new(log: OrderLog, incarnation: u64) -> Self {
        Self {
            log,
            orders: Semaphore::new(ORDERS_MAX),
            traces: Semaphore::new(TRACES_MAX),
            snapshots: Semaphore::new(SNAPSHOTS_MAX),
            refusals: tokio::sync::Mutex::default(),
            next: AtomicU64::new(incarnation << 32),
            answers: Mutex::default(),
            shown: Mutex::default(),
            traced: Mutex::default(),
        }
    }

    fn number(&self) -> Number<'_> {
        Number { desk: self, id: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Waits for an actor's snapshot from a node under a number.
    pub(crate) fn expect_snapshot(
        &self,
        node: &NodeName,
    ) -> (Number<'_>, oneshot::Receiver<SnapshotAnswer>) {
        let number = self.number();
        let (sender, answer) = oneshot::channel();
        lock(&self.shown).insert(number.id, (node.clone(), sender));
        (number, answer)
    }

    /// A snapshot has come, or word that there is none.
    pub(crate) fn shown(&self, from: &NodeName, id: u64, answer: SnapshotAnswer) {
        let mut shown = lock(&self.shown);
        if shown.get(&id).is_some_and(|(node, _)| node == from)
            && let Some((_, waiting)) = shown.remove(&id)
        {
            // Whoever asked may have gone away.
            let _ = waiting.send(answer);
        }
    }

    /// Waits for a node's answer under a number.
    pub(crate) fn expect(&self, node: &NodeName) -> (Number<'_>, oneshot::Receiver<OrderAnswer>) {
        let number = self.number();
        let (sender, answer) = oneshot::channel();
        lock(&self.answers).insert(number.id, (node.clone(), sender));
        (number, answer)
    }

    /// A node's answer has come.
    pub(crate) fn answered(&self, from: &NodeName, id: u64, answer: OrderAnswer) {
        let mut answers = lock(&self.answers);
        if answers.get(&id).is_some_and(|(node, _)| node == from)
            && let Some((_, waiting)) = answers.remove(&id)
        {
            // Whoever asked may have gone away.
            let _ = waiting.send(answer);
        }
    }

    /// What a trace has seen has come; whether anybody takes it.
    pub(crate) fn traced(&self, from: &NodeName, id: u64, seen: Traced) -> bool {
        let mut traced = lock(&self.traced);
        let waiting = traced.get(&id).filter(|(node, _)| node == from);
        let is_taken = waiting.is_some_and(|(_, sender)| sender.try_send(seen).is_ok());
        if !is_taken {
            // Whoever traces finds the end of what was sent.
            traced.retain(|held, (node, _)| *held != id || node != from);
        }
        is_taken
    }
}

impl Number<'_> {
    /// Waits for what a trace of this number sees.
    pub(crate) fn traces(&self, node: &NodeName) -> mpsc::Receiver<Traced> {
        let (sender, receiver) = mpsc::channel(UNREAD_MAX);
        lock(&self.desk.traced).insert(self.id, (node.clone(), sender));
        receiver
    }
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        lock(&self.desk.answers).remove(&self.id);
        lock(&self.desk.shown).remove(&self.id);
        lock(&self.desk.traced).remove(&self.id);
    }
}
