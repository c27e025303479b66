//! Room on the disk: a fault may take it away, and a node waits a while for it to come back.
//!
//! A disk that is full is mended by somebody else: a log is rotated, a person removes something. A node
//! that waits loses nothing; one that ends takes the run with it. It waits as long as its
//! configuration says (`cluster.disk_wait_s`), and then ends with the file named.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::faults::{MACHINE, lock};

/// Time between two tries to write.
const TRY_EVERY: Duration = Duration::from_millis(250);

static WAIT_MS: AtomicU64 = AtomicU64::new(0);
static WAITING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How long this process waits for room on a full disk. Not at all until this is called.
pub fn wait_for_room(time: Duration) {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    WAIT_MS.store(ms, Ordering::Relaxed);
}

/// What room is waited for, if any is.
#[must_use]
pub fn waiting() -> Option<PathBuf> {
    lock(&WAITING).first().cloned()
}

/// To be called before something is written that must not be lost. Takes its time where the disk is
/// slow.
///
/// # Errors
/// [`io::ErrorKind::StorageFull`] where the disk is full on purpose.
pub fn before_write() -> io::Result<()> {
    MACHINE.before_write()
}

/// Writes, again and again while the disk is full, as long as this process waits for room. What is
/// given must be able to begin anew. Blocks.
///
/// # Errors
/// What writing says: at once where that is not [`is_full`].
pub fn until_room<T, E: Error + 'static>(
    path: &Path,
    write: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let time = Duration::from_millis(WAIT_MS.load(Ordering::Relaxed));
    until(path, time, write)
}

fn until<T, E: Error + 'static>(
    path: &Path,
    time: Duration,
    mut write: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let mut waiting: Option<(Instant, Waiting)> = None;
    loop {
        let error = match write() {
            Ok(done) => {
                if let Some((since, _)) = &waiting {
                    let after_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(path = %path.display(), after_ms, "there is room again");
                }
                return Ok(done);
            }
            Err(error) => error,
        };
        let since = waiting.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        if !is_full(&error) || since.elapsed() >= time {
            return Err(error);
        }
        if waiting.is_none() {
            let wait_s = time.as_secs();
            tracing::warn!(path = %path.display(), wait_s, %error, "no space left: waiting for room");
            waiting = Some((since, Waiting::begin(path)));
        }
        std::thread::sleep(TRY_EVERY.min(time));
    }
}

/// Somebody waits for room, until this is dropped.
struct Waiting(PathBuf);

impl Waiting {
    fn begin(path: &Path) -> Self {
        lock(&WAITING).push(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = lock(&WAITING);
        if let Some(at) = waiting.iter().position(|path| *path == self.0) {
            waiting.swap_remove(at);
        }
    }
}

/// Whether an error is, or comes from, a disk or a quota that is full. A store of its own says so in
/// its text alone.
#[must_use]
pub fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            // What an error of input and output wraps is not its source: its source is that one's.
            let within = io.get_ref().is_some_and(|wrapped| is_full(wrapped));
            if within
                || matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            {
                return true;
            }
        }
        let text = error.to_string().to_lowercase();
        if text.contains("no space left") || text.contains("disk is full") {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    #[test]
    fn room_that_comes_back_in_time_is_all_that_happened() {
        let path = Path::new("/somewhere/in/time");
        let mut tries = 0;
        let done = until(path, Duration::from_secs(60), || {
            tries += 1;
            if tries == 1 {
                return Err(full());
            }
            assert_eq!(waiting().as_deref(), Some(path));
            Ok::<_, io::Error>(7)
        });
        assert_eq!((done.expect("room"), tries), (7, 2));
        assert_eq!(waiting(), None);
    }

    #[test]
    fn nobody_waits_for_ever_nor_for_another_error() {
        let path = Path::new("/somewhere/else");
        let error = until(path, Duration::ZERO, || Err::<(), _>(full())).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let mut tries = 0;
        let denied = || {
            tries += 1;
            Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied))
        };
        until(path, Duration::from_secs(60), denied).expect_err("denied");
        assert_eq!(tries, 1);
    }

    #[test]
    fn a_full_disk_is_known_however_deep_it_is_wrapped() {
        let wrapped = io::Error::other(full());
        assert!(is_full(&wrapped) && is_full(&full()));
        assert!(is_full(&io::Error::other("database or disk is full")));
        assert!(!is_full(&io::Error::other("no such file")));
    }
}
