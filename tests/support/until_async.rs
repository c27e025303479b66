//! As `until.rs`, beside whatever else the runtime has to do.

use std::time::{Duration, Instant};

/// How long anything may take on a machine that is busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Time between two looks: what is waited for needs the processor too.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks again and again until there is something to be seen, and gives it.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let late = Instant::now() + WAIT_MAX;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < late, "not within {} s: {what}", WAIT_MAX.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
