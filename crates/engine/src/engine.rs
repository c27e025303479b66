//! The engine: schedules sequences into forward passes and samples from their logits.
//!
//! Owns every sequence's tokens and says which of them are computed when. A step first swaps in a
//! staged adapter, then runs one forward pass: one token of every sequence that decodes, and
//! prompt tokens of the others up to a budget, oldest submission first.

use std::path::Path;
use std::time::Instant;

use crrl_model::{ChatTokenizer, Cpu, Decoder, Logits, ModelDir, SlotId};
use crrl_types::{AdapterManifest, AdapterVersion, Digest, Sampling};

use crate::adapter::{Adapter, AdapterLoader};
use crate::error::{LoadError, OpenError, ScoreError, StageError, SubmitError};
use crate::network::{Network, Work};
use crate::options::{OnSwap, Options};
use crate::prefix::{Prefixes, shared};
use crate::sampler::{self, Scratch};
use crate::sequence::{Generation, Sampled, SeqId, Sequence, Stop};
use crate::stats::Stats;
use crate::submission;
use crate::vocabulary::Vocabulary;

/// What a step produced.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A sequence's next token; `stop` where it is the generation's last.
    Token {
        /// The sequence.
        seq: SeqId,
        /// The token.
        token: Sampled,
        /// Why the generation ends here.
        stop: Option<Stop>,
    },
    /// A sequence's generation ended without a token: the logits were not finite.
    Broken {
        /// The sequence.
        seq: SeqId,
        /// What happened.
        reason: String,
    },
}

/// The adapter tokens are drawn under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// Its version; 0 before the first adapter.
    pub version: AdapterVersion,
    /// Its digest; the base model's before the first adapter.
    pub digest: Digest,
}

/// A loaded model and the sequences it works on. Single-threaded; see the crate's documentation.
#[derive(Debug)]
pub struct Engine {
    network: Network,
    options: Options,
    /// Tokens of one sequence.
    context: usize,
    /// Length of a row of logits.
    vocab: usize,
    vocabulary: Vocabulary,
    /// In the order of their last submission.
    sequences: Vec<Sequence>,
    prefixes: Prefixes,
    serving: Serving,
    staged: Option<Adapter>,
    opened: u64,
    scratch: Scratch,
    stats: Stats,
}

impl Engine {
    /// Loads a Hugging Face folder.
    ///
    /// # Errors
    /// When an option makes no sense, the folder cannot be read, or keys and values could take
    /// more memory than allowed.
    pub fn load(dir: &Path, options: Options) -> Result<Self, LoadError> {
        options.validate()?;
        let dir = ModelDir::open(dir)?;
        let vocabulary = Vocabulary::of(ChatTokenizer::open(dir.path())?);
        let network = Network::load(&dir, &options)?;
        Ok(Self::new(network, vocabulary, options))
    }

    /// An engine of weights that are in memory already, on the processor.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn of_decoder(
        decoder: Decoder<Cpu>,
        vocabulary: Vocabulary,
        options: Options,
    ) -> Result<Self, LoadError> {
        options.validate()?;
        let network = Network::on_cpu(decoder, &options)?;
        Ok(Self::new(network, vocabulary, options))
    }

    fn new(network: Network, vocabulary: Vocabulary, options: Options) -> Self {
        let serving = Serving { version: AdapterVersion(0), digest: network.base_digest() };
        Self {
            context: network.context(),
            vocab: network.config().vocab_size,
            vocabulary,
            sequences: Vec::with_capacity(options.sequences_max),
            prefixes: Prefixes::new(options.prefixes_max),
            serving,
            staged: None,
            opened: 0,
            scratch: Scratch::default(),
            stats: Stats::default(),
            network,
            options,
        }
    }

    /// Tokens a sequence may hold.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// The adapter in use.
    #[must_use]
    pub fn serving(&self) -> Serving {
        self.serving
    }

    /// Identity of the base model's weights.
    #[must_use]
    pub fn base_digest(&self) -> Digest {
        self.network.base_digest()
    }

    /// Counts since loading.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Whether a step would compute anything.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.sequences.iter().any(|s| s.generation.is_some())
    }

    /// Whether the next step computes more of a sequence than its next token.
    #[must_use]
    pub fn prefills(&self) -> bool {
        self.sequences.iter().any(|s| s.generation.is_some() && s.pending() > 1)
    }

    /// Sequences open.
    #[must_use]
    pub fn open_sequences(&self) -> usize {
        self.sequences.len()
    }

    /// Opens an empty sequence. Its keys and values are kept until it is closed, also between
    /// generations.
    ///
    /// # Errors
    /// When as many are open as allowed.
    pub fn open(&mut self) -> Result<SeqId, OpenError> {
        if self.sequences.len() >= self.options.sequences_max {
            return Err(OpenError::Full { max: self.options.sequences_max });
        }
        let slot = self.network.take().expect("there are slots for every sequence and kept prompt");
        self.opened += 1;
        let id = SeqId(self.opened);
        self.sequences.push(Sequence::new(id, slot));
        Ok(id)
    }

    /// Appends tokens to a sequence and generates from there, in the steps to come.
    ///
    /// # Errors
    /// When the sequence is unknown or busy, the tokens do not fit, or the sampling parameters
    /// make no sense. The sequence is then as it was.
    pub fn submit(
        &mut self,
        seq: SeqId,
        tokens: &[u32],
        sampling: Sampling,
    ) -> Result<(), SubmitError> {
        submission::check(tokens, &sampling, self.vocab)?;
        let max = self.context;
        let at = self.find(seq).ok_or(SubmitError::Unknown(seq))?;
        let mut sequence = self.sequences.remove(at);
        let result = submission::submit(&mut sequence, tokens, sampling, max);
        // A sequence goes to the end of the line when it submits: steps serve the line in order.
        let at = if result.is_ok() { self.sequences.len() } else { at };
        self.sequences.insert(at, sequence);
        result
    }

    /// Ends a sequence's generation early; what was generated stays in the sequence.
    pub fn abort(&mut self, seq: SeqId) {
        if let Some(at) = self.find(seq) {
            self.sequences[at].generation = None;
        }
    }

    /// Forgets a sequence. Its prompt may be kept for later ones.
    pub fn close(&mut self, seq: SeqId) {
        let Some(at) = self.find(seq) else { return };
        let sequence = self.sequences.remove(at);
        let known = sequence.pure_under(self.serving.digest).min(sequence.prompt);
        let freed = if known >= self.options.prefix_tokens_min.max(1) {
            self.network.truncate(sequence.slot, known);
            self.prefixes.keep(sequence.slot, self.serving.digest, &sequence.tokens[..known])
        } else {
            Some(sequence.slot)
        };
        if let Some(slot) = freed {
            self.network.release(slot);
        }
    }

    /// What verifies adapters for this engine; it can do so on another thread while the engine
    /// steps.
    #[must_use]
    pub fn adapter_loader(&self) -> AdapterLoader {
        self.network.adapter_loader()
    }

    /// Verifies an adapter and puts it in the back buffer; the next step swaps it in.
    ///
    /// # Errors
    /// When it is not what its manifest says, not for this model, not finite, or not newer.
    pub fn stage(&mut self, manifest: &AdapterManifest, bytes: &[u8]) -> Result<(), StageError> {
        let adapter = self.adapter_loader().load(manifest, bytes)?;
        self.stage_verified(adapter)
    }

    /// Puts a verified adapter in the back buffer; the next step swaps it in. One that was staged
    /// before and not yet swapped in is dropped.
    ///
    /// # Errors
    /// When it is not newer than the one in use. The one in use is taken again without effect.
    pub fn stage_verified(&mut self, adapter: Adapter) -> Result<(), StageError> {
        let newest = self.staged.as_ref().map_or(self.serving, Adapter::serving);
        let offered = adapter.serving();
        if offered == newest {
            return Ok(());
        }
        let first = self.stats.swaps == 0 && self.staged.is_none();
        if offered.version <= newest.version && !first {
            return Err(StageError::Stale { version: offered.version, active: newest.version });
        }
        self.staged = Some(adapter);
        Ok(())
    }

    /// Swaps the staged adapter in, if there is one. Called by every step; of use by itself where
    /// nothing is generating.
    pub fn swap(&mut self) -> Option<Serving> {
        let adapter = self.staged.take()?;
        let started = Instant::now();
        self.serving = adapter.serving();
        self.network.activate(adapter);
        for slot in self.prefixes.retain_only(self.serving.digest) {
            self.network.release(slot);
        }
        if self.options.on_swap == OnSwap::Recompute {
            for sequence in &mut self.sequences {
                sequence.reset();
                self.network.truncate(sequence.slot, 0);
            }
        }
        self.stats.swaps += 1;
        self.stats.last_swap_time = started.elapsed();
        Some(self.serving)
    }

    /// One forward pass: computes and samples. Empty where nothing is to be done.
    pub fn step(&mut self) -> Vec<Output> {
        self.swap();
        let started = Instant::now();
        let waiting = self.share_prefixes();
        let work = schedule(&self.sequences, &waiting, self.options.prefill_tokens_max);
        if work.is_empty() {
            return Vec::new();
        }
        let logits = self.network.forward(&work);
        let computed: usize = work.iter().map(|w| w.tokens.len()).sum();
        let plan: Vec<(SlotId, usize, bool)> =
            work.iter().map(|w| (w.slot, w.tokens.len(), w.logits == Logits::Last)).collect();
        let outputs = self.collect(&plan, &logits);

        self.stats.steps += 1;
        self.stats.sequences_stepped += plan.len() as u64;
        self.stats.sampled_tokens += outputs.len() as u64;
        let prefilled = computed - plan.iter().filter(|(_, count, _)| *count == 1).count();
        self.stats.prefill_tokens += prefilled as u64;
        if prefilled == 0 {
            self.stats.decode_time += started.elapsed();
        } else {
            self.stats.prefill_time += started.elapsed();
        }
        outputs
    }

    /// Log-probability of every token given the ones before it, at a temperature, under the
    /// adapter in use: log-softmax of logits / temperature. `[len]`, the first is 0.
    ///
    /// # Errors
    /// When the tokens do not fit or the logits are not finite.
    pub fn score(&mut self, tokens: &[u32], temperature: f32) -> Result<Vec<f32>, ScoreError> {
        let vocab = self.vocab;
        if tokens.len() > self.context {
            return Err(ScoreError::ContextFull { len: tokens.len(), max: self.context });
        }
        if let Some(id) = tokens.iter().find(|id| **id as usize >= vocab) {
            return Err(ScoreError::Vocabulary { id: *id, vocab });
        }
        let slot = self.network.take().expect("one slot is set aside for scoring");
        let result = self.score_in(slot, tokens, temperature);
        self.network.release(slot);
        result
    }

    fn score_in(
        &mut self,
        slot: SlotId,
        tokens: &[u32],
        temperature: f32,
    ) -> Result<Vec<f32>, ScoreError> {
        let vocab = self.vocab;
        let mut scores = vec![0.0; tokens.len().min(1)];
        let chunk = self.options.prefill_tokens_max.min(SCORE_LOGITS_MAX / vocab).max(1);
        for part in tokens.chunks(chunk) {
            let logits = self.network.forward(&[Work { slot, tokens: part, logits: Logits::All }]);
            // The row after each token scores the next one; the last row scores nothing.
            for (row, next) in logits.chunks_exact(vocab).zip(&tokens[scores.len()..]) {
                let score = sampler::logprob_of(row, *next, temperature, &mut self.scratch)
                    .map_err(|_| ScoreError::NotFinite(scores.len()))?;
                scores.push(score);
            }
        }
        Ok(scores)
    }

    fn find(&self, seq: SeqId) -> Option<usize> {
        self.sequences.iter().position(|s| s.id == seq)
    }

    /// Gives sequences that have not begun the keys and values another sequence has for the same
    /// first tokens. Says which sequences should wait, because one before them in the line is
    /// about to compute such tokens. `[sequences]`
    fn share_prefixes(&mut self) -> Vec<bool> {
        let digest = self.serving.digest;
        let worthwhile = self.options.prefix_tokens_min.max(1);
        let mut waiting = vec![false; self.sequences.len()];
        for (at, wait) in waiting.iter_mut().enumerate() {
            let sequence = &self.sequences[at];
            if sequence.computed > 0 || sequence.generation.is_none() {
                continue;
            }
            // The last token is always computed: its logits are wanted.
            let wanted = &sequence.tokens[..sequence.tokens.len() - 1];
            let mut best = self.prefixes.longest(digest, wanted);
            let mut coming = 0;
            for (other_at, other) in self.sequences.iter().enumerate() {
                if other_at == at {
                    continue;
                }
                let common = shared(&other.tokens, wanted);
                let ready = common.min(other.pure_under(digest));
                if best.is_none_or(|(_, len)| len < ready) {
                    best = Some((other.slot, ready));
                }
                // Between turns a sequence computes nothing.
                let grows = other.computed == 0 || other.pure_under(digest) == other.computed;
                if other_at < at && other.generation.is_some() && grows {
                    coming = coming.max(common);
                }
            }
            let ready = best.map_or(0, |(_, len)| len);
            if coming >= ready + worthwhile {
                *wait = true;
            } else if let Some((from, len)) = best
                && len >= worthwhile
                && self.network.copy_prefix(from, sequence.slot, len)
            {
                self.sequences[at].advance(len, digest);
                self.stats.shared_tokens += len as u64;
            }
        }
        waiting
    }

    /// Notes what was computed and samples. `logits`: one row of `[vocab]` for each entry of
    /// `plan` that asked for one, in order.
    fn collect(&mut self, plan: &[(SlotId, usize, bool)], logits: &[f32]) -> Vec<Output> {
        let Self { sequences, vocab, vocabulary, scratch, serving, context, .. } = self;
        let mut rows = logits.chunks_exact(*vocab);
        let mut outputs = Vec::with_capacity(plan.len());
        let mut entries = plan.iter().peekable();
        // `plan` is in the order of `sequences`.
        for sequence in sequences {
            let Some((_, count, sampled)) = entries.next_if(|(slot, ..)| *slot == sequence.slot)
            else {
                continue;
            };
            sequence.advance(*count, serving.digest);
            if !sampled {
                continue;
            }
            let row = rows.next().expect("a row of logits for each sequence that asked");
            outputs.push(sample(sequence, row, *serving, *context, vocabulary, scratch));
        }
        outputs
    }
}

/// Who computes what in the next pass: every sequence with one token to go, and the others up to
/// `budget` tokens, in the order they submitted.
fn schedule<'a>(sequences: &'a [Sequence], waiting: &[bool], mut budget: usize) -> Vec<Work<'a>> {
    let mut work = Vec::with_capacity(sequences.len());
    for (sequence, wait) in sequences.iter().zip(waiting) {
        if sequence.generation.is_none() || *wait {
            continue;
        }
        let pending = sequence.pending();
        let count = if pending == 1 { 1 } else { pending.min(budget) };
        if count == 0 {
            continue;
        }
        if pending > 1 {
            budget -= count;
        }
        let start = sequence.computed;
        let logits = if count == pending { Logits::Last } else { Logits::None };
        let tokens = &sequence.tokens[start..start + count];
        work.push(Work { slot: sequence.slot, tokens, logits });
    }
    work
}

/// Logits a scoring pass may hold at once: 64 MiB of f32.
const SCORE_LOGITS_MAX: usize = 16 << 20;

/// Draws a sequence's next token and appends it.
fn sample(
    sequence: &mut Sequence,
    row: &[f32],
    serving: Serving,
    context: usize,
    vocabulary: &Vocabulary,
    scratch: &mut Scratch,
) -> Output {
    let seq = sequence.id;
    let generation: &mut Generation =
        sequence.generation.as_mut().expect("only generating sequences are scheduled");
    let uniform = generation.uniform();
    match sampler::draw(row, &generation.sampling, uniform, scratch) {
        Err(error) => {
            sequence.generation = None;
            Output::Broken { seq, reason: error.to_string() }
        }
        Ok(drawn) => {
            sequence.tokens.push(drawn.id);
            let full = sequence.tokens.len() >= context;
            let stop = generation.take(drawn.id, vocabulary, full);
            if stop.is_some() {
                sequence.generation = None;
            }
            let token = Sampled {
                id: drawn.id,
                logprob: drawn.logprob,
                version: serving.version,
                digest: serving.digest,
            };
            Output::Token { seq, token, stop }
        }
    }
}
