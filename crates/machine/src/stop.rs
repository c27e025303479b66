//! A wish that what takes long ends, heard by whoever does it: work on a thread of its own cannot be ended
//! from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The wish. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Says it. Never blocks.
    pub fn want(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was said.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
