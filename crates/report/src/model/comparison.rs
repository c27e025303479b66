//! Several runs side by side. The first is what the others are compared with.

use std::collections::{BTreeMap, BTreeSet};

use crrl_control::results::Evaluation;
use crrl_eval::compare;
use serde::Serialize;

use super::Model;
use super::curve::{Chart, Series};
use super::steps::{AS_STORED, SMOOTHED_MIN};
use super::summary::{Measured, RESAMPLES, State, outcomes, pairs, phase};
use crate::facts::Facts;

/// Settings that are listed; the rest is counted.
pub const SETTINGS_MAX: usize = 60;

/// Settings that say where a run lies and not what it does.
const PLACES: [&str; 2] = ["run.dir", "cluster.listen"];

/// Charts of all attempts, whose lines are smoothed as each run needs it.
const ATTEMPTS: [&str; 2] = ["reward", "success"];
const ABOUT_ATTEMPTS: &str = "All attempts, those in groups without signal included: mean of the last 5 \
     steps, or of the last fortieth of a run where that is more. Bands (of up to three runs): 95 % \
     interval by the standard error over groups of attempts.";

/// Several runs side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// One a run.
    pub rows: Vec<Row>,
    /// The same curves of all runs.
    pub charts: Vec<Chart>,
    /// Settings that are not the same everywhere.
    pub settings: Vec<Setting>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What it is called.
    pub name: String,
    /// How far it got.
    pub state: State,
    /// Optimizer steps.
    pub steps: u64,
    /// Episodes.
    pub episodes: u64,
    /// Wall time of the history.
    pub wall_ms: Option<u64>,
    /// Where the smoothed reward of all attempts ended.
    pub reward: Option<f64>,
    /// Where the smoothed success ended.
    pub success: Option<f64>,
    /// The last evaluation of those that say how good the policy became.
    pub measured: Option<Measured>,
    /// That evaluation against the first run's.
    pub against_first: Against,
}

/// What can be said of a run's evaluation against the first run's.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// It is the first run.
    First,
    /// This run less the first, paired by the tasks both measured.
    Compared(crrl_eval::Comparison),
    /// Nothing, and why.
    Nothing(&'static str),
}

/// A setting that runs differ in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// `section.key`.
    pub name: String,
    /// One a run; `None` where it has no such setting.
    pub values: Vec<Option<String>>,
}

impl Comparison {
    pub(crate) fn of(facts: &[&Facts], runs: &[Model]) -> Self {
        let rows = facts.iter().zip(runs).map(|(&own, run)| {
            let end = |id: &str| Some(chart(run, id)?.series.first()?.line.last()?.y);
            let last = last(own).map(|evaluation| evaluation.label.as_str());
            Row {
                name: run.name.clone(),
                state: run.summary.state.clone(),
                steps: run.summary.steps,
                episodes: run.summary.episodes_all(),
                wall_ms: run.summary.wall_ms,
                reward: end("reward"),
                success: end("success"),
                measured: run
                    .summary
                    .evaluations
                    .iter()
                    .find(|m| Some(m.label.as_str()) == last)
                    .cloned(),
                against_first: against(facts[0], own),
            }
        });
        Self { rows: rows.collect(), charts: overlay(runs), settings: settings(facts) }
    }
}

fn chart<'a>(run: &'a Model, id: &str) -> Option<&'a Chart> {
    run.steps.iter().chain(&run.episodes).find(|chart| chart.id == id)
}

/// The evaluation that says how good the policy became: the second of the first pair, or the last.
fn last(facts: &Facts) -> Option<&Evaluation> {
    pairs(facts).first().map(|(_, after)| *after).or(facts.results.evaluations.last())
}

fn against(first: &Facts, own: &Facts) -> Against {
    if std::ptr::eq(first, own) {
        return Against::First;
    }
    let (Some(theirs), Some(ours)) = (last(first), last(own)) else {
        return Against::Nothing("no evaluation of both");
    };
    let sampling = |facts, evaluation: &Evaluation| {
        phase(facts, &evaluation.label).map(|phase| phase.sampling.clone())
    };
    if sampling(first, theirs) != sampling(own, ours) {
        return Against::Nothing("sampled differently");
    }
    compare(&outcomes(theirs), &outcomes(ours), RESAMPLES, first.plan.seed)
        .map_or(Against::Nothing("no task in common"), Against::Compared)
}

/// The first line of each chart, of every run that has it; charts of one run only are left out.
fn overlay(runs: &[Model]) -> Vec<Chart> {
    let mut ids: Vec<&str> = Vec::new();
    for chart in runs.iter().flat_map(|run| run.steps.iter().chain(&run.episodes)) {
        if chart.id != "tools" && !ids.contains(&chart.id.as_str()) {
            ids.push(&chart.id);
        }
    }
    ids.into_iter()
        .filter_map(|id| {
            let found: Vec<(&Model, &Chart)> =
                runs.iter().filter_map(|run| Some((run, chart(run, id)?))).collect();
            let (_, model) = *found.first().filter(|_| found.len() > 1)?;
            let first = model.series.first()?;
            let mut about = match model.about.split_once(AS_STORED) {
                _ if ATTEMPTS.contains(&id) => ABOUT_ATTEMPTS.to_owned(),
                Some((about, _)) => about.to_owned(),
                None => model.about.clone(),
            };
            if model.series.len() > 1 {
                about += &format!(" Shown here: {}.", first.label);
            }
            let smoothed = |(_, chart): &(&Model, &Chart)| chart.about.contains(AS_STORED);
            if found.iter().any(smoothed) {
                about += &format!(" Smoothed where a run has more than {SMOOTHED_MIN} steps.");
            }
            let series = found.iter().filter_map(|(run, chart)| {
                let own = chart.series.iter().find(|series| series.label == first.label)?;
                let (line, band) = (own.line.clone(), own.band.clone());
                Some(Series { label: run.name.clone(), raw: Vec::new(), line, band })
            });
            Some(Chart {
                id: format!("all-{id}"),
                about,
                series: series.collect(),
                ..model.clone()
            })
        })
        .collect()
}

fn settings(facts: &[&Facts]) -> Vec<Setting> {
    let tables: Vec<BTreeMap<String, String>> = facts
        .iter()
        .map(|facts| {
            let mut flat = BTreeMap::new();
            let text = facts.configuration.as_deref().unwrap_or_default();
            // One that cannot be read differs in everything, which its own section shows better.
            if let Ok(table) = text.parse::<toml::Table>() {
                flatten("", &toml::Value::Table(table), &mut flat);
            }
            flat
        })
        .collect();
    let names: BTreeSet<&String> = tables.iter().flat_map(BTreeMap::keys).collect();
    names
        .into_iter()
        .filter(|name| !PLACES.contains(&name.as_str()))
        .map(|name| Setting {
            name: name.clone(),
            values: tables.iter().map(|table| table.get(name).cloned()).collect(),
        })
        .filter(|setting| setting.values.windows(2).any(|pair| pair[0] != pair[1]))
        .collect()
}

fn flatten(prefix: &str, value: &toml::Value, flat: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&name, value, flat);
            }
        }
        value => drop(flat.insert(prefix.to_owned(), value.to_string())),
    }
}
