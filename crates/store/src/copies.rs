//! Last good copies of a run store, and going back to one.
//!
//! `copy-00000007/` holds the store as it was at one moment (`run.sqlite`) and, written last,
//! `manifest.json` with its hash. A folder appears whole or not at all. Every page of the store is checked
//! first; then the copy is written anew from what the store says, table by table, and one that does not
//! check out is none. Whoever writes to the store goes on meanwhile.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crrl_machine::{clock, disk};
use crrl_types::{Digest, Step};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::read::Reader;
use crate::row::Op;
use crate::stop::Stop;
use crate::{schema, writer};

const STORE: &str = "run.sqlite";
const MANIFEST: &str = "manifest.json";
/// Version of the layout.
const FORMAT: u32 = 1;
/// Files SQLite keeps beside a store: what is not yet in it, and an index of that.
const BESIDE: [&str; 2] = ["-wal", "-shm"];
/// What a store that takes another's place ends in until it has.
const DRAFT: &str = ".restored";
/// Room that is left to others, whatever a copy takes.
const ROOM_LEFT_BYTES: u64 = 16 << 20;
/// Damaged files that may lie beside a store.
const ASIDE_MAX: u32 = 1_000;

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
        let number = self.list()?.last().map_or(1, |(number, _)| number + 1);
        let part = self.dir.join(format!(".{}.part", name(number)));
        let made = self.make_part(store, &part, stop).and_then(|manifest| {
            let target = self.dir.join(name(number));
            std::fs::rename(&part, &target)
                .and_then(|()| sync(&self.dir))
                .map_err(|error| of(&target, &error))?;
            Ok(manifest)
        });
        if made.is_err() {
            // Of no use to anybody, and its room may be.
            let _ = std::fs::remove_dir_all(&part);
        }
        self.prune();
        made
    }

    fn make_part(&self, store: &Path, part: &Path, stop: &Stop) -> Result<Manifest, StoreError> {
        let began = Instant::now();
        self.clear_parts();
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
        stop.check(&target)?;
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
        let free = nix::sys::statvfs::statvfs(&self.dir)
            .map_err(|error| of(&self.dir, &io::Error::from(error)))?;
        let free = free.blocks_available() * free.fragment_size();
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

    /// What a life left that ended while it copied.
    fn clear_parts(&self) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".copy-") && name.ends_with(".part") {
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

/// Makes changes in a copy of a good copy, beside the store: nothing is changed of either. Gives the file.
///
/// # Errors
/// [`StoreError`].
pub fn draft(copy: &GoodCopy, store: &Path, ops: &[Op]) -> Result<PathBuf, StoreError> {
    let draft = beside(store, DRAFT);
    for file in [&draft, &beside(&draft, "-journal")] {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(of(file, &error)),
            _ => {}
        }
    }
    disk::before_write()
        .and_then(|()| std::fs::copy(&copy.path, &draft))
        .map_err(|error| of(&draft, &error))?;
    writer::rewrite(&draft, ops)?;
    File::open(&draft).and_then(|file| file.sync_all()).map_err(|error| of(&draft, &error))?;
    Ok(draft)
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

fn name(number: u64) -> String {
    format!("copy-{number:08}")
}

/// A file's name with something behind it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
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
    stop.heard_by(&connection);
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
