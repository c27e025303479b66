//! What a step is at, for whoever watches it: a step that hangs is seen where it hangs.

use std::fmt;
use std::sync::Arc;

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Reading what the proximal and the reference policy say of the batch.
    Score,
    /// Forward and backward passes.
    Pass,
    /// The optimizer, and bringing weights to the device.
    Update,
}

/// Whom a learner tells, if anybody.
#[derive(Clone, Default)]
pub(crate) struct Listener(Option<Arc<dyn Fn(Phase) + Send + Sync>>);

impl Listener {
    pub(crate) fn new(listener: impl Fn(Phase) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(crate) fn tell(&self, phase: Phase) {
        if let Some(listener) = &self.0 {
            listener(phase);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.0.is_some()).finish()
    }
}
