//! Last good copies of a run store, and going back to one.
//!
//! `copy-00000007/` holds the store as it was at one moment (`run.sqlite`) and, written last,
//! `manifest.json` with its hash. A folder appears whole or not at all. Every page of the store is checked
//! first; then the copy is written anew from what the store says, table by table, and one that does not
//! check out is none. Whoever writes to the store goes on meanwhile.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crrl_machine::{Stop, clock, disk};
use crrl_types::{Digest, Step};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::read::Reader;
use crate::row::Op;
use crate::stop::{heard_by, unless_wanted};
use crate::{schema, writer};

const STORE: &str = "run.sqlite";
const MANIFEST: &str = "manifest.json";
/// Version of the layout.
const FORMAT: u32 = 1;
/// Files SQLite keeps beside a store: what is not yet in it, and an index of that.
const BESIDE: [&str; 2] = ["-wal", "-shm"];
/// What a store that takes another's place ends in until it has.
const DRAFT: &str = ".restored";
/// What a draft ends in until it is whole.
const DRAFT_PART: &str = ".restored.part";
/// Room that is left to others, whatever a copy takes.
const ROOM_LEFT_BYTES: u64 = 16 << 20;
/// Damaged files that may lie beside a store.
const ASIDE_MAX: u32 = 1_000;

/// Number of the next folder that this process writes a copy in.
static PARTS: AtomicU64 = AtomicU64::new(1);
/// Folders that this process writes copies in: a copier that was let go of may still be at its last one
/// when the next has begun.
static UNDER_WAY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// What is known of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// Last optimizer step that is committed in it.
    pub step: Step,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub digest: Digest,
    /// When it was made, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How long that took.
    pub took_ms: u64,
}

/// A copy that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoodCopy {
    /// The file.
    pub path: PathBuf,
    /// What is known of it.
    pub manifest: Manifest,
}

/// What [`Copies::newest`] finds.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest one that is whole.
    pub copy: Option<GoodCopy>,
    /// What is wrong with newer ones, newest first.
    pub damaged: Vec<String>,
}

/// The copies of one store.
#[derive(Debug, Clone)]
pub struct Copies {
    dir: PathBuf,
    keep: usize,
}

impl Copies {
    /// Copies in `dir`, of which the newest `keep` (at least one) stay.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, keep: usize) -> Self {
        Self { dir: dir.into(), keep: keep.max(1) }
    }

    /// Whether there is any, whole or damaged.
    #[must_use]
    pub fn holds_any(&self) -> bool {
        self.list().is_ok_and(|list| !list.is_empty())
    }

    /// Whether there are copies of a store that is missing itself, or empty: whoever opened it would
    /// begin another.
    #[must_use]
    pub fn outlive(&self, store: &Path) -> bool {
        let is_gone = match std::fs::metadata(store) {
            Ok(file) => file.len() == 0,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        is_gone && self.holds_any()
    }

    /// Makes one of a store that others may write to, unless it is told to stop.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the store's path: the store itself is damaged. Anything else leaves
    /// earlier copies as they are.
    pub fn make(&self, store: &Path, stop: &Stop) -> Result<Manifest, StoreError> {
        std::fs::create_dir_all(&self.dir).map_err(|error| of(&self.dir, &error))?;
        self.clear_parts();
        let part = Part::begin(&self.dir);
        let made = self.make_part(store, &part.0, stop).and_then(|manifest| {
            self.name(&part.0, stop)?;
            Ok(manifest)
        });
        drop(part);
        self.prune();
        made
    }

    /// Gives a copy that is whole the next number, unless it is to stop: another copier may have made a
    /// newer one by then.
    fn name(&self, part: &Path, stop: &Stop) -> Result<(), StoreError> {
        // Two that end together take two numbers.
        let turn = under_way();
        unless_wanted(stop, part)?;
        let number = self.list()?.last().map_or(1, |(number, _)| number + 1);
        let target = self.dir.join(format!("copy-{number:08}"));
        let named = std::fs::rename(part, &target);
        drop(turn);
        named.and_then(|()| sync(&self.dir)).map_err(|error| of(&target, &error))
    }

    fn make_part(&self, store: &Path, part: &Path, stop: &Stop) -> Result<Manifest, StoreError> {
        let began = Instant::now();
        let target = part.join(STORE);
        self.has_room(store)?;
        disk::before_write()
            .and_then(|()| std::fs::create_dir_all(part))
            .map_err(|error| of(part, &error))?;
        write_out(store, &target, stop)?;
        let copy = Reader::open(&target)?;
        copy.stop_at(stop);
        copy.whole()?;
        let step = copy.last_committed()?.unwrap_or_default();
        drop(copy);
        // Bringing it to the disk is the one thing that cannot be interrupted.
        unless_wanted(stop, &target)?;
        let (bytes, digest) = File::open(&target)
            .and_then(|file| file.sync_all())
            .and_then(|()| hash(&target, stop))
            .map_err(|error| of(&target, &error))?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let at_ms = clock::unix_ms();
        let manifest = Manifest { format: FORMAT, step, bytes, digest, at_ms, took_ms };
        let path = part.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| of(&path, &io::Error::from(error)))?;
        File::create(&path)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| sync(part))
            .map_err(|error| of(&path, &error))?;
        Ok(manifest)
    }

    /// A copy that takes the last room would hold up what must not be lost.
    fn has_room(&self, store: &Path) -> Result<(), StoreError> {
        let len = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let wanted = len(store) + len(&beside(store, BESIDE[0])) + ROOM_LEFT_BYTES;
        let free = free_bytes(&self.dir)?;
        if free < wanted { Err(StoreError::Full { path: self.dir.clone() }) } else { Ok(()) }
    }

    /// The newest copy that is what its manifest says, and whole by SQLite's own check.
    ///
    /// # Errors
    /// The folder cannot be read. A damaged copy is no error.
    pub fn newest(&self) -> Result<Found, StoreError> {
        let mut found = Found::default();
        for (_, folder) in self.list()?.into_iter().rev() {
            match check(&folder) {
                Ok(copy) => {
                    found.copy = Some(copy);
                    return Ok(found);
                }
                Err(why) => found.damaged.push(format!("{} is damaged: {why}", folder.display())),
            }
        }
        Ok(found)
    }

    /// Numbers and folders of copies, oldest first.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>, StoreError> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(of(&self.dir, &error)),
        };
        let mut list: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name();
                let number = name.to_str()?.strip_prefix("copy-")?.parse().ok()?;
                Some((number, entry.path()))
            })
            .collect();
        list.sort_unstable();
        Ok(list)
    }

    /// What a life left that ended while it copied; not what this process is writing.
    fn clear_parts(&self) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_part = name.starts_with(".copy-") && name.ends_with(".part");
            if is_part && !under_way().contains(&entry.path()) {
                // What cannot be removed costs its room and nothing else.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    fn prune(&self) {
        let Ok(list) = self.list() else { return };
        for (_, old) in &list[..list.len().saturating_sub(self.keep)] {
            if let Err(error) = std::fs::remove_dir_all(old) {
                tracing::warn!(path = %old.display(), %error, "an old copy of the ledger stays");
            }
        }
    }
}

/// A folder that a copy is written in. Dropped, it goes, unless it has become a copy.
#[derive(Debug)]
struct Part(PathBuf);

impl Part {
    /// One of a name that nothing has; the folder is yet to be made.
    fn begin(dir: &Path) -> Self {
        loop {
            let part = dir.join(format!(".copy-{}.part", PARTS.fetch_add(1, Ordering::Relaxed)));
            // What an earlier life left and could not be removed keeps its name.
            if !part.exists() {
                under_way().insert(part.clone());
                return Self(part);
            }
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Of no use to anybody, and its room may be.
        let _ = std::fs::remove_dir_all(&self.0);
        under_way().remove(&self.0);
    }
}

fn under_way() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn free_bytes(folder: &Path) -> Result<u64, StoreError> {
    let stat =
        nix::sys::statvfs::statvfs(folder).map_err(|error| of(folder, &io::Error::from(error)))?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// Makes changes in a copy of a good copy, beside the store: nothing is changed of either. Gives the file,
/// which is there whole or not at all.
///
/// # Errors
/// [`StoreError`]: no space, a copy that cannot be read, a change that cannot be made. A draft of before
/// stays as it is.
pub fn draft(copy: &GoodCopy, store: &Path, ops: &[Op]) -> Result<PathBuf, StoreError> {
    let (draft, part) = (beside(store, DRAFT), beside(store, DRAFT_PART));
    // Of a try that was cut off: changes it had begun would be taken back in this one.
    discard(&part)?;
    let folder = store.parent().unwrap_or(Path::new("."));
    let wanted = copy.manifest.bytes.saturating_add(ROOM_LEFT_BYTES);
    let free = free_bytes(folder)?;
    if free < wanted {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        return Err(StoreError::Other {
            path: draft,
            detail: format!(
                "no space left for the restored ledger: it takes {} MiB, and {} MiB are free; free \
                 some, or move the run to another disk, and give the same command again. Nothing was \
                 changed",
                mib(wanted),
                free >> 20
            ),
        });
    }
    let written = disk::before_write()
        .and_then(|()| std::fs::copy(&copy.path, &part))
        .map_err(|error| of(&part, &error))
        .and_then(|_| writer::rewrite(&part, ops))
        .and_then(|()| {
            File::open(&part)
                .and_then(|file| file.sync_all())
                .and_then(|()| std::fs::rename(&part, &draft))
                .and_then(|()| sync(folder))
                .map_err(|error| of(&draft, &error))
        });
    if let Err(error) = written {
        // What cannot be removed costs its room and nothing else.
        let _ = discard(&part);
        return Err(error);
    }
    Ok(draft)
}

/// Removes a draft that is not to take a store's place after all, if it is there.
///
/// # Errors
/// It is there and cannot be removed.
pub fn discard(draft: &Path) -> Result<(), StoreError> {
    for file in [draft, beside(draft, "-journal").as_path()] {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(of(file, &error)),
            _ => {}
        }
    }
    Ok(())
}

/// Where a damaged store would be put.
///
/// # Errors
/// Too many lie there.
pub fn aside(store: &Path) -> Result<PathBuf, StoreError> {
    let is_free = |place: &PathBuf| !place.exists() && !beside(place, BESIDE[0]).exists();
    places(store).find(is_free).ok_or_else(|| StoreError::Other {
        path: store.to_owned(),
        detail: format!("{ASIDE_MAX} damaged files lie beside it: remove some"),
    })
}

/// Where an [`install`] that did not come to its end has put the store, whose place nothing has taken.
#[must_use]
pub fn put_aside(store: &Path) -> Option<PathBuf> {
    let is_between = !store.exists() && beside(store, DRAFT).exists();
    places(store).filter(|place| is_between && place.exists()).last()
}

/// Where damaged stores are put, in order.
fn places(store: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=ASIDE_MAX).map(move |number| beside(store, &format!(".damaged-{number}")))
}

/// Puts a store, if there is one, at [`aside`], or what was left of it beside one that was [`put_aside`],
/// and a draft in its place. A crash in between leaves the store as it is, or none, and the draft.
///
/// # Errors
/// [`StoreError`].
pub fn install(draft: &Path, store: &Path, aside: &Path) -> Result<(), StoreError> {
    let folder = store.parent().unwrap_or(Path::new("."));
    if store.exists() {
        std::fs::rename(store, aside)
            .and_then(|()| sync(folder))
            .map_err(|error| of(store, &error))?;
    }
    // Its log before there is another store, into which it would be written. A store without its log
    // would look whole; none at all does not.
    for suffix in BESIDE {
        let (from, to) = (beside(store, suffix), beside(aside, suffix));
        if from.exists() {
            std::fs::rename(&from, &to).map_err(|error| of(&from, &error))?;
        }
    }
    sync(folder)
        .and_then(|()| std::fs::rename(draft, store))
        .and_then(|()| sync(folder))
        .map_err(|error| of(store, &error))
}

/// A file's name with something behind it.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn of(path: &Path, error: &io::Error) -> StoreError {
    StoreError::of_file(path, error)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes what a store says into a new file, if the store is whole.
fn write_out(store: &Path, target: &Path, stop: &Stop) -> Result<(), StoreError> {
    let wrap = |error: rusqlite::Error| match error.sqlite_error_code() {
        // Of the two files, the new one finds no room.
        Some(ErrorCode::DiskFull) => StoreError::of(target, &error),
        _ => StoreError::of(store, &error),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(store, flags).map_err(wrap)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(wrap)?;
    heard_by(&connection, stop);
    schema::check(&connection, store)?;
    // Writing it out reads neither indexes nor pages that are free.
    schema::whole(&connection, store, "integrity_check")?;
    let path = target.to_str().ok_or_else(|| StoreError::Other {
        path: target.to_owned(),
        detail: "SQLite takes no name that is not UTF-8".to_owned(),
    })?;
    connection.execute("VACUUM INTO ?1", [path]).map_err(wrap).map(drop)
}

fn hash(path: &Path, stop: &Stop) -> io::Result<(u64, Digest)> {
    let (mut file, mut hasher) = (File::open(path)?, blake3::Hasher::new());
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 18]);
    loop {
        if stop.is_wanted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, Digest(*hasher.finalize().as_bytes())));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}

fn check(folder: &Path) -> Result<GoodCopy, String> {
    let text = std::fs::read(folder.join(MANIFEST)).map_err(|e| format!("{MANIFEST}: {e}"))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| format!("{MANIFEST}: {e}"))?;
    if manifest.format != FORMAT {
        return Err(format!("format {}, this program reads {FORMAT}", manifest.format));
    }
    let path = folder.join(STORE);
    let found = hash(&path, &Stop::default()).map_err(|e| format!("{STORE}: {e}"))?;
    if found != (manifest.bytes, manifest.digest) {
        return Err(format!("{STORE} is not the file that was written"));
    }
    Reader::open(&path).and_then(|copy| copy.whole()).map_err(|error| error.to_string())?;
    Ok(GoodCopy { path, manifest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_being_written_is_not_taken_for_what_an_earlier_life_left() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copies = Copies::new(folder.path(), 2);
        let (first, second) = (Part::begin(folder.path()), Part::begin(folder.path()));
        assert_ne!(first.0, second.0, "one would write into the other's");
        let left = folder.path().join(".copy-left.part");
        for part in [&first.0, &second.0, &left] {
            std::fs::create_dir(part).expect("writable");
        }
        copies.clear_parts();
        assert!(first.0.exists() && second.0.exists() && !left.exists());
        let path = first.0.clone();
        drop(first);
        assert!(!path.exists() && second.0.exists());
        // Whoever is to stop leaves its number to the one that goes on.
        let stop = Stop::default();
        stop.want();
        copies.name(&second.0, &stop).expect_err("it is to stop");
        assert!(!copies.holds_any());
        copies.name(&second.0, &Stop::default()).expect("it is whole");
        assert!(copies.holds_any());
    }
}
