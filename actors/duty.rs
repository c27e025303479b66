//! What a rollout node does about new work. It is the node's, not the actor's: an actor that is started
//! again finds it as it was. A process that is started again takes work.

use std::sync::Arc;

use tokio::sync::watch;

/// What is done about work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Duty {
    /// As much as there is room for.
    #[default]
    Works,
    /// What is there is finished, and no more taken.
    Drains,
    /// What is there is given back, and no more taken.
    Rests,
}

/// The duty of one node. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Roster(Arc<watch::Sender<Duty>>);

impl Roster {
    /// What it is now.
    #[must_use]
    pub fn now(&self) -> Duty {
        *self.0.borrow()
    }

    /// Changes it; whether it was another.
    pub fn set(&self, duty: Duty) -> bool {
        self.0.send_if_modified(|held| std::mem::replace(held, duty) != duty)
    }

    /// Changes of it from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Duty> {
        self.0.subscribe()
    }
}
