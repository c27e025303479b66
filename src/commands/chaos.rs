//! `crrl chaos`: make things go wrong in a running cluster, and see what became of it.

mod campaign;
mod level;
mod scenario;
mod targets;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use crrl_actors::evidence;
use crrl_config::faults::SCENARIOS;
use crrl_control::audit::Verdict;

use self::campaign::{Campaign, Options, Outcome};
use self::level::{Judgement, Level, SHARE_MIN, judge};
use self::scenario::Chosen;
use super::failure::{describe, say};
use super::place::Place;
use crate::meter::{Meter, Quiet};

/// Exit code of a cluster that did not get over a fault.
const NOT_SURVIVED: u8 = 1;

/// Arguments of `crrl chaos`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Name the scenarios.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Inject faults one after the other into a cluster that trains, measure how it got over each,
    /// and audit the run. Exit code 0 if it got over all of them, the audit is clean, and throughput
    /// was not found to stay below its level (I9). Ctrl-C ends the fault that is under way, with exit
    /// code 130. Where a fault cannot be injected it ends as well; what became of those before is
    /// printed all the same.
    Run(RunArgs),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Scenarios by name, `all` of them that can happen in this cluster, or files of faults (.toml).
    #[arg(required = true)]
    scenarios: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// How often each is tried.
    #[arg(long, default_value_t = 1, value_name = "N")]
    times: u32,
    /// What nodes and chances are drawn from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Seconds throughput is measured over, before and after each fault.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    window: f64,
    /// Seconds after a fault's end by which throughput has to be back at 95 % of its level.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    within: f64,
    /// Seconds the cluster may take to get over a fault.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    patience: f64,
    /// Seconds to wait for training to begin.
    #[arg(long, default_value_t = 300.0, value_name = "SECONDS")]
    wait: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::List { json } => list(json),
        Action::Run(args) => inject(&args),
    }
}

fn list(json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if json {
        let list: Vec<_> = SCENARIOS
            .iter()
            .map(|(name, says)| serde_json::json!({ "name": name, "says": says }))
            .collect();
        writeln!(out, "{}", serde_json::Value::from(list))?;
    } else {
        for (name, says) in SCENARIOS {
            writeln!(out, "{name:<26} {says}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn inject(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let run = args.place.run_dir()?;
    // Without one no cluster is up, which is said further on.
    let config = run.config().ok();
    let chosen = Chosen::of(&args.scenarios, config.as_ref())?;
    for line in chosen.lines() {
        say(&line);
    }
    let Chosen { scenarios, left_out } = chosen;
    let seconds = |s: f64| Duration::try_from_secs_f64(s.max(0.0)).unwrap_or_default();
    let options = Options {
        seed: args.seed,
        window: seconds(args.window),
        within: seconds(args.within),
        patience: seconds(args.patience),
        wait: seconds(args.wait),
    };
    let mut campaign = Campaign::begin(run.clone(), options)?;
    let waiting = Meter::start(args.quiet, "waiting for training to begin", "", 0);
    let count = waiting.count();
    campaign.until_training(&|phase| count.say(phase))?;
    drop(waiting);
    let rounds = args.times.max(1);
    let total = u64::from(rounds) * scenarios.len() as u64;
    let meter = Meter::start(args.quiet, "injecting", "faults", total);
    let count = meter.count();
    let (mut outcomes, mut trouble) = (Vec::new(), None);
    'all: for round in 1..=rounds {
        for scenario in &scenarios {
            count.say(scenario.name.as_str());
            match campaign.inject(scenario) {
                Ok(outcome) => {
                    count.one();
                    meter.note(&format!("{round}/{rounds} {}", line(&outcome)));
                    outcomes.push(outcome);
                }
                Err(error) if outcomes.is_empty() => return Err(error),
                // What became of those before is told all the same.
                Err(error) => {
                    trouble = Some(error);
                    break 'all;
                }
            }
        }
    }
    campaign.ends();
    drop(meter);
    let auditing = Meter::start(args.quiet, "auditing", "", 0);
    let verdict = match evidence::judge(&run) {
        Ok(verdict) => Some(verdict),
        Err(error) => {
            // The exit code is by what came first.
            trouble = Some(match trouble {
                Some(first) => first.context(format!("the run cannot be audited: {error}")),
                None => error.into(),
            });
            None
        }
    };
    drop(auditing);
    let throughput = Throughput::of(&outcomes, options.within);
    let is_ok = trouble.is_none()
        && outcomes.iter().all(Outcome::survived)
        && verdict.as_ref().is_some_and(|verdict| verdict.ok)
        && throughput.all.judgement != Judgement::Broken;
    let mut out = std::io::stdout().lock();
    if args.json {
        let value = serde_json::json!({
            "ok": is_ok, "outcomes": outcomes, "throughput": throughput, "audit": verdict,
            "left_out": left_out, "error": trouble.as_ref().map(describe),
        });
        writeln!(out, "{value}")?;
    } else {
        print(&mut out, &outcomes, &throughput, verdict.as_ref())?;
    }
    match trouble {
        Some(error) => Err(error),
        None => Ok(ExitCode::from(if is_ok { 0 } else { NOT_SURVIVED })),
    }
}

/// I9: whether throughput was back at its level a stated time after the faults' ends.
#[derive(Debug, serde::Serialize)]
struct Throughput {
    /// The stated time, in seconds.
    within_s: f64,
    /// The share of its level it has to be back at.
    share_min: f64,
    /// All faults together; the exit code goes by this.
    all: Level,
    /// Those of each scenario.
    by_fault: BTreeMap<String, Level>,
}

impl Throughput {
    fn of(outcomes: &[Outcome], within: Duration) -> Self {
        let mut by_fault: BTreeMap<String, Vec<&Outcome>> = BTreeMap::new();
        for outcome in outcomes {
            by_fault.entry(outcome.fault.clone()).or_default().push(outcome);
        }
        Self {
            within_s: within.as_secs_f64(),
            share_min: SHARE_MIN,
            all: together(outcomes.iter()),
            by_fault: by_fault
                .into_iter()
                .map(|(fault, tries)| (fault, together(tries.into_iter())))
                .collect(),
        }
    }
}

fn together<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Level {
    judge(&outcomes.filter_map(|outcome| outcome.pair.as_ref()).collect::<Vec<_>>())
}

fn line(outcome: &Outcome) -> String {
    let Outcome { fault, node, fired, noticed_s, recovered_s, throughput, .. } = outcome;
    let [before, during, after] = throughput;
    let noticed = noticed_s.map_or("not missed".to_owned(), |s| format!("missed after {s:.1} s"));
    let recovered =
        recovered_s.map_or("NOT RECOVERED".to_owned(), |s| format!("at work again after {s:.1} s"));
    let fired = match fired {
        0 => "NOTHING HAPPENED".to_owned(),
        fired => format!("fired {fired}"),
    };
    format!(
        "{fault} in {node}: {fired}, {noticed}, {recovered}; {before:.1}, {during:.1}, {after:.1} \
         episodes/s before, during, after"
    )
}

/// Median and 99th percentile, by nearest rank.
fn quantiles(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    // Nearest rank.
    let at = |share: f64| {
        let rank = (share * values.len() as f64).ceil() as usize;
        values.get(rank.checked_sub(1)?)
    };
    match (at(0.5), at(0.99)) {
        (Some(half), Some(most)) => format!("{half:.1} / {most:.1}"),
        _ => "-".to_owned(),
    }
}

fn print(
    out: &mut impl std::io::Write,
    outcomes: &[Outcome],
    throughput: &Throughput,
    verdict: Option<&Verdict>,
) -> std::io::Result<()> {
    let mut faults: Vec<&str> = Vec::new();
    let mut by_fault: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        if !by_fault.contains_key(outcome.fault.as_str()) {
            faults.push(&outcome.fault);
        }
        by_fault.entry(&outcome.fault).or_default().push(outcome);
    }
    writeln!(
        out,
        "| fault | survived | missed after, s (p50 / p99) | at work again after its end, s (p50 / \
         p99) | episodes/s before, during, after | I9 |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for fault in faults {
        let tries = by_fault.get(fault).map(Vec::as_slice).unwrap_or_default();
        let survived = tries.iter().filter(|outcome| outcome.survived()).count();
        let mean = |at: usize| {
            tries.iter().map(|o| o.throughput[at]).sum::<f64>() / tries.len().max(1) as f64
        };
        writeln!(
            out,
            "| {fault} | {survived} of {} | {} | {} | {:.1}, {:.1}, {:.1} | {} |",
            tries.len(),
            quantiles(tries.iter().filter_map(|o| o.noticed_s)),
            quantiles(tries.iter().filter_map(|o| o.recovered_s)),
            mean(0),
            mean(1),
            mean(2),
            throughput.by_fault.get(fault).map(Level::cell).unwrap_or_default(),
        )?;
    }
    let Throughput { within_s, share_min, all, .. } = throughput;
    let word = all.judgement.text();
    writeln!(out)?;
    writeln!(
        out,
        "{word:<7} I9   throughput is back at {:.0} % of its level {within_s} s after a fault's end",
        100.0 * share_min
    )?;
    writeln!(out, "             {}", all.line())?;
    verdict.map_or(Ok(()), |verdict| super::audit::print(out, verdict))
}
