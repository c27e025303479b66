//! One step of learning: micro-batches, the objective between forward and backward pass, the
//! update.

use std::path::Path;
use std::time::Instant;

use crrl_machine::Stop;
use crrl_model::train::HeadOut;
use crrl_model::{AdapterWeights, Cpu, Decoder, FileDtype, Lora, ModelConfig, ModelDir};
use crrl_rl::objective::{Batch, Metrics, ObjectiveError, Outcome, Totals, objective};
use crrl_types::{AdapterVersion, Digest};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use crate::error::LearnerError;
use crate::example::{Episode, Example, check, targets, unlike};
use crate::network::{Learnt, Network, Reading, Slope};
use crate::optimizer;
use crate::options::{Options, Trainable};
use crate::parameters::Parameters;
use crate::passes::{Pass, Sequence};
use crate::phase::{Listener, Phase};
use crate::publish::{self, Published};
use crate::report::{Accuracy, Report};

/// A network on one of the backends.
enum Inner {
    Cpu(Box<Network<Cpu>>),
    #[cfg(feature = "cuda")]
    Cuda(Box<Network<crrl_model::Cuda>>),
}

/// Runs the same code on whichever backend there is.
macro_rules! on {
    ($inner:expr, $network:ident => $body:expr) => {
        match $inner {
            Inner::Cpu($network) => $body,
            #[cfg(feature = "cuda")]
            Inner::Cuda($network) => $body,
        }
    };
}

/// Trains a decoder, or an adapter on it.
pub struct Learner {
    inner: Inner,
    options: Options,
    updates: u64,
    /// Tokens of a pass; falls when a pass fails.
    pub(crate) budget: usize,
    /// Whether the next update is to fail.
    spoilt: bool,
    listener: Listener,
    /// Heard between two passes.
    pub(crate) stop: Stop,
}

impl std::fmt::Debug for Learner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Learner")
            .field("updates", &self.updates)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Episodes of one batch, with what is known of their tokens besides the current policy.
struct Known<'a> {
    episodes: &'a [Episode],
    /// Under the proximal policy; `None` where the current one is it.
    old: Option<Vec<Vec<f64>>>,
    /// Under the reference.
    reference: Option<Vec<Vec<f64>>>,
}

impl Learner {
    /// Loads a model folder onto `device` (`cpu`, or `cuda` in a build with it).
    ///
    /// # Errors
    /// When an option makes no sense, the folder cannot be read, or the device is not there.
    pub fn load(dir: &Path, device: &str, options: Options) -> Result<Self, LearnerError> {
        options.validate()?;
        let dir = ModelDir::open(dir)?;
        let inner = match device {
            "cpu" => Inner::Cpu(Box::new(Network::new(
                Decoder::load(&dir, &Default::default())?,
                &options.trainable,
                options.seed,
            ))),
            #[cfg(feature = "cuda")]
            "cuda" => Inner::Cuda(Box::new(Network::new(
                Decoder::load(&dir, &Default::default())?,
                &options.trainable,
                options.seed,
            ))),
            other => return Err(LearnerError::Device(other.to_owned())),
        };
        Ok(Self::around(inner, options))
    }

    /// A decoder with weights drawn from the options' seed, on the CPU.
    ///
    /// # Errors
    /// When an option makes no sense.
    pub fn random(config: &ModelConfig, options: Options) -> Result<Self, LearnerError> {
        options.validate()?;
        let decoder = Decoder::random(config, options.seed, &Default::default());
        let network = Network::new(decoder, &options.trainable, options.seed);
        Ok(Self::around(Inner::Cpu(Box::new(network)), options))
    }

    fn around(mut inner: Inner, options: Options) -> Self {
        on!(&mut inner, n => n.checkpoint_activations(options.checkpoint_activations));
        Self {
            inner,
            budget: options.micro_batch_tokens,
            options,
            updates: 0,
            spoilt: false,
            listener: Listener::default(),
            stop: Stop::default(),
        }
    }

    /// Tells `listener` of every phase a step comes into, on the thread that steps. It must not block.
    pub fn tell_phases(&mut self, listener: impl Fn(Phase) + Send + Sync + 'static) {
        self.listener = Listener::new(listener);
    }

    /// Ends a step between two passes once `stop` is wanted, with [`LearnerError::Stopped`]: nothing is
    /// updated by passes that were cut short.
    pub fn heed(&mut self, stop: Stop) {
        self.stop = stop;
    }

    /// Shape of the model.
    #[must_use]
    pub fn model(&self) -> &ModelConfig {
        on!(&self.inner, n => &n.decoder().config)
    }

    /// Identity of the base weights as they were loaded.
    #[must_use]
    pub fn base_digest(&self) -> Digest {
        on!(&self.inner, n => n.decoder().base_digest())
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Optimizer updates so far.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The trainable weights and their moments.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        on!(&self.inner, n => n.parameters())
    }

    /// The adapter as the device computes with it; `None` where every weight is trained.
    #[must_use]
    pub fn adapter(&self) -> Option<AdapterWeights> {
        on!(&self.inner, n => n.lora().map(Lora::to_weights))
    }

    /// The adapter's master weights in f32, which updates go to: [`Learner::adapter`] before a device that
    /// computes in bf16 rounds it. `None` where every weight is trained.
    #[must_use]
    pub fn master_adapter(&self) -> Option<AdapterWeights> {
        on!(&self.inner, n => n.masters())
    }

    /// Puts an adapter in the place of the present one, moments at zero.
    ///
    /// # Errors
    /// When it does not fit the model or the options.
    pub fn set_adapter(&mut self, weights: &AdapterWeights) -> Result<(), LearnerError> {
        weights.check_shapes(self.model())?;
        if weights.first_not_finite().is_some() {
            publish::pack(weights, FileDtype::F32, AdapterVersion(0), self.base_digest())?;
        }
        match &self.options.trainable {
            Trainable::Lora(config) if *config == weights.config => {}
            Trainable::Lora(_) => {
                return Err(crrl_model::AdapterError::Manifest("rank, alpha or targets").into());
            }
            Trainable::Full => return Err(LearnerError::NoAdapter),
        }
        on!(&mut self.inner, n => n.set_adapter(weights));
        Ok(())
    }

    /// The adapter as it is sent, under a version: the weights this learner computes with, rounded to
    /// `dtype`. The same weights give the same bytes.
    ///
    /// # Errors
    /// When every weight is trained, or a value is not finite or would not be once rounded.
    pub fn publish(
        &self,
        version: AdapterVersion,
        dtype: FileDtype,
    ) -> Result<Published, LearnerError> {
        let weights = self.adapter().ok_or(LearnerError::NoAdapter)?;
        publish::pack(&weights, dtype, version, self.base_digest())
    }

    /// Bytes of what is trained, as an adapter packed in `dtype`: a little more than it takes.
    #[must_use]
    pub fn adapter_bytes(&self, dtype: FileDtype) -> u64 {
        publish::bytes_of(self.parameters(), dtype)
    }

    /// Writes the model's weights and `config.json` into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save_model(&self, dir: &Path, dtype: FileDtype) -> Result<(), LearnerError> {
        Ok(on!(&self.inner, n => n.decoder().save(dir, dtype))?)
    }

    /// Puts a checkpoint's weights and moments in place.
    pub(crate) fn restore(
        &mut self,
        base: Option<&ModelDir>,
        adapter: Option<&AdapterWeights>,
        updates: u64,
        moments: impl FnOnce(&mut Parameters) -> Result<(), String>,
    ) -> Result<Result<(), String>, LearnerError> {
        if let Some(dir) = base {
            on!(&mut self.inner, n => {
                let device = n.decoder().device();
                n.set_decoder(Decoder::load(dir, &device)?);
            });
        }
        if let Some(weights) = adapter {
            self.set_adapter(weights)?;
        }
        self.updates = updates;
        Ok(on!(&mut self.inner, n => n.change(moments)))
    }

    /// One update towards imitating examples: mean negative log-probability of the tokens their
    /// masks name.
    ///
    /// # Errors
    /// When an example does not fit the model, or a pass fails.
    pub fn imitate(&mut self, examples: &[Example]) -> Result<Report, LearnerError> {
        for (index, example) in examples.iter().enumerate() {
            check(index, &example.tokens, &example.mask, self.model().vocab_size)?;
        }
        let prompt_weight = self.options.prompt_loss as f32;
        let sequences: Vec<Sequence<'_>> = examples
            .iter()
            .map(|example| Sequence::of_example(example, prompt_weight > 0.0))
            .collect();
        let weight = |index: usize, t: usize| -> f32 {
            if examples[index].mask[t] { 1.0 } else { prompt_weight }
        };
        let weights =
            |index: usize| sequences[index].positions.iter().map(move |&t| weight(index, t));
        let total: f64 = (0..examples.len()).flat_map(weights).map(f64::from).sum();
        let count: usize = examples.iter().map(|e| targets(&e.mask).count()).sum();
        let mut report = Report { sequences: examples.len(), ..Report::default() };
        let mut gradients = self.parameters().zeros();
        let started = Instant::now();
        self.listener.tell(Phase::Pass);
        let pass: &Pass<'_, _> = &|learner, bin, reading| {
            let slopes: Vec<f32> = bin
                .iter()
                .flat_map(|&index| weights(index))
                .map(|weight| -weight / total.max(1e-9) as f32)
                .collect();
            on!(&learner.inner, n => n.learn(reading, Slope::Known(&slopes)))
        };
        self.passes(&sequences, 1.0, pass, &mut |bin, reading, learnt: Learnt| {
            learnt.add_to(&mut gradients);
            // Numbers are of the tokens trained on, whatever else is learnt beside them.
            let own = bin.iter().flat_map(|&index| {
                sequences[index].positions.iter().map(move |&t| examples[index].mask[t])
            });
            let out = learnt.out.only(own);
            report.read(reading.packed.tokens.len(), &out);
            report.loss -= out.logprobs.iter().map(|&lp| f64::from(lp)).sum::<f64>();
        })?;
        report.loss /= count.max(1) as f64;
        report.pass_time = started.elapsed();
        self.update(gradients, &mut report);
        report.close();
        Ok(report)
    }

    /// How well examples are predicted, without learning from them.
    ///
    /// # Errors
    /// As [`Learner::imitate`].
    pub fn accuracy(&mut self, examples: &[Example]) -> Result<Accuracy, LearnerError> {
        for (index, example) in examples.iter().enumerate() {
            check(index, &example.tokens, &example.mask, self.model().vocab_size)?;
        }
        let sequences: Vec<Sequence<'_>> =
            examples.iter().map(|example| Sequence::of_example(example, false)).collect();
        let mut accuracy = Accuracy::default();
        let (mut hits, mut whole, mut read) = (0, 0, 0);
        let pass: &Pass<'_, _> =
            &|learner, _, reading| Ok(on!(&learner.inner, n => n.score(reading, true)));
        self.passes(&sequences, 1.0, pass, &mut |bin, _, out: HeadOut| {
            accuracy.loss -= out.logprobs.iter().map(|&lp| f64::from(lp)).sum::<f64>();
            let mut from = 0;
            for &index in bin {
                let count = sequences[index].positions.len();
                let greedy = &out.greedy[from..from + count];
                hits += greedy.iter().filter(|g| **g).count();
                whole += usize::from(greedy.iter().all(|g| *g));
                from += count;
                read += 1;
            }
            accuracy.count += from;
        })?;
        let count = accuracy.count.max(1) as f64;
        accuracy.loss /= count;
        accuracy.tokens = f64::from(u32::try_from(hits).unwrap_or(u32::MAX)) / count;
        accuracy.examples = f64::from(whole as u32) / f64::from(u32::max(read, 1));
        Ok(accuracy)
    }

    /// One step on a batch of episodes: `epochs` x `minibatches` updates by the objective.
    ///
    /// # Errors
    /// When an episode does not fit the model, temperatures differ, or a pass fails. A loss or
    /// gradient that is not finite is no error: the update is skipped and counted.
    pub fn reinforce(&mut self, episodes: &[Episode]) -> Result<Report, LearnerError> {
        let temperature = self.check_episodes(episodes)?;
        let mut report = Report { sequences: episodes.len(), ..Report::default() };
        report.rewards(episodes);
        self.listener.tell(Phase::Score);
        let started = Instant::now();
        let updates = self.options.epochs * self.options.minibatches;
        let sequences: Vec<Sequence<'_>> = episodes.iter().map(Sequence::of_episode).collect();
        let known = Known {
            episodes,
            old: if updates > 1 { Some(self.scores(&sequences, temperature, true)?) } else { None },
            reference: if self.options.objective.beta > 0.0 {
                Some(self.scores(&sequences, temperature, false)?)
            } else {
                None
            },
        };
        report.score_time = started.elapsed();
        let mut metrics = Metrics::default();
        let mut order: Vec<usize> = (0..episodes.len()).collect();
        // Drawn from the number of updates: a resumed run shuffles as the first would have.
        let mut rng = ChaCha8Rng::seed_from_u64(self.options.seed ^ self.updates.rotate_left(32));
        for _ in 0..self.options.epochs {
            if self.options.minibatches > 1 {
                order.shuffle(&mut rng);
            }
            let size = order.len().div_ceil(self.options.minibatches as usize).max(1);
            for part in order.chunks(size) {
                self.minibatch(&known, part, &sequences, temperature, &mut metrics, &mut report)?;
            }
        }
        report.clip_idle = metrics.clip_idle();
        report.objective = Some(metrics);
        report.close();
        Ok(report)
    }

    fn check_episodes(&self, episodes: &[Episode]) -> Result<f32, LearnerError> {
        let fault = |index, problem: String| Err(LearnerError::Example { index, problem });
        let temperature = episodes.first().map_or(1.0, |e| e.temperature);
        for (index, episode) in episodes.iter().enumerate() {
            let problem = episode
                .problem(self.model().vocab_size)
                .or_else(|| unlike(episode.temperature, temperature));
            if let Some(problem) = problem {
                return fault(index, problem);
            }
        }
        Ok(temperature)
    }

    /// One update on some of the episodes.
    fn minibatch(
        &mut self,
        known: &Known<'_>,
        part: &[usize],
        sequences: &[Sequence<'_>],
        temperature: f32,
        metrics: &mut Metrics,
        report: &mut Report,
    ) -> Result<(), LearnerError> {
        self.listener.tell(Phase::Pass);
        let started = Instant::now();
        let kl = self.options.objective.beta > 0.0;
        // Totals count every episode; those without a gradient need no pass.
        let totals = Totals {
            episodes: part.len(),
            active_tokens: part.iter().map(|&i| sequences[i].positions.len()).sum(),
        };
        let live: Vec<usize> = part
            .iter()
            .copied()
            .filter(|&i| kl || known.episodes[i].advantage != 0.0)
            .filter(|&i| !sequences[i].positions.is_empty())
            .collect();
        let chosen: Vec<Sequence<'_>> = live.iter().map(|&i| sequences[i].clone()).collect();
        let mut gradients = self.parameters().zeros();
        let mut loss = 0.0;
        let rule = self.options.objective;
        let pass: &Pass<'_, _> = &|learner, bin, reading| {
            let mut outcome = None;
            let mut slope = |out: &HeadOut| -> Result<Vec<f32>, LearnerError> {
                let bin: Vec<usize> = bin.iter().map(|&at| live[at]).collect();
                let judged = judge(&rule, known, sequences, &bin, &out.logprobs, totals)?;
                let slopes = judged.grad.iter().map(|&g| g as f32).collect();
                outcome = Some(judged);
                Ok(slopes)
            };
            let slope = Slope::From(&mut slope);
            let learnt = on!(&learner.inner, n => n.learn(reading, slope))?;
            Ok((learnt, outcome.expect("the slope was asked for")))
        };
        let fold = &mut |_: &[usize], reading: &Reading, (learnt, outcome): (Learnt, Outcome)| {
            learnt.add_to(&mut gradients);
            report.read(reading.packed.tokens.len(), &learnt.out);
            loss += outcome.loss;
            metrics.merge(&outcome.metrics);
        };
        let done = self.passes(&chosen, temperature, pass, fold);
        report.pass_time += started.elapsed();
        report.loss += loss;
        match done {
            Ok(()) => self.update(gradients, report),
            Err(LearnerError::Objective(ObjectiveError::NotFinite { name, index, value })) => {
                tracing::warn!(name, index, value, "update skipped: a number is not finite");
                report.skipped += 1;
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Log-probabilities of the tokens trained on, sequence by sequence.
    fn scores(
        &mut self,
        sequences: &[Sequence<'_>],
        temperature: f32,
        adapter: bool,
    ) -> Result<Vec<Vec<f64>>, LearnerError> {
        let mut scores = vec![Vec::new(); sequences.len()];
        let pass: &Pass<'_, _> =
            &|learner, _, reading| Ok(on!(&learner.inner, n => n.score(reading, adapter)));
        self.passes(sequences, temperature, pass, &mut |bin, _, out: HeadOut| {
            let mut left = out.logprobs.iter().map(|&lp| f64::from(lp));
            for &index in bin {
                scores[index] = left.by_ref().take(sequences[index].positions.len()).collect();
            }
        })?;
        Ok(scores)
    }

    /// Makes a value of the next update's gradients not a number: for fault injection. The update
    /// is skipped and counted, as any other such one.
    pub fn spoil_next_update(&mut self) {
        self.spoilt = true;
    }

    /// Applies gradients and counts.
    fn update(&mut self, mut gradients: Vec<Vec<f32>>, report: &mut Report) {
        if std::mem::take(&mut self.spoilt)
            && let Some(value) = gradients.iter_mut().flatten().next()
        {
            *value = f32::NAN;
        }
        self.listener.tell(Phase::Update);
        let started = Instant::now();
        let (options, step) = (self.options.optimizer, self.updates + 1);
        let update = on!(&mut self.inner, n => {
            n.change(|parameters| optimizer::update(parameters, &gradients, &options, step))
        });
        if update.applied {
            self.updates = step;
        } else {
            tracing::warn!("update skipped: a gradient is not finite");
            report.skipped += 1;
        }
        report.updates = self.updates;
        report.grad_norm = update.grad_norm;
        report.learning_rate = update.learning_rate;
        report.update_time += started.elapsed();
    }
}

/// Applies the objective to the episodes of one micro-batch; the gradient is over the tokens
/// trained on.
fn judge(
    rule: &crrl_rl::objective::Objective,
    known: &Known<'_>,
    sequences: &[Sequence<'_>],
    bin: &[usize],
    logprobs: &[f32],
    totals: Totals,
) -> Result<Outcome, ObjectiveError> {
    let lp: Vec<f64> = logprobs.iter().map(|&lp| f64::from(lp)).collect();
    let gather = |scores: &Vec<Vec<f64>>| -> Vec<f64> {
        bin.iter().flat_map(|&i| scores[i].iter().copied()).collect()
    };
    let old = known.old.as_ref().map_or_else(|| lp.clone(), gather);
    let reference = known.reference.as_ref().map(gather);
    let sampled: Vec<f64> = bin
        .iter()
        .flat_map(|&i| sequences[i].positions.iter().map(move |&t| (i, t)))
        .map(|(i, t)| f64::from(known.episodes[i].sampled[t]))
        .collect();
    let mut cu_seqlens = vec![0];
    for &i in bin {
        cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + sequences[i].positions.len());
    }
    let advantages: Vec<f64> = bin.iter().map(|&i| known.episodes[i].advantage).collect();
    let mask = vec![true; lp.len()];
    let batch = Batch {
        cu_seqlens: &cu_seqlens,
        lp: &lp,
        old: &old,
        sampled: &sampled,
        reference: reference.as_deref(),
        mask: &mask,
        advantages: &advantages,
    };
    objective(rule, &batch, totals)
}
