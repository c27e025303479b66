//! The wish of a person that a command stops: Ctrl-C, SIGTERM, or a terminal that was closed.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears signals from the moment it is made: none is lost between two waits.
#[derive(Debug)]
pub(crate) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Interrupt {
    /// Begins to listen. Must be called on a runtime.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves at the first of them.
    pub(crate) async fn said(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
