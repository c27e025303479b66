//! What a machine finds on its disk after a crash.
//!
//! The machine's files are real ones in a folder of its own. At the moment of a crash, between any
//! two calls or in the middle of one, the folder is copied; what the dying machine does after that
//! goes to the old folder, which nobody reads again. If the power failed, files that were not
//! brought to the disk lose the end that was not. A rename counts as durable, and SQLite's own files
//! are taken as they are: SQLite is trusted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{Rng as _, SeedableRng};

use crate::os::{Outcome, Watcher, Write};
use crate::{Rng, os};

/// Error numbers of a disk that is full, and of one that is gone.
const FULL: i32 = libc::ENOSPC;
const GONE: i32 = libc::EIO;

/// How a machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: what it has written is kept.
    Kill,
    /// The power fails: of what was not synced, a part is lost.
    Power,
}

/// A machine's disk. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

struct State {
    folder: PathBuf,
    rng: Rng,
    /// Files with an end that is not on the disk yet, by their numbers: the length that is.
    unsynced: BTreeMap<u64, u64>,
    full: bool,
    /// Calls until a crash, and of which kind.
    crash: Option<(u64, Crash)>,
    /// Once it has crashed: whether there is a copy.
    crashed: Option<Result<(), String>>,
    at_crash: Box<dyn Fn() + Send>,
    calls: u64,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk({})", self.lock().folder.display())
    }
}

impl Disk {
    /// The disk of a machine whose files are in `folder`. `at_crash` is called at the very moment
    /// of a crash.
    #[must_use]
    pub fn new(folder: PathBuf, seed: u64, at_crash: impl Fn() + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(State {
            folder,
            rng: Rng::seed_from_u64(seed),
            unsynced: BTreeMap::new(),
            full: false,
            crash: None,
            crashed: None,
            at_crash: Box::new(at_crash),
            calls: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What sees the machine's writes while it is stepped.
    #[must_use]
    pub fn watcher(&self) -> Box<dyn Watcher> {
        Box::new(self.clone())
    }

    /// The disk is full from now on, or no more.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// The machine stops in the middle of the call that follows so many others.
    pub fn crash_at(&self, calls: u64, crash: Crash) {
        self.lock().crash = Some((calls, crash));
    }

    /// The machine does not stop by itself any more.
    pub fn no_crash(&self) {
        self.lock().crash = None;
    }

    /// The machine stops now, if it has not yet.
    pub fn crash(&self, crash: Crash) {
        // The copy is none of the machine's own writes.
        let watching = os::unwatch();
        self.lock().stop(crash);
        if let Some(watching) = watching {
            os::watch(watching);
        }
    }

    /// Whether the machine has stopped.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.lock().crashed.is_some()
    }

    /// Calls that changed a file, so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// The machine, killed by now, gets the disk as it was when it stopped.
    ///
    /// # Errors
    /// The system refuses.
    pub fn restart(&self) -> io::Result<()> {
        let mut state = self.lock();
        if let Some(copied) = state.crashed.take() {
            copied.map_err(io::Error::other)?;
            fs::remove_dir_all(&state.folder)?;
            fs::rename(state.copy(), &state.folder)?;
        }
        state.crash = None;
        state.unsynced.clear();
        Ok(())
    }
}

impl State {
    fn copy(&self) -> PathBuf {
        self.folder.with_extension("copy")
    }

    fn stop(&mut self, crash: Crash) {
        if self.crashed.is_none() {
            (self.at_crash)();
            let (from, to) = (self.folder.clone(), self.copy());
            self.crashed = Some(self.copy_folder(&from, &to, crash).map_err(|e| e.to_string()));
        }
    }

    fn copy_folder(&mut self, from: &Path, to: &Path, crash: Crash) -> io::Result<()> {
        fs::create_dir_all(to)?;
        let mut entries: Vec<_> = fs::read_dir(from)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, target) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.copy_folder(&path, &target, crash)?;
            } else if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&path)?, &target)?;
            } else if !path.to_string_lossy().ends_with("-shm") {
                fs::copy(&path, &target)?;
                self.lose_end(&path, &target, crash)?;
            }
        }
        Ok(())
    }

    /// Of what was not on the disk, a part is lost.
    fn lose_end(&mut self, path: &Path, copy: &Path, crash: Crash) -> io::Result<()> {
        let file = fs::metadata(path)?;
        let of_sqlite = path.to_string_lossy().contains(".sqlite");
        let Some(synced) = self.unsynced.get(&file.ino()).copied() else { return Ok(()) };
        if crash == Crash::Kill || of_sqlite || file.len() <= synced {
            return Ok(());
        }
        let kept = self.rng.random_range(synced..=file.len());
        fs::OpenOptions::new().write(true).open(copy)?.set_len(kept)
    }
}

impl Watcher for Disk {
    fn about_to(&mut self, write: Write) -> Outcome {
        let mut state = self.lock();
        if state.crashed.is_some() {
            return Outcome::Fails(GONE);
        }
        state.calls += 1;
        if let Some((left, crash)) = &mut state.crash {
            if *left == 0 {
                let crash = *crash;
                if let Write::Bytes { file, len, bytes } = write {
                    state.unsynced.entry(file).or_insert(len);
                    return Outcome::Torn(state.rng.random_range(0..=bytes));
                }
                state.stop(crash);
                return Outcome::Fails(GONE);
            }
            *left -= 1;
        }
        match write {
            Write::Bytes { .. } if state.full => return Outcome::Fails(FULL),
            Write::Bytes { file, len, .. } => {
                state.unsynced.entry(file).or_insert(len);
            }
            Write::Cut { file, len } => {
                if let Some(synced) = state.unsynced.get_mut(&file) {
                    *synced = len.min(*synced);
                }
            }
            Write::Sync { file, .. } => {
                state.unsynced.remove(&file);
            }
            Write::Rename => {}
        }
        Outcome::Done
    }

    fn torn(&mut self) {
        let mut state = self.lock();
        let crash = state.crash.map_or(Crash::Kill, |(_, crash)| crash);
        state.stop(crash);
    }
}
