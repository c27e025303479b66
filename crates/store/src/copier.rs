//! A thread that copies the store while a run goes on: nobody waits for it.
//!
//! It is asked whenever the store is worth a copy, and makes one unless it has just made one: it works
//! one part in [`SHARE`] of the time at most, however large the store has become. Told to stop, it ends a
//! copy under way within a few pages; only a sync to the disk is waited for.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use crrl_machine::Stop;

use crate::copies::{Copies, Manifest};
use crate::error::StoreError;
use crate::writer::{Hand, Options};

/// Time between two copies, in multiples of what the last one took.
const SHARE: u32 = 50;

/// The way to the thread. Dropping it ends a copy under way, and waits for that.
#[derive(Debug)]
pub struct Copier {
    wishes: Option<SyncSender<()>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Copier {
    /// Starts the thread, unless `options` keep no copy or lend a hand. `said` hears of every copy, and
    /// of every one that did not come about.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        store: PathBuf,
        folder: PathBuf,
        options: &Options,
        said: impl Fn(Result<Manifest, StoreError>) + Send + 'static,
    ) -> std::io::Result<Option<Self>> {
        if options.copies_kept == 0 || matches!(options.hand, Hand::Lent(_)) {
            return Ok(None);
        }
        let (wishes, inbox) = sync_channel(1);
        let stop = Stop::default();
        let copies = Copies::new(folder, options.copies_kept);
        let heard = stop.clone();
        let work = move || work(&copies, &store, &inbox, &heard, &said);
        let thread = std::thread::Builder::new().name("ledger-copy".to_owned()).spawn(work)?;
        Ok(Some(Self { wishes: Some(wishes), stop, thread: Some(thread) }))
    }

    /// The store is worth a copy. Never blocks.
    pub fn wish(&self) {
        if let Some(wishes) = &self.wishes {
            // One that waits already is as good.
            let _ = wishes.try_send(());
        }
    }

    /// Tells it to end a copy under way, and to make none any more. Never blocks.
    pub fn stop(&self) {
        self.stop.want();
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.stop.want();
        drop(self.wishes.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the thread has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}

fn work(
    copies: &Copies,
    store: &Path,
    inbox: &Receiver<()>,
    stop: &Stop,
    said: &dyn Fn(Result<Manifest, StoreError>),
) {
    let mut rests_until = Instant::now();
    while inbox.recv().is_ok() {
        // A wish that waited counts no more once it is to stop.
        if stop.is_wanted() {
            return;
        }
        if Instant::now() < rests_until {
            continue;
        }
        let began = Instant::now();
        let made = copies.make(store, stop);
        if stop.is_wanted() {
            return;
        }
        rests_until = Instant::now() + began.elapsed().saturating_mul(SHARE);
        said(made);
    }
}
