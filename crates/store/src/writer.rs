//! One thread that writes, in batches, and says so when it is durable.
//!
//! Whoever must not speak before its words are durable submits changes together with what it
//! wants to say; the thread commits (with an fsync) and hands the words on, in order. Changes that
//! queue up meanwhile share one commit. After an error nothing more is written or said.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crrl_machine::disk;
use rusqlite::Connection;

use crate::error::StoreError;
use crate::row::Op;
use crate::schema;
use crate::write;

/// How a store is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Submissions that may wait; past it submitting blocks. Default 1024.
    pub queue_max: usize,
    /// Submissions that share one commit. More means fewer fsyncs and a longer wait for the
    /// first of them. Default 256.
    pub batch_max: usize,
    /// Size the store may reach; past it, it is full. Default: as large as the disk.
    pub bytes_max: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { queue_max: 1024, batch_max: 256, bytes_max: None }
    }
}

/// The writer has ended: its error was handed to the function it was started with.
#[derive(Debug, thiserror::Error)]
#[error("the run store takes nothing more")]
pub struct WriterClosed;

/// The writing thread. Dropping it writes what is queued and ends it.
#[derive(Debug)]
pub struct Writer<T> {
    sender: Option<SyncSender<(Vec<Op>, T)>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Writer<T> {
    /// Opens or makes the store, and starts the thread. `said` gets, in order, the words of every
    /// submission that is durable; or, once and last, the error that ended the thread.
    ///
    /// # Errors
    /// [`StoreError`]: not a store, damaged, of a later build, in use, no space.
    pub fn start(
        path: &Path,
        options: Options,
        said: impl FnMut(Result<T, StoreError>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let connection = open(path, options)?;
        let (sender, receiver) = sync_channel(options.queue_max.max(1));
        let path = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn({
                let path = path.clone();
                move || run(connection, &path, options, &receiver, said)
            })
            .map_err(|error| StoreError::Other { path, detail: error.to_string() })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Queues changes, all of which become durable together, and what to say afterwards. Blocks
    /// while the queue is full: the disk sets the pace.
    ///
    /// # Errors
    /// [`WriterClosed`]: the thread has ended on an error.
    pub fn submit(&self, changes: Vec<Op>, then: T) -> Result<(), WriterClosed> {
        let sender = self.sender.as_ref().ok_or(WriterClosed)?;
        sender.send((changes, then)).map_err(|_| WriterClosed)
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the thread has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn open(path: &Path, options: Options) -> Result<Connection, StoreError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| StoreError::of_file(folder, &error))?;
    }
    let wrap = |error: rusqlite::Error| StoreError::of(path, &error);
    let connection = Connection::open(path).map_err(wrap)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(wrap)?;
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

fn run<T>(
    mut connection: Connection,
    path: &Path,
    options: Options,
    receiver: &Receiver<(Vec<Op>, T)>,
    mut said: impl FnMut(Result<T, StoreError>),
) {
    while let Ok(first) = receiver.recv() {
        let mut batch = vec![first];
        while batch.len() < options.batch_max.max(1) {
            match receiver.try_recv() {
                Ok(next) => batch.push(next),
                Err(_) => break,
            }
        }
        // A commit that found no room is undone, and can be tried again as it is.
        let committed = disk::until_room(path, || {
            disk::before_write().map_err(|error| StoreError::of_file(path, &error))?;
            commit(&mut connection, batch.iter().flat_map(|(ops, _)| ops))
                .map_err(|error| StoreError::of(path, &error))
        });
        if let Err(error) = committed {
            return said(Err(error));
        }
        for (_, words) in batch {
            said(Ok(words));
        }
    }
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
