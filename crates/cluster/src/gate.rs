//! What keeps an actor from its next message. It opens by itself: whoever shut it may be gone.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

/// Open, or shut until some time. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<watch::Sender<Option<Instant>>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Gate {
    pub(crate) fn shut(&self, until: Instant) {
        self.0.send_replace(Some(until));
    }

    /// Opens it; whether it was shut.
    pub(crate) fn open(&self) -> bool {
        let was_shut = self.is_shut();
        self.0.send_replace(None);
        was_shut
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Resolves as soon as it is open.
    pub(crate) async fn passed(&self) {
        // Almost always.
        if self.0.borrow().is_none() {
            return;
        }
        let mut shut = self.0.subscribe();
        loop {
            let Some(until) = *shut.borrow_and_update() else { return };
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {
                    // Unless somebody shut it for longer meanwhile.
                    self.0.send_if_modified(|at| *at == Some(until) && at.take().is_some());
                }
                _ = shut.changed() => {}
            }
        }
    }
}
