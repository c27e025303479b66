//! What watching an actor costs it a message: an actor that does nothing, bare and with a probe.

use std::time::Duration;

use anyhow::Context as _;
use crrl_cluster::{Letter, Probe, Probes, Watched};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::json;
use tokio::sync::oneshot;

use crate::usage;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Messages of a window.
    #[arg(long, default_value_t = 500_000)]
    messages: u64,
    /// Turns of bare and watched.
    #[arg(long, default_value_t = 9)]
    turns: usize,
}

/// Messages in a mailbox at a time: those of a busy actor, and all of them timed one by one.
const BURST: u64 = 256;

/// Takes messages and does nothing.
struct Idle;

/// Named as the product's messages are: "Inbound" is what the mesh brings.
#[derive(Debug)]
enum Msg {
    Inbound,
    Reached(oneshot::Sender<()>),
}

impl ractor::Message for Msg {}

impl Actor for Idle {
    type Msg = Msg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let Msg::Reached(answer) = message {
            // Whoever asked waits for it.
            let _ = answer.send(());
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // One thread: what is measured is work, not two threads passing messages to each other.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let mut ns: [Vec<f64>; 2] = Default::default();
    for turn in 0..=args.turns {
        // The one that is first in one turn is second in the next.
        for with in [turn % 2, 1 - turn % 2] {
            let cpu = window(args.messages, with == 1).await?;
            // The first turn warms up.
            if turn > 0 {
                ns[with].push(cpu.as_secs_f64() * 1e9 / args.messages.max(1) as f64);
            }
        }
    }
    let [mut bare, mut watched] = ns;
    let mut costs: Vec<f64> =
        watched.iter().zip(&bare).map(|(with, without)| with - without).collect();
    println!(
        "{}",
        json!({
            "bench": "message", "messages": args.messages, "turns": args.turns,
            "bare_ns": usage::quantile(&mut bare, 0.5),
            "watched_ns": usage::quantile(&mut watched, 0.5),
            "probe_ns": usage::quantile(&mut costs, 0.5),
            "probe_ns_least": usage::quantile(&mut costs, 0.0),
            "probe_ns_most": usage::quantile(&mut costs, 1.0),
        })
    );
    Ok(())
}

/// CPU time of so many messages: delivered and handled.
async fn window(messages: u64, is_watched: bool) -> anyhow::Result<Duration> {
    let probes = Probes::default();
    let watched = is_watched.then(|| probes.starting("idle", "Idle", Some("supervisor")));
    let (actor, ended) = match watched.clone() {
        None => Actor::spawn(None, Idle, ()).await?,
        Some(watched) => Actor::spawn(None, Probe::new(Idle, watched), ()).await?,
    };
    let cpu = usage::cpu();
    let mut left = messages;
    while left > 0 {
        let burst = left.min(BURST);
        for _ in 0..burst {
            deliver(&actor, watched.as_ref())?;
        }
        let (answer, reached) = oneshot::channel();
        actor.cast(Msg::Reached(answer)).context("it has ended")?;
        reached.await.context("it has ended")?;
        left -= burst;
    }
    let cpu = usage::cpu().saturating_sub(cpu);
    actor.stop(None);
    ended.await?;
    Ok(cpu)
}

/// As the mesh delivers a message.
fn deliver(actor: &ActorRef<Msg>, watched: Option<&Watched>) -> anyhow::Result<()> {
    match watched {
        None => actor.cast(Msg::Inbound).context("it has ended"),
        Some(watched) => {
            let letter = |_: &Msg| Letter { message: "Inbound".into(), from: None };
            watched.pass(actor, Msg::Inbound, letter, |message| message).map_err(anyhow::Error::msg)
        }
    }
}
