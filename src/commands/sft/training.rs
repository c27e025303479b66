//! The run: make ready, update by update, look at held-out traces, write the result.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use crrl_actors::chat_codec::ModelCodec;
use crrl_agent::{ChatCodec, Style};
use crrl_learner::checkpoint::Progress;
use crrl_learner::{
    Accuracy, AdamW, Checkpoints, Example, Feed, Learner, Options, Report, Schedule, Trainable,
};
use crrl_model::{ChatTokenizer, FileDtype, LoraConfig, ModelDir, Target};
use crrl_types::Split;

use super::Args;
use super::drill;
use super::material::Material;
use super::scratch;
use crate::commands::failure::Coded;
use crate::meter::{Count, Meter};

/// Folder of the checkpoints inside the output folder.
const CHECKPOINTS: &str = "checkpoints";
/// Checkpoints kept.
const KEPT: usize = 2;
/// Examples until no drill is left, for a model made from nothing.
const DRILLS: u64 = 8000;
/// Weight of tokens that are only read, for a model made from nothing.
const PROMPT_LOSS: f64 = 0.2;
/// The cosine ends at this share of the peak.
const FLOOR: f64 = 0.05;

/// What is trained on what.
struct Setup {
    learner: Learner,
    codec: Arc<dyn ChatCodec>,
    agent: crrl_agent::Options,
    material: Arc<Material>,
    held_out: Vec<Example>,
    steps: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let source = match &args.source {
        Some(path) => path.clone(),
        None => crrl_tasks::find_stdlib().ok_or_else(|| {
            Coded::usage("no Python standard library was found; name a source tree or a task file")
        })?,
    };
    let store = Checkpoints::new(args.out.join(CHECKPOINTS), KEPT);
    if !args.resume && store.holds_any() {
        return Err(Coded::usage(format!(
            "{} already holds a run: --resume continues it, another --out starts another",
            args.out.display()
        )));
    }
    let making_ready = Meter::start(args.quiet, "making ready", "", 0);
    let mut setup = prepare(args, &source, &making_ready)?;
    drop(making_ready);
    let mut cursor = 0;
    if args.resume {
        let found = store.newest()?;
        for damaged in &found.damaged {
            eprintln!("{damaged}; the one before it is used");
        }
        match found.checkpoint {
            Some(checkpoint) => {
                cursor = checkpoint.restore(&mut setup.learner)?.cursor;
                eprintln!("resumed after {} updates", setup.learner.updates());
            }
            None => eprintln!("no checkpoint to resume from; starting"),
        }
    }
    let interrupted = interrupt_flag()?;
    let meter = Meter::start(args.quiet, "training", "updates", setup.steps);
    let mut pace = Pace::from(setup.learner.updates(), meter.count());
    let finished = train(args, &mut setup, &store, cursor, &interrupted, (&meter, &mut pace))?;
    let accuracy = setup.learner.accuracy(&setup.held_out)?;
    meter.note(&held_out_line(setup.learner.updates(), &accuracy));
    drop(meter);
    if !finished {
        eprintln!("stopped; `--resume` goes on from here");
        return Ok(ExitCode::from(130));
    }
    write(args, &setup.learner)?;
    report(args, &setup, &accuracy, pace.rate(), started);
    Ok(ExitCode::SUCCESS)
}

/// Everything before the first update.
fn prepare(args: &Args, source: &Path, meter: &Meter) -> anyhow::Result<Setup> {
    let material = Material::load(args, source, Split::Sft, false)?;
    if material.is_empty() {
        return Err(Coded::usage(format!(
            "{} has no tasks on the side of the split for fine-tuning or training",
            source.display()
        )));
    }
    meter.note(&format!("traces over {} of {}", material.describe(), source.display()));
    let steps = args.tokens.div_ceil(args.batch_tokens as u64);
    let trained_by = |trainable, rate| Options {
        trainable,
        optimizer: AdamW {
            learning_rate: args.learning_rate.unwrap_or(rate),
            beta2: 0.95,
            weight_decay: args.weight_decay,
            warmup_steps: args.warmup.min(steps.div_ceil(10)),
            schedule: Schedule::Cosine { steps, floor: FLOOR },
            ..AdamW::default()
        },
        micro_batch_tokens: args.micro_batch_tokens,
        checkpoint_activations: args.checkpoint_activations,
        prompt_loss: args.prompt_loss.unwrap_or(if args.from_scratch { PROMPT_LOSS } else { 0.0 }),
        seed: args.seed,
        ..Options::default()
    };
    let (learner, tokenizer) = match &args.model {
        None => {
            std::fs::create_dir_all(&args.out)
                .with_context(|| format!("cannot make {}", args.out.display()))?;
            // A resumed run needs the very same vocabulary, so it is written first and read back.
            if !(args.resume && args.out.join("tokenizer.json").is_file()) {
                scratch::tokenizer(args, &material)?.save(&args.out)?;
            }
            let tokenizer = ChatTokenizer::open(&args.out)?;
            let config = scratch::config(args, &tokenizer)?;
            let learner = Learner::random(&config, trained_by(Trainable::Full, 3e-3))?;
            (learner, tokenizer)
        }
        Some(dir) => {
            let (trainable, rate) = if args.full {
                (Trainable::Full, 2e-5)
            } else {
                let lora = LoraConfig {
                    rank: args.rank,
                    alpha: args.alpha,
                    targets: Target::ALL.to_vec(),
                    rank_stabilized: false,
                };
                (Trainable::Lora(lora), 2e-4)
            };
            let learner = Learner::load(dir, &args.device, trained_by(trainable, rate))?;
            (learner, ChatTokenizer::open(dir)?)
        }
    };
    let context = learner.model().max_positions;
    let agent = agent_options(args, context);
    agent.validate()?;
    let config = learner.model();
    meter.note(&format!(
        "model: {} parameters ({} trained), vocabulary {}, context {context}",
        config.parameters(),
        learner.parameters().len(),
        config.vocab_size,
    ));
    let codec: Arc<dyn ChatCodec> = Arc::new(ModelCodec::from(tokenizer));
    let held_out = held_out(args, source, &codec, &agent, meter)?;
    Ok(Setup { learner, codec, agent, material: Arc::new(material), held_out, steps })
}

fn agent_options(args: &Args, context: usize) -> crrl_agent::Options {
    let tokens = u32::try_from(context).unwrap_or(u32::MAX);
    let brief = match args.prompt.as_deref() {
        Some(style) => style == "brief",
        None => args.from_scratch,
    };
    if brief {
        // As the quickstart's episodes: a trace that stops early is not nudged on.
        let brief = crrl_agent::Options::brief(tokens);
        return crrl_agent::Options { calls_max: 4, nudges_max: 0, ..brief };
    }
    let default = crrl_agent::Options::default();
    crrl_agent::Options {
        style: Style::Full,
        tokens_max: default.tokens_max.min(tokens),
        ..default
    }
}

/// Traces of files that nothing trains on, unaltered.
fn held_out(
    args: &Args,
    source: &Path,
    codec: &Arc<dyn ChatCodec>,
    agent: &crrl_agent::Options,
    meter: &Meter,
) -> anyhow::Result<Vec<Example>> {
    let material = match Material::load(args, source, Split::HeldOut, true) {
        Ok(material) if !material.is_empty() => material,
        Ok(_) | Err(_) => {
            meter.warn("no held-out traces here: nothing is measured on unseen files");
            return Ok(Vec::new());
        }
    };
    (0..args.eval_traces as u64)
        .map(|index| material.example(codec, agent, args.seed, index).map_err(anyhow::Error::msg))
        .collect()
}

/// Tokens over time, and what the line says of the last update.
struct Pace {
    count: Count,
    started: Instant,
    tokens: u64,
}

impl Pace {
    fn from(updates: u64, count: Count) -> Self {
        count.from(updates);
        Self { count, started: Instant::now(), tokens: 0 }
    }

    fn step(&mut self, step: u64, report: &Report) {
        self.tokens += report.tokens as u64;
        self.count.at(step);
        let (loss, right) = (report.loss, 100.0 * report.greedy);
        let rate = self.rate();
        self.count.say(format!("loss {loss:.4}  accuracy {right:.1} %  {rate:.0} tokens/s"));
    }

    /// Tokens a second so far.
    fn rate(&self) -> f64 {
        self.tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }
}

/// How held-out traces are predicted.
fn held_out_line(step: u64, accuracy: &Accuracy) -> String {
    format!(
        "held out after {step} updates: loss {:.4}, {:.2} % of tokens, {:.1} % of traces whole",
        accuracy.loss,
        100.0 * accuracy.tokens,
        100.0 * accuracy.examples,
    )
}

/// Updates until all are done (true) or someone interrupts (false).
fn train(
    args: &Args,
    setup: &mut Setup,
    store: &Checkpoints,
    cursor: u64,
    interrupted: &AtomicBool,
    (meter, pace): (&Meter, &mut Pace),
) -> anyhow::Result<bool> {
    let (material, codec) = (Arc::clone(&setup.material), Arc::clone(&setup.codec));
    let (agent, seed) = (setup.agent.clone(), args.seed);
    let drills = args.drills.unwrap_or(if args.from_scratch { DRILLS } else { 0 });
    let mut feed = Feed::start(cursor, move |index| {
        let example = material.example(&codec, &agent, seed, index)?;
        Ok(drill::instead(example, seed, index, drills))
    });
    let mut batches = setup.learner.updates();
    while batches < setup.steps {
        let batch = feed.batch(args.batch_tokens)?;
        let report = setup.learner.imitate(&batch)?;
        batches += 1;
        pace.step(batches, &report);
        let stop = interrupted.load(Ordering::Relaxed);
        if stop || batches.is_multiple_of(args.checkpoint_every) || batches == setup.steps {
            let progress = Progress { cursor: feed.cursor(), ..Progress::default() };
            store.save(&setup.learner, &progress)?;
        }
        if stop {
            return Ok(false);
        }
        if batches.is_multiple_of(args.eval_every) && batches < setup.steps {
            let accuracy = setup.learner.accuracy(&setup.held_out)?;
            meter.note(&held_out_line(batches, &accuracy));
        }
    }
    Ok(true)
}

/// The model or the adapter, where others look for it.
fn write(args: &Args, learner: &Learner) -> anyhow::Result<()> {
    match learner.adapter() {
        None => {
            learner.save_model(&args.out, FileDtype::Bf16)?;
            if let Some(dir) = &args.model {
                ChatTokenizer::open(dir)?.save(&args.out)?;
            }
            ModelDir::open(&args.out).context("the model just written cannot be read")?;
        }
        Some(weights) => {
            let base = args.model.as_deref().map(|dir| dir.display().to_string());
            crrl_model::peft::save(&weights, &args.out, &base.unwrap_or_default(), FileDtype::F32)?;
        }
    }
    Ok(())
}

fn report(args: &Args, setup: &Setup, accuracy: &Accuracy, rate: f64, started: Instant) {
    let out: PathBuf = args.out.clone();
    if args.json {
        let value = serde_json::json!({
            "out": out,
            "parameters": setup.learner.model().parameters(),
            "trained": setup.learner.parameters().len(),
            "updates": setup.learner.updates(),
            "held_out": {
                "loss": accuracy.loss,
                "token_accuracy": accuracy.tokens,
                "trace_accuracy": accuracy.examples,
                "tokens": accuracy.count,
            },
            "tokens_per_s": rate,
            "wall_s": started.elapsed().as_secs_f64(),
        });
        println!("{value:#}");
    } else {
        eprintln!("written to {} in {:.0} s", out.display(), started.elapsed().as_secs_f64());
    }
}

/// A flag that Ctrl-C raises; a second one ends the process at once.
fn interrupt_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("ctrl-c".into()).spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                eprintln!("\nstopping after this update; Ctrl-C again stops at once");
                raised.store(true, Ordering::Relaxed);
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
    })?;
    Ok(flag)
}
