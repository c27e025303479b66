//! A wish to stop, heard between two passes: whoever trains on a thread of its own cannot be ended from
//! outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::LearnerError;

/// The wish. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Says it. Never blocks.
    pub fn want(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Goes on unless it was said.
    ///
    /// # Errors
    /// [`LearnerError::Stopped`]: it was said.
    pub fn check(&self) -> Result<(), LearnerError> {
        if self.0.load(Ordering::Relaxed) { Err(LearnerError::Stopped) } else { Ok(()) }
    }
}
