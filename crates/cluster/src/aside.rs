//! Work that takes a while, off the runtime's threads.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does the work; `None` if it panicked. A runtime of one thread, as a simulation has, has nobody else
/// to do it.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Some(work()),
        _ => tokio::task::spawn_blocking(work).await.ok(),
    }
}
