//! Examples made by a producer thread, a bounded number ahead.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::example::Example;

/// Examples waiting at most: enough to hide a slow one, few enough to be made afresh.
const AHEAD: usize = 256;

/// A producer that makes nothing for this long has hung.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// A stream of examples, made in order on a thread of its own.
///
/// Dropping it stops the thread at its next example.
#[derive(Debug)]
pub struct Feed {
    receiver: Option<Receiver<Result<Example, String>>>,
    thread: Option<JoinHandle<()>>,
    next: u64,
}

/// A producer that gives no more examples.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// It failed.
    #[error("making training examples: {0}")]
    Producer(String),
    /// It hangs.
    #[error("no training example was made for {} s", WAIT_MAX.as_secs())]
    Silent,
    /// It ended or panicked.
    #[error("the thread that makes training examples ended")]
    Ended,
}

impl Feed {
    /// Starts making examples `from`, `from + 1`, ...; the same number must give the same example,
    /// so that a resumed run sees what the first would have seen.
    ///
    /// # Panics
    /// When the system has no thread left.
    pub fn start(
        from: u64,
        mut make: impl FnMut(u64) -> Result<Example, String> + Send + 'static,
    ) -> Self {
        let (sender, receiver) = sync_channel(AHEAD);
        let produce = move || {
            for index in from.. {
                let made = make(index);
                let failed = made.is_err();
                if sender.send(made).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("examples".into()).spawn(produce);
        let thread = Some(thread.expect("the system starts a thread"));
        Self { receiver: Some(receiver), thread, next: from }
    }

    /// Number of the next example; a feed started from here goes on where this one is.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.next
    }

    /// The next examples, until they have `tokens` tokens together; at least one.
    ///
    /// # Errors
    /// When the producer failed, ended or hangs.
    pub fn batch(&mut self, tokens: usize) -> Result<Vec<Example>, FeedError> {
        let receiver = self.receiver.as_ref().expect("kept until dropped");
        let (mut batch, mut count) = (Vec::new(), 0);
        while batch.is_empty() || count < tokens {
            let example = match receiver.recv_timeout(WAIT_MAX) {
                Ok(Ok(example)) => example,
                Ok(Err(reason)) => return Err(FeedError::Producer(reason)),
                Err(RecvTimeoutError::Timeout) => return Err(FeedError::Silent),
                Err(RecvTimeoutError::Disconnected) => return Err(FeedError::Ended),
            };
            self.next += 1;
            count += example.tokens.len();
            batch.push(example);
        }
        Ok(batch)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // The producer's next send fails once the receiver is gone.
        self.receiver = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that makes training examples had panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(index: u64) -> Result<Example, String> {
        let tokens = vec![u32::try_from(index).expect("small"); 3];
        Ok(Example { mask: vec![true; tokens.len()], tokens })
    }

    #[test]
    fn a_feed_started_from_a_cursor_goes_on_where_the_first_was() {
        let mut whole = Feed::start(0, numbered);
        let mut first = Feed::start(0, numbered);
        let mut got = first.batch(7).expect("made");
        let mut second = Feed::start(first.cursor(), numbered);
        got.extend(second.batch(5).expect("made"));
        assert_eq!(got, whole.batch(15).expect("made"));
    }

    #[test]
    fn a_failing_producer_is_reported() {
        let mut feed = Feed::start(0, |_| Err("no traces".into()));
        assert!(feed.batch(1).expect_err("failed").to_string().contains("no traces"));
    }
}
