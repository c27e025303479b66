//! One run: its folder, its facts, its cluster. Facts are read again when its files have changed and
//! somebody asks, and never so often that reading takes more than a small share of the time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crrl_cluster::RunDir;
use crrl_inspect::frame::Link;
use crrl_inspect::pieces;
use crrl_inspect::state::World;
use crrl_report::model::Model;
use crrl_report::{Facts, ReadError};
use crrl_store::{Reader, StoreError};
use tokenizers::Tokenizer;

/// Shortest time between two readings of the facts of a run under way.
const READ_EVERY: Duration = Duration::from_secs(2);
/// Reading takes at most one in so many parts of the time.
const READ_SHARE: u32 = 10;

/// How long nothing is read again after a reading that took so long.
pub(crate) fn pause(took: Duration) -> Duration {
    READ_EVERY.max(took * READ_SHARE)
}

/// What was read of a run's folder.
#[derive(Debug)]
pub struct Read {
    /// Which state of the files this is.
    pub revision: u64,
    /// What they hold.
    pub facts: Facts,
    /// What that comes to.
    pub model: Model,
}

/// What is seen of a run's cluster.
#[derive(Debug)]
pub struct Seen {
    /// The cluster, folded.
    pub world: World,
    /// Whether more comes; `None` where nobody is asked.
    pub link: Option<Link>,
}

#[derive(Debug, Default)]
struct Cache {
    read: Option<Arc<Read>>,
    next: Option<Instant>,
}

/// One run.
#[derive(Debug)]
pub struct Run {
    dir: RunDir,
    name: String,
    cache: Mutex<Cache>,
    seen: Mutex<Seen>,
    revision: AtomicU64,
    tokenizer: OnceLock<Result<Tokenizer, String>>,
}

impl Run {
    /// The run of this folder, called so; nothing is read.
    #[must_use]
    pub fn new(folder: &Path, name: String) -> Self {
        Self {
            dir: RunDir::new(folder),
            name,
            cache: Mutex::default(),
            seen: Mutex::new(Seen { world: World::new(), link: None }),
            revision: AtomicU64::new(0),
            tokenizer: OnceLock::new(),
        }
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is seen of its cluster. Short looks only: the watching thread waits.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a cluster of it is looked at.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.seen().link.is_some()
    }

    /// A number that changes when its files do.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Looks whether its files have changed; that costs a few system calls. Whoever shows the run is
    /// told no more often than it can be read.
    pub fn look(&self) {
        let may = |cache: &Cache| cache.next.is_none_or(|next| next <= Instant::now());
        // Being read: there is time enough to look again.
        if self.cache.try_lock().is_ok_and(|cache| may(&cache)) {
            self.revision.store(self.files(), Ordering::Relaxed);
        }
    }

    /// What its files' sizes and times come to.
    fn files(&self) -> u64 {
        let store = self.dir.store();
        let wal = PathBuf::from(format!("{}-wal", store.display()));
        let results = self.dir.path().join(crrl_control::results::RESULTS_FILE);
        let mut hasher = blake3::Hasher::new();
        let (events, orders, host) = (self.dir.events(), self.dir.orders(), self.dir.host_state());
        for path in [&store, &wal, &results, &events, &orders, &host] {
            let meta = std::fs::metadata(path).ok();
            let len = meta.as_ref().map_or(u64::MAX, std::fs::Metadata::len);
            let at = meta.and_then(|meta| meta.modified().ok()?.duration_since(UNIX_EPOCH).ok());
            hasher.update(&len.to_le_bytes());
            hasher.update(&at.unwrap_or_default().as_nanos().to_le_bytes());
        }
        let [a, b, c, d, e, f, ..] = *hasher.finalize().as_bytes();
        // 48 bits: a number that JavaScript holds exactly.
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// Its facts, and what they come to. Blocks while they are read.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn read(&self) -> Result<Arc<Read>, ReadError> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = self.files();
        let is_early = cache.next.is_some_and(|next| next > Instant::now());
        if let Some(read) = &cache.read
            && (read.revision == revision || is_early)
        {
            return Ok(Arc::clone(read));
        }
        let began = Instant::now();
        let facts = crrl_report::read_ledger(self.dir.path())?;
        let model = Model::of(&facts);
        let took = began.elapsed();
        let read = Arc::new(Read { revision, facts, model });
        cache.read = Some(Arc::clone(&read));
        cache.next = Some(Instant::now() + pause(took));
        self.revision.store(revision, Ordering::Relaxed);
        Ok(read)
    }

    /// Its store, opened anew: nothing is held in between.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn store(&self) -> Result<Reader, StoreError> {
        Reader::open(&self.dir.store())
    }

    /// The tokenizer of its model, loaded once.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn tokenizer(&self) -> Result<&Tokenizer, &str> {
        let load = || {
            let config = self.dir.config().map_err(|error| {
                format!("tokens have no text here: nothing tells the model's folder: {error}")
            })?;
            pieces::tokenizer(&config.model.path)
        };
        self.tokenizer.get_or_init(load).as_ref().map_err(String::as_str)
    }
}
