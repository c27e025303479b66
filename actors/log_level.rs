//! How much this process writes into its log, changed while it runs. The program that started the log
//! knows how; whoever has none cannot change it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 256;
/// Longest time a change may be limited to.
pub const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Takes a filter, or says what is wrong with it.
pub type SetFilter = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The log's level. Cloning shares it.
#[derive(Clone)]
pub struct LogLevel {
    set: SetFilter,
    at_start: Arc<str>,
    /// How often it was changed: a change that is over must not undo a later one.
    changes: Arc<AtomicU64>,
}

impl LogLevel {
    /// Of a log that was started with a filter.
    #[must_use]
    pub fn new(at_start: &str, set: SetFilter) -> Self {
        Self { set, at_start: at_start.into(), changes: Arc::default() }
    }

    /// Writes by another filter (empty: as it was started), for so long or until the next change. Gives
    /// the filter.
    ///
    /// # Errors
    /// What is wrong with the filter.
    pub fn change(&self, filter: &str, time: Option<Duration>) -> Result<String, String> {
        if filter.len() > FILTER_BYTES_MAX {
            return Err(format!("the filter is longer than {FILTER_BYTES_MAX} bytes"));
        }
        let filter = if filter.is_empty() { &*self.at_start } else { filter };
        (self.set)(filter)?;
        let change = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        tracing::info!(filter, for_ms = time.map(|t| t.as_millis() as u64), "the log's level");
        if let Some(time) = time {
            let level = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                level.over(change);
            });
        }
        Ok(filter.to_owned())
    }

    fn over(&self, change: u64) {
        if self.changes.load(Ordering::Acquire) != change {
            return;
        }
        match (self.set)(&self.at_start) {
            Ok(()) => tracing::info!(filter = &*self.at_start, "the log's level, as it was"),
            Err(error) => tracing::error!(error, "the log's level stays as it is"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_change_ends_with_its_time_and_never_undoes_a_later_one() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let set: SetFilter = {
            let said = Arc::clone(&said);
            Arc::new(move |filter: &str| match filter {
                "nonsense" => Err("it is none".into()),
                filter => {
                    said.lock().expect("no panic").push(filter.to_owned());
                    Ok(())
                }
            })
        };
        let level = LogLevel::new("info", set);
        let short = Some(Duration::from_millis(20));
        level.change("debug", short).expect("makes sense");
        level.change("trace", short).expect("makes sense");
        assert!(level.change("nonsense", short).is_err());
        let deadline = Instant::now() + Duration::from_secs(10);
        while said.lock().expect("no panic").len() < 3 {
            assert!(Instant::now() < deadline, "stays as it is");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        level.change("", None).expect("makes sense");
        assert_eq!(*said.lock().expect("no panic"), ["debug", "trace", "info", "info"]);
    }
}
