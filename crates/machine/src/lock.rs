//! A file that one process at a time holds locked. The system lets go of it when its holder ends,
//! however it does; the file stays.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between two looks whether another process is done.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What may be done with a lock file that others look at, before the process's own mask.
const SHARED: u32 = 0o666;
/// What may be done with one in a folder of secrets.
const PRIVATE: u32 = 0o600;

/// A lock that is held until this is dropped. Its file names the holder's process.
#[derive(Debug)]
pub struct Lock(File);

/// Closing the file alone would not do: a child that is being started has it, too, until it runs its own
/// program.
impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Lock {
    /// Takes the lock, or says which process has it; 0 is one that has not written its number yet.
    ///
    /// # Errors
    /// The file cannot be made, locked or written.
    pub fn take(path: &Path) -> io::Result<Result<Self, u32>> {
        let mut file = open(path, SHARED)?;
        match file.try_lock() {
            Ok(()) => {
                name(&mut file)?;
                Ok(Ok(Self(file)))
            }
            Err(TryLockError::WouldBlock) => Ok(Err(pid_in(file)?)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes the lock as soon as nobody else has it, in a file that is its owner's alone; says which
    /// process has it where that takes longer than `within`. Blocks.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub fn wait(path: &Path, within: Duration) -> io::Result<Result<Self, u32>> {
        let mut file = open(path, PRIVATE)?;
        let deadline = Instant::now() + within;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    // Whoever only waits needs no name, and a full disk has no room for one.
                    let _ = name(&mut file);
                    return Ok(Ok(Self(file)));
                }
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Ok(Err(pid_in(file)?));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_EVERY),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Who has the lock, if anybody. Writes nothing: looking works on a full disk.
    ///
    /// # Errors
    /// The file cannot be read or looked at.
    pub fn holder(path: &Path) -> io::Result<Option<u32>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(pid_in(file)?)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn open(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(mode).open(path)
}

fn name(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(std::process::id().to_string().as_bytes())
}

fn pid_in(mut file: File) -> io::Result<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text.trim().parse().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_has_it_and_others_are_told_who_until_it_is_let_go_of() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lock");
        let me = std::process::id();
        assert_eq!(Lock::holder(&path).expect("nothing there"), None);
        let held = Lock::take(&path).expect("can be made").expect("is free");
        assert_eq!(Lock::take(&path).expect("is there").expect_err("is held"), me);
        let waited = Lock::wait(&path, Duration::ZERO).expect("is there");
        assert_eq!(waited.expect_err("is held"), me);
        assert_eq!(Lock::holder(&path).expect("is there"), Some(me));
        drop(held);
        assert_eq!(Lock::holder(&path).expect("is there"), None);
        Lock::take(&path).expect("is there").expect("is free again");
    }

    #[test]
    fn it_is_let_go_of_though_a_child_that_is_being_started_has_its_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lock");
        let held = Lock::take(&path).expect("can be made").expect("is free");
        // As a fork leaves it: another descriptor of the same open file.
        let inherited = held.0.try_clone().expect("descriptors are left");
        drop(held);
        assert_eq!(Lock::holder(&path).expect("is there"), None);
        drop(inherited);
    }

    #[test]
    fn whoever_waits_has_it_once_the_other_is_done_and_the_file_for_itself() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lock");
        let first = Lock::wait(&path, Duration::ZERO).expect("can be made").expect("is free");
        let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = std::thread::scope(|threads| {
            let waits = threads.spawn(|| Lock::wait(&path, Duration::from_secs(60)));
            drop(first);
            waits.join().expect("no panic")
        });
        second.expect("is there").expect("is free in time");
    }
}
