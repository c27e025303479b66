//! Finished episodes and steps, read from the run store by a thread of its own: a store that is busy
//! keeps no key waiting.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crrl_store::{EpisodeRow, Reader, StepRow, StoreError};
use crrl_types::{EpisodeId, Trajectory};

/// Episodes that are shown; older ones are in the store.
pub const OVER_MAX: u64 = 500;
/// Steps that are shown; older ones are in the store.
pub const STEPS_MAX: usize = 2_000;
/// Questions and answers under way; one more is asked again later.
const PENDING_MAX: usize = 4;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The last episodes that are over.
    Over,
    /// The numbers of the steps.
    Steps,
    /// What an episode left behind.
    Transcript(u64),
}

/// What was found.
#[derive(Debug)]
pub enum Answer {
    /// The last episodes that are over, newest first.
    Over(Result<Vec<EpisodeRow>, String>),
    /// Steps, oldest first.
    Steps(Result<Vec<StepRow>, String>),
    /// What this episode left behind, if anything.
    Transcript(u64, Result<Option<Box<Trajectory>>, String>),
}

/// The run store, for the viewer. The thread ends with this.
#[derive(Debug)]
pub struct Store {
    ask: SyncSender<Ask>,
    answers: Receiver<Answer>,
}

impl Store {
    /// The store of this path, which need not be there yet.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let (ask, asked) = sync_channel(PENDING_MAX);
        let (answer, answers) = sync_channel(PENDING_MAX);
        let path = path.to_owned();
        std::thread::Builder::new()
            .name("inspect-store".into())
            .spawn(move || serve(&path, &asked, &answer))?;
        Ok(Self { ask, answers })
    }

    /// Asks; `false` if too much was asked already.
    #[must_use]
    pub fn ask(&self, ask: Ask) -> bool {
        self.ask.try_send(ask).is_ok()
    }

    /// The next answer, if there is one.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

fn serve(path: &Path, asked: &Receiver<Ask>, answer: &SyncSender<Answer>) {
    while let Ok(ask) = asked.recv() {
        if answer.send(look_up(path, ask)).is_err() {
            return;
        }
    }
}

/// Opens the store anew for each question: nothing is held in between.
fn look_up(path: &Path, ask: Ask) -> Answer {
    fn read<T>(
        path: &Path,
        what: impl FnOnce(&Reader) -> Result<T, StoreError>,
    ) -> Result<T, String> {
        Reader::open(path).and_then(|reader| what(&reader)).map_err(|error| error.to_string())
    }
    match ask {
        Ask::Over => Answer::Over(read(path, |reader| reader.last_back(OVER_MAX))),
        Ask::Steps => Answer::Steps(read(path, |reader| {
            let mut steps = reader.steps()?;
            let old = steps.len().saturating_sub(STEPS_MAX);
            steps.drain(..old);
            Ok(steps)
        })),
        Ask::Transcript(id) => {
            let found = read(path, |reader| reader.trajectory(EpisodeId(id)));
            Answer::Transcript(id, found.map(|found| found.map(Box::new)))
        }
    }
}
