//! One thread that writes, in batches, and says so when it is durable.
//!
//! Whoever must not speak before its words are durable submits changes together with what it
//! wants to say; the thread commits (with an fsync) and hands the words on, in order. Changes that
//! queue up meanwhile share one commit. After an error nothing more is written or said. As long as the
//! thread lives it holds a lock beside the store: whoever writes next waits for its last commit, also in the
//! same process. A simulation, which has no threads, lends a [`Hand`] instead, and takes no lock.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crrl_machine::disk;
use crrl_machine::lock::Lock;
use rusqlite::Connection;

use crate::copies::beside;
use crate::error::StoreError;
use crate::row::Op;
use crate::schema;
use crate::write;

/// How a store is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// Submissions that may wait; past it submitting blocks. Default 1024.
    pub queue_max: usize,
    /// Submissions that share one commit. More means fewer fsyncs and a longer wait for the
    /// first of them. Default 256.
    pub batch_max: usize,
    /// Size the store may reach; past it, it is full. Default: as large as the disk.
    pub bytes_max: Option<u64>,
    /// Who writes. Default: a thread of the writer's own.
    pub hand: Hand,
    /// Last good copies kept beside the store, the newest ones; 0 makes none. Each takes as much room
    /// as the store. A lent hand makes none. Default 2.
    pub copies_kept: usize,
    /// How long a store that somebody else writes to is waited for, as a file and as a database.
    /// Longer outlasts a slower disk, and tells later of another coordinator. Default 5 s.
    pub busy_wait: Duration,
}

/// A piece of writing: to be done once, after those that were handed over before.
pub type Work = Box<dyn FnOnce() + Send>;

/// Who writes.
#[derive(Clone, Default)]
pub enum Hand {
    /// A thread of the writer's own.
    #[default]
    Own,
    /// Whoever takes the work. What is not done when the writer is dropped, is done then.
    Lent(Arc<dyn Fn(Work) + Send + Sync>),
}

impl fmt::Debug for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Own) { "Own" } else { "Lent" })
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_max: 1024,
            batch_max: 256,
            bytes_max: None,
            hand: Hand::Own,
            copies_kept: 2,
            busy_wait: Duration::from_secs(5),
        }
    }
}

/// The writer has ended: its error was handed to the function it was started with.
#[derive(Debug, thiserror::Error)]
#[error("the run store takes nothing more")]
pub struct WriterClosed;

/// The writing thread. Dropping it writes what is queued and ends it.
#[derive(Debug)]
pub struct Writer<T>(Way<T>);

#[derive(Debug)]
enum Way<T> {
    Thread { sender: Option<SyncSender<(Vec<Op>, T)>>, thread: Option<JoinHandle<()>> },
    Lent { desk: Arc<Mutex<Desk<T>>>, hand: Hand },
}

impl<T: Send + 'static> Writer<T> {
    /// Opens or makes the store, and starts the thread; waits [`Options::busy_wait`] for another that
    /// still writes. `said` gets, in order, the words of every submission that is durable; or, once and
    /// last, the error that ended the thread.
    ///
    /// # Errors
    /// [`StoreError`]: not a store, damaged, of a later build, in use, no space.
    pub fn start(
        path: &Path,
        options: Options,
        said: impl FnMut(Result<T, StoreError>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let hand = options.hand.clone();
        let lock = matches!(hand, Hand::Own).then(|| alone(path, &options)).transpose()?;
        let connection = open(path, &options)?;
        let (path, said) = (path.to_owned(), Box::new(said));
        let pen = Pen { connection, path: path.clone(), said, _lock: lock };
        if let Hand::Lent(_) = hand {
            let desk = Desk { pen: Some(pen), waiting: VecDeque::new(), options };
            return Ok(Self(Way::Lent { desk: Arc::new(Mutex::new(desk)), hand }));
        }
        let (sender, receiver) = sync_channel(options.queue_max.max(1));
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(pen, &options, &receiver))
            .map_err(|error| StoreError::Other { path, detail: error.to_string() })?;
        Ok(Self(Way::Thread { sender: Some(sender), thread: Some(thread) }))
    }

    /// Queues changes, all of which become durable together, and what to say afterwards. Blocks
    /// while the queue is full: the disk sets the pace.
    ///
    /// # Errors
    /// [`WriterClosed`]: the thread has ended on an error.
    pub fn submit(&self, changes: Vec<Op>, then: T) -> Result<(), WriterClosed> {
        match &self.0 {
            Way::Thread { sender, .. } => {
                let sender = sender.as_ref().ok_or(WriterClosed)?;
                sender.send((changes, then)).map_err(|_| WriterClosed)
            }
            Way::Lent { desk, hand } => {
                let full = lock(desk).put(changes, then)?;
                let desk = Arc::clone(desk);
                let work = move || lock(&desk).write();
                match hand {
                    Hand::Lent(hand) if !full => hand(Box::new(work)),
                    _ => work(),
                }
                Ok(())
            }
        }
    }
}

impl<T> Drop for Way<T> {
    fn drop(&mut self) {
        match self {
            Self::Thread { sender, thread } => {
                drop(sender.take());
                if let Some(thread) = thread.take()
                    && thread.thread().id() != std::thread::current().id()
                {
                    // A panic of the thread has been printed; there is nothing to add.
                    let _ = thread.join();
                }
            }
            Self::Lent { desk, .. } => {
                let mut desk = lock(desk);
                while !desk.waiting.is_empty() {
                    desk.write();
                }
                // Work that was handed over and not done finds nothing to do.
                desk.pen = None;
            }
        }
    }
}

fn lock<T>(desk: &Mutex<Desk<T>>) -> MutexGuard<'_, Desk<T>> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What waits to be written by a lent hand.
struct Desk<T> {
    /// None once writing has ended.
    pen: Option<Pen<T>>,
    waiting: VecDeque<(Vec<Op>, T)>,
    options: Options,
}

impl<T> fmt::Debug for Desk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Desk({} waiting)", self.waiting.len())
    }
}

impl<T> Desk<T> {
    /// Whether the queue is full with it.
    fn put(&mut self, changes: Vec<Op>, then: T) -> Result<bool, WriterClosed> {
        if self.pen.is_none() {
            return Err(WriterClosed);
        }
        self.waiting.push_back((changes, then));
        Ok(self.waiting.len() >= self.options.queue_max.max(1))
    }

    /// Writes what waits, as much as shares one commit.
    fn write(&mut self) {
        let count = self.waiting.len().min(self.options.batch_max.max(1));
        let batch: Vec<_> = self.waiting.drain(..count).collect();
        let goes_on = match &mut self.pen {
            Some(pen) if count > 0 => pen.write(batch),
            _ => true,
        };
        if !goes_on {
            self.pen = None;
            self.waiting.clear();
        }
    }
}

/// Writes batches and says so.
struct Pen<T> {
    connection: Connection,
    path: PathBuf,
    said: Box<dyn FnMut(Result<T, StoreError>) + Send>,
    /// The last to go: nobody else writes to the store, or says what is durable, before.
    _lock: Option<Lock>,
}

impl<T> Pen<T> {
    /// Whether writing goes on.
    fn write(&mut self, batch: Vec<(Vec<Op>, T)>) -> bool {
        let (path, connection) = (&self.path, &mut self.connection);
        // A commit that found no room is undone, and can be tried again as it is.
        let committed = disk::until_room(path, || {
            disk::before_write().map_err(|error| StoreError::of_file(path, &error))?;
            commit(connection, batch.iter().flat_map(|(ops, _)| ops))
                .map_err(|error| StoreError::of(path, &error))
        });
        if let Err(error) = committed {
            (self.said)(Err(error));
            return false;
        }
        for (_, words) in batch {
            (self.said)(Ok(words));
        }
        true
    }
}

/// Makes the store's folder, and waits until nobody else writes in it.
fn alone(path: &Path, options: &Options) -> Result<Lock, StoreError> {
    make_folder(path)?;
    let lock = beside(path, ".lock");
    Lock::wait(&lock, options.busy_wait)
        .map_err(|error| StoreError::of_file(&lock, &error))?
        .map_err(|_| StoreError::Busy { path: path.to_owned() })
}

/// Waits [`Options::busy_wait`] until nobody writes to a store any more, nor says what is durable. Whoever
/// reads what was said before [`Writer::start`], which waits as well, reads all of it.
///
/// # Errors
/// [`StoreError::Busy`]: somebody still does; or the lock beside the store cannot be made.
pub fn settled(path: &Path, options: &Options) -> Result<(), StoreError> {
    if matches!(options.hand, Hand::Own) { alone(path, options).map(drop) } else { Ok(()) }
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|error| StoreError::of_file(folder, &error))
}

fn open(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    make_folder(path)?;
    let wrap = |error: rusqlite::Error| StoreError::of(path, &error);
    let connection = Connection::open(path).map_err(wrap)?;
    connection.busy_timeout(options.busy_wait).map_err(wrap)?;
    // WAL lets readers look while we write; FULL puts every commit through an fsync.
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(wrap)?;
    if mode != "wal" {
        let detail = format!("its file system allows journal mode {mode} only, not wal");
        return Err(StoreError::Open { path: path.to_owned(), detail });
    }
    connection.execute_batch("PRAGMA synchronous = FULL").map_err(wrap)?;
    connection.set_prepared_statement_cache_capacity(32);
    schema::prepare(&connection, path)?;
    if let Some(bytes) = options.bytes_max {
        let page: u64 = connection
            .pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))
            .map_err(wrap)? as u64;
        let pages = write::int((bytes / page.max(1)).max(1));
        connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .map_err(wrap)?;
    }
    Ok(connection)
}

fn run<T>(mut pen: Pen<T>, options: &Options, receiver: &Receiver<(Vec<Op>, T)>) {
    while let Ok(first) = receiver.recv() {
        let mut batch = vec![first];
        while batch.len() < options.batch_max.max(1) {
            match receiver.try_recv() {
                Ok(next) => batch.push(next),
                Err(_) => break,
            }
        }
        if !pen.write(batch) {
            return;
        }
    }
}

/// Makes changes in a file that nobody else has open, all or none. It is on disk afterwards, in one
/// file.
pub(crate) fn rewrite(path: &Path, ops: &[Op]) -> Result<(), StoreError> {
    let wrap = |error: rusqlite::Error| StoreError::of(path, &error);
    let mut connection = Connection::open(path).map_err(wrap)?;
    connection
        .query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        .and_then(|()| connection.execute_batch("PRAGMA synchronous = FULL"))
        .map_err(wrap)?;
    schema::prepare(&connection, path)?;
    commit(&mut connection, ops.iter()).map_err(wrap)?;
    connection.close().map_err(|(_, error)| wrap(error))
}

fn commit<'a>(
    connection: &mut Connection,
    ops: impl Iterator<Item = &'a Op>,
) -> rusqlite::Result<()> {
    let mut ops = ops.peekable();
    if ops.peek().is_none() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for op in ops {
        write::apply(&transaction, op)?;
    }
    transaction.commit()
}
