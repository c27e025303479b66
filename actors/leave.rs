//! The wish that this node leaves: said by whoever knows that there is nothing more to do, heard
//! by the node. Said once; what is said later changes nothing.

use std::sync::Arc;

use crrl_control::coordinator::Loss;
use crrl_transport::CLOSED_BY_PEER;
use tokio::sync::watch;

/// The cause a node gives its peers that leaves because its work is done or a person wants it. Other
/// builds give it as well: its words are kept.
pub const LEAVING: &str = "leaving";
/// The same of a node that is started again at once.
pub const LEAVING_FOR_A_RESTART: &str = "leaving for a restart";

/// How a node was lost, by what the mesh says of the end of its connection.
#[must_use]
pub fn loss(reason: &str) -> Loss {
    match reason.strip_prefix(CLOSED_BY_PEER) {
        Some(LEAVING | LEAVING_FOR_A_RESTART) => Loss::Planned,
        _ => Loss::Unplanned,
    }
}

/// Why a node leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Farewell {
    /// Its work is done, or a person said so.
    Done(String),
    /// It cannot go on, and starting it again would not help until a person has done something.
    Hopeless(String),
}

/// The wish. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Leave(Arc<watch::Sender<Option<Farewell>>>);

impl Default for Leave {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Leave {
    /// Says that the node is to leave. Never blocks.
    pub fn say(&self, farewell: Farewell) {
        self.0.send_if_modified(|said| {
            let first = said.is_none();
            said.get_or_insert(farewell);
            first
        });
    }

    /// Says that the node is to leave for good if an error is of a disk that is full: nothing but a
    /// person helps against that.
    pub fn say_if_full(&self, error: &(dyn std::error::Error + 'static)) {
        if crrl_machine::disk::is_full(error) {
            self.say(Farewell::Hopeless(error.to_string()));
        }
    }

    /// What was said, if anything was.
    #[must_use]
    pub fn heard(&self) -> Option<Farewell> {
        self.0.borrow().clone()
    }

    /// Resolves once somebody has said so.
    pub async fn said(&self) -> Farewell {
        let mut said = self.0.subscribe();
        let said = said.wait_for(Option::is_some).await.expect("`self` holds the sender");
        said.clone().expect("it was waited for")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_says_so_and_nothing_more_was_to_leave() {
        let said = |cause: &str| loss(&format!("{CLOSED_BY_PEER}{cause}"));
        assert_eq!(said(LEAVING), Loss::Planned);
        assert_eq!(said(LEAVING_FOR_A_RESTART), Loss::Planned);
        assert_eq!(said(&format!("{LEAVING}: the engine has ended")), Loss::Unplanned);
        assert_eq!(loss(LEAVING), Loss::Unplanned, "it is not the peer who says so");
        assert_eq!(loss("nothing was heard from it (idle timeout)"), Loss::Unplanned);
    }

    #[tokio::test]
    async fn the_first_word_counts_whoever_listens_when() {
        let leave = Leave::default();
        let early = tokio::spawn({
            let leave = leave.clone();
            async move { leave.said().await }
        });
        let first = Farewell::Hopeless("the disk is full".into());
        leave.say(first.clone());
        leave.say(Farewell::Done("the run is over".into()));
        assert_eq!(leave.said().await, first);
        assert_eq!(early.await.expect("no panic"), first);
    }
}
