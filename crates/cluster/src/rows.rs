//! What of a node is watched beside its actors: threads of their own, pools.

use std::fmt;

use crrl_types::actor::ActorReport;

use crate::slot::Shown;

/// A row among those of the node's actors. Answered off counters: none of it may wait for what the
/// row is of.
pub trait Row: Send + Sync {
    /// Unique in its node, among actors too.
    fn name(&self) -> &str;

    /// What it is doing.
    fn report(&self) -> ActorReport;

    /// Its state in more words, if it has any.
    fn snapshot(&self) -> Shown;
}

impl fmt::Debug for dyn Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("name", &self.name()).finish()
    }
}
