//! The engine on a thread of its own, behind a cloneable handle.
//!
//! The thread owns the engine and steps it while anything generates; between two steps it takes
//! commands. Adapters are verified on a blocking thread and only swapped in here, so nobody waits
//! for a hash. A panic of the engine ends its thread: every call then answers [`EngineGone`] and
//! [`EngineHandle::gone`] resolves, which is what the rollout actor restarts on.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crrl_cluster::{Worker, WorkerThread};
use crrl_engine::{
    AdapterLoader, Engine, LoadError, OpenError, Options, Output, Sampled, ScoreError, SeqId,
    Serving, StageError, Stats, Stop, SubmitError,
};
use crrl_types::{AdapterManifest, Digest, Sampling};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

/// Commands that wait for the engine at once; senders wait beyond that.
const COMMANDS_MAX: usize = 1024;
/// Time over which tokens a second are measured.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// The engine's thread has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped: {reason}")]
pub struct EngineGone {
    /// The panic's message, or that it was shut down.
    pub reason: String,
}

/// A generation failed.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The tokens were not accepted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// No sequence is free.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The weights gave logits that are not finite.
    #[error("{0}")]
    Broken(String),
    /// The engine is gone.
    #[error(transparent)]
    Gone(#[from] EngineGone),
}

/// An adapter was not activated.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// Refused.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The engine is gone.
    #[error(transparent)]
    Gone(#[from] EngineGone),
}

/// Log-probabilities could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum ScoringError {
    /// Refused.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The engine is gone.
    #[error(transparent)]
    Gone(#[from] EngineGone),
}

/// An adapter that was verified for an engine.
#[derive(Debug)]
pub struct Verified(Box<crrl_engine::Adapter>);

/// What one generation gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// In the order they were drawn; at least one.
    pub tokens: Vec<Sampled>,
    /// Why it ended.
    pub stop: Stop,
}

/// How the engine is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineStatus {
    /// The adapter in use.
    pub serving: Serving,
    /// Counts since loading.
    pub stats: Stats,
    /// Tokens sampled a second, over the last few seconds.
    pub tokens_per_s: f32,
    /// Sequences open.
    pub sequences: usize,
    at: Instant,
}

enum Command {
    Open {
        /// Goes into the opened sequence: whoever asked may have left before the answer came, and
        /// the answer then closes the sequence as it is dropped.
        engine: EngineHandle,
        reply: oneshot::Sender<Result<EngineSequence, OpenError>>,
    },
    Generate {
        seq: SeqId,
        append: Vec<u32>,
        sampling: Sampling,
        reply: oneshot::Sender<Result<Generated, GenerateError>>,
    },
    Activate {
        adapter: Box<crrl_engine::Adapter>,
        reply: oneshot::Sender<Result<Serving, StageError>>,
    },
    Score {
        tokens: Vec<u32>,
        temperature: f32,
        reply: oneshot::Sender<Result<Vec<f32>, ScoreError>>,
    },
    /// Something is in `Shared::closing`.
    Close,
}

/// What the thread does, for whoever watches it.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Load,
    Submit,
    Prefill,
    Decode,
    Swap,
    Score,
}

impl Phase {
    /// Names, in the order of the variants.
    const NAMES: [&'static str; 6] =
        ["load model", "submit", "prefill", "decode", "swap adapter", "score"];

    fn of(command: &Command) -> Self {
        match command {
            Command::Open { .. } | Command::Generate { .. } | Command::Close => Self::Submit,
            Command::Activate { .. } => Self::Swap,
            Command::Score { .. } => Self::Score,
        }
    }
}

/// What the thread and the handles share.
struct Shared {
    status: Mutex<EngineStatus>,
    /// The thread, as others see it. Its work is commands and steps.
    worker: Worker,
    /// Sequences dropped by their owners. Bounded by the sequences that can be open.
    closing: Mutex<Vec<SeqId>>,
    gone: Mutex<Option<EngineGone>>,
    loader: AdapterLoader,
    context: usize,
    base_digest: Digest,
}

impl Shared {
    fn why_gone(&self) -> EngineGone {
        lock(&self.gone)
            .clone()
            .unwrap_or_else(|| EngineGone { reason: "it was shut down".to_owned() })
    }
}

/// The data under these locks is replaced whole, so a panic elsewhere leaves it sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Speaks to the engine. The engine's thread ends when the last handle and sequence are dropped.
#[derive(Clone)]
pub struct EngineHandle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl EngineHandle {
    /// The thread of an engine that is yet to be started, to be watched while it loads its model.
    #[must_use]
    pub fn thread() -> Worker {
        Worker::new("engine", "EngineThread", "rollout", &Phase::NAMES)
    }

    /// Loads a model folder on a thread of its own and waits until it can generate.
    ///
    /// # Errors
    /// When the model cannot be loaded.
    pub async fn start(dir: PathBuf, options: Options) -> Result<Self, LoadError> {
        Self::start_watched(Self::thread(), dir, options).await
    }

    /// As [`EngineHandle::start`], with the thread that somebody watches already.
    ///
    /// # Errors
    /// When the model cannot be loaded.
    pub async fn start_watched(
        worker: Worker,
        dir: PathBuf,
        options: Options,
    ) -> Result<Self, LoadError> {
        let (ready, loaded) = oneshot::channel();
        let thread = worker.starting();
        thread.enter(Phase::Load as usize);
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || match Engine::load(&dir, options) {
                Ok(engine) => {
                    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
                    let shared = Arc::new(Shared {
                        status: Mutex::new(EngineStatus {
                            serving: engine.serving(),
                            stats: engine.stats(),
                            tokens_per_s: 0.0,
                            sequences: 0,
                            at: Instant::now(),
                        }),
                        worker,
                        closing: Mutex::new(Vec::new()),
                        gone: Mutex::new(None),
                        loader: engine.adapter_loader(),
                        context: engine.context(),
                        base_digest: engine.base_digest(),
                    });
                    let handle = Self { commands, shared: Arc::clone(&shared) };
                    if ready.send(Ok(handle)).is_ok() {
                        run(engine, inbox, &shared, &thread);
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .expect("the system has threads left when a node starts");
        loaded.await.expect("loading answers, or its panic is a fault of ours that ends the node")
    }

    /// Opens a sequence; dropping it closes it.
    ///
    /// # Errors
    /// When as many are open as the engine's options allow, or the engine is gone.
    pub async fn open(&self) -> Result<EngineSequence, GenerateError> {
        Ok(self.call(|reply| Command::Open { engine: self.clone(), reply }).await??)
    }

    /// Verifies an adapter beside the running engine, swaps it in between two steps, and says what
    /// is served now.
    ///
    /// # Errors
    /// When the adapter is refused or the engine is gone.
    pub async fn activate(
        &self,
        manifest: AdapterManifest,
        bytes: Vec<u8>,
    ) -> Result<Serving, ActivateError> {
        let verified = self.verify(manifest, bytes).await?;
        self.swap(verified).await
    }

    /// Verifies an adapter beside the running engine; [`EngineHandle::swap`] puts it to use.
    ///
    /// # Errors
    /// When the adapter is refused or the engine is gone.
    pub async fn verify(
        &self,
        manifest: AdapterManifest,
        bytes: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<Verified, ActivateError> {
        let loader = self.shared.loader.clone();
        let load = move || loader.load(&manifest, bytes.as_ref());
        match tokio::task::spawn_blocking(load).await {
            Ok(adapter) => Ok(Verified(Box::new(adapter?))),
            Err(panic) => Err(EngineGone { reason: panic.to_string() }.into()),
        }
    }

    /// Swaps an adapter in between two steps and says what is served now.
    ///
    /// # Errors
    /// When the adapter is refused or the engine is gone.
    pub async fn swap(&self, Verified(adapter): Verified) -> Result<Serving, ActivateError> {
        Ok(self.call(|reply| Command::Activate { adapter, reply }).await??)
    }

    /// Log-probability of every token given the ones before it; see [`Engine::score`]. Generation
    /// pauses meanwhile.
    ///
    /// # Errors
    /// When the tokens are refused or the engine is gone.
    pub async fn score(
        &self,
        tokens: Vec<u32>,
        temperature: f32,
    ) -> Result<Vec<f32>, ScoringError> {
        Ok(self.call(|reply| Command::Score { tokens, temperature, reply }).await??)
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let mut status = *lock(&self.shared.status);
        // An idle engine reports nothing.
        if status.at.elapsed() > RATE_WINDOW {
            status.tokens_per_s = 0.0;
        }
        status
    }

    /// Its thread, to be watched.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.shared.worker
    }

    /// Tokens a sequence may hold.
    #[must_use]
    pub fn context(&self) -> usize {
        self.shared.context
    }

    /// Identity of the base model's weights.
    #[must_use]
    pub fn base_digest(&self) -> Digest {
        self.shared.base_digest
    }

    /// Waits until the engine's thread has ended.
    pub async fn gone(&self) -> EngineGone {
        self.commands.closed().await;
        self.shared.why_gone()
    }

    async fn call<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, EngineGone> {
        let (reply, answer) = oneshot::channel();
        let gone = || self.shared.why_gone();
        let command = command(reply);
        // Counted once there is room: whoever waits for that may leave.
        let room = self.commands.reserve().await.map_err(|_| gone())?;
        self.shared.worker.sent();
        room.send(command);
        answer.await.map_err(|_| gone())
    }
}

/// An open sequence: its keys and values stay in the engine until this is dropped.
pub struct EngineSequence {
    seq: SeqId,
    engine: EngineHandle,
}

impl EngineSequence {
    /// Appends tokens and generates. Dropping the future abandons the generation; the sequence is
    /// then of no use any more, because what was drawn is lost.
    ///
    /// # Errors
    /// When the tokens are refused, the weights are broken, or the engine is gone.
    pub async fn generate(
        &mut self,
        append: Vec<u32>,
        sampling: Sampling,
    ) -> Result<Generated, GenerateError> {
        let seq = self.seq;
        self.engine.call(|reply| Command::Generate { seq, append, sampling, reply }).await?
    }
}

impl Drop for EngineSequence {
    fn drop(&mut self) {
        lock(&self.engine.shared.closing).push(self.seq);
        // Wakes an idle engine. A full queue means it is awake; a closed one that it is gone.
        self.engine.shared.worker.sent();
        if self.engine.commands.try_send(Command::Close).is_err() {
            self.engine.shared.worker.unsent();
        }
    }
}

/// A generation whose end somebody waits for.
struct Pending {
    tokens: Vec<Sampled>,
    reply: oneshot::Sender<Result<Generated, GenerateError>>,
}

fn run(engine: Engine, mut inbox: mpsc::Receiver<Command>, shared: &Shared, thread: &WorkerThread) {
    let ended = catch_unwind(AssertUnwindSafe(|| drive(engine, &mut inbox, shared, thread)));
    match ended {
        Ok(()) => thread.stopped(),
        Err(panic) => {
            let reason = panic_text(panic.as_ref());
            tracing::error!(%reason, "the engine panicked");
            thread.failed(&format!("panicked: {reason}"));
            *lock(&shared.gone) = Some(EngineGone { reason });
        }
    }
    // Dropping the inbox answers whoever still waits.
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

fn drive(
    mut engine: Engine,
    inbox: &mut mpsc::Receiver<Command>,
    shared: &Shared,
    thread: &WorkerThread,
) {
    let mut pending: HashMap<SeqId, Pending> = HashMap::new();
    let mut rate = Rate::new();
    thread.idle();
    loop {
        // Between two steps: everything that waits, or, with nothing to compute, the next command.
        loop {
            let command = if engine.has_work() {
                match inbox.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            } else {
                report(&engine, &mut rate, shared);
                match inbox.blocking_recv() {
                    Some(command) => command,
                    None => return,
                }
            };
            thread.taken();
            let at_it = thread.work(Phase::of(&command) as usize);
            take(&mut engine, command, &mut pending);
            close_dropped(&mut engine, &mut pending, shared);
            drop(at_it);
        }
        let phase = if engine.prefills() { Phase::Prefill } else { Phase::Decode };
        let _at_it = thread.work(phase as usize);
        for output in engine.step() {
            deliver(&mut engine, output, &mut pending);
        }
        report(&engine, &mut rate, shared);
    }
}

fn take(engine: &mut Engine, command: Command, pending: &mut HashMap<SeqId, Pending>) {
    // An answer nobody waits for any more is dropped.
    match command {
        Command::Open { engine: handle, reply } => {
            let opened = engine.open().map(|seq| EngineSequence { seq, engine: handle });
            drop(reply.send(opened));
        }
        Command::Generate { seq, append, sampling, reply } => {
            match engine.submit(seq, &append, sampling) {
                Ok(()) => drop(pending.insert(seq, Pending { tokens: Vec::new(), reply })),
                Err(error) => drop(reply.send(Err(error.into()))),
            }
        }
        Command::Activate { adapter, reply } => {
            let result = engine.stage_verified(*adapter).map(|()| {
                engine.swap();
                engine.serving()
            });
            drop(reply.send(result));
        }
        Command::Score { tokens, temperature, reply } => {
            drop(reply.send(engine.score(&tokens, temperature)));
        }
        Command::Close => {}
    }
}

fn close_dropped(engine: &mut Engine, pending: &mut HashMap<SeqId, Pending>, shared: &Shared) {
    let dropped = std::mem::take(&mut *lock(&shared.closing));
    for seq in dropped {
        pending.remove(&seq);
        engine.close(seq);
    }
}

fn deliver(engine: &mut Engine, output: Output, pending: &mut HashMap<SeqId, Pending>) {
    match output {
        Output::Token { seq, token, stop } => {
            let Some(waiting) = pending.get_mut(&seq) else { return };
            waiting.tokens.push(token);
            if let Some(stop) = stop {
                if let Some(Pending { tokens, reply }) = pending.remove(&seq) {
                    drop(reply.send(Ok(Generated { tokens, stop })));
                }
            } else if waiting.reply.is_closed() {
                pending.remove(&seq);
                engine.abort(seq);
            }
        }
        Output::Broken { seq, reason } => {
            if let Some(Pending { reply, .. }) = pending.remove(&seq) {
                drop(reply.send(Err(GenerateError::Broken(reason))));
            }
        }
    }
}

/// Tokens a second over the last window.
struct Rate {
    since: Instant,
    tokens: u64,
    last: f32,
}

impl Rate {
    fn new() -> Self {
        Self { since: Instant::now(), tokens: 0, last: 0.0 }
    }

    fn read(&mut self, tokens: u64) -> f32 {
        let elapsed = self.since.elapsed();
        if elapsed >= RATE_WINDOW {
            self.last = (tokens - self.tokens) as f32 / elapsed.as_secs_f32();
            self.since = Instant::now();
            self.tokens = tokens;
        }
        self.last
    }
}

fn report(engine: &Engine, rate: &mut Rate, shared: &Shared) {
    let stats = engine.stats();
    *lock(&shared.status) = EngineStatus {
        serving: engine.serving(),
        stats,
        tokens_per_s: rate.read(stats.sampled_tokens),
        sequences: engine.open_sequences(),
        at: Instant::now(),
    };
}
