//! What episodes did as training went on.

use std::collections::BTreeMap;

use super::curve::{Band, Chart, Point, Series, Unit};
use super::steps::STEP_AXIS;
use super::tally::{Bar, Stack, Tally, drop_empty_rest};
use crate::facts::{Conduct, EpisodeFact, Facts};

/// Stretches the training is cut into; each has to have enough episodes for shares to mean much.
const STRETCHES_MAX: u64 = 24;
/// Tools that are told apart.
const TOOLS_MAX: usize = 4;
/// Programs that are told apart.
const PROGRAMS_MAX: usize = 7;
/// A point of a tool's success needs so many calls.
const CALLS_MIN: f64 = 5.0;

/// Equal stretches of the optimizer steps; the last may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretches {
    steps: u64,
    width: u64,
}

impl Stretches {
    fn of(steps: u64) -> Self {
        let steps = steps.max(1);
        Self { steps, width: steps.div_ceil(STRETCHES_MAX) }
    }

    fn count(self) -> usize {
        self.steps.div_ceil(self.width) as usize
    }

    /// Where the episodes of a step (from 1) belong; leftovers of the end belong to the last.
    fn at(self, step: u64) -> usize {
        ((step.clamp(1, self.steps) - 1) / self.width) as usize
    }

    /// Begin and end on the axis: the steps a stretch takes are those above its begin.
    fn bounds(self, at: usize) -> (f64, f64) {
        let edge = |at: u64| (at * self.width).min(self.steps) as f64;
        (edge(at as u64), edge(at as u64 + 1))
    }

    /// The middle of its steps.
    fn middle(self, at: usize) -> f64 {
        let (from, to) = self.bounds(at);
        f64::midpoint(from + 1.0, to)
    }
}

/// Curves and stacks of the training's episodes; none where there are no episodes.
#[must_use]
pub fn of(facts: &Facts) -> (Vec<Chart>, Vec<Stack>) {
    let came_back = |episode: &EpisodeFact| {
        let returned = facts.history.returned.get(&episode.id).map(|returned| returned.step);
        returned.or(episode.step.map(|step| step.0))
    };
    let last = facts.steps.last().map_or(0, |row| row.step.0);
    let stretches = Stretches::of(last);
    let episodes: Vec<(usize, &EpisodeFact)> = facts
        .episodes
        .iter()
        .filter(|episode| !episode.evaluation && episode.reward.is_some())
        .filter_map(|episode| Some((stretches.at(came_back(episode)?), episode)))
        .collect();
    if episodes.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let charts = [length(stretches, &episodes), tools(stretches, &episodes)];
    let stacks = [
        finishes(stretches, &episodes),
        calls(stretches, &episodes),
        programs(stretches, &episodes),
        spent(stretches, &episodes),
    ];
    (charts.into_iter().flatten().collect(), stacks.into_iter().flatten().collect())
}

fn conducts<'a>(
    episodes: &'a [(usize, &'a EpisodeFact)],
) -> impl Iterator<Item = (usize, &'a Conduct)> {
    episodes.iter().filter_map(|(at, episode)| Some((*at, episode.conduct.as_ref()?)))
}

fn length(stretches: Stretches, episodes: &[(usize, &EpisodeFact)]) -> Option<Chart> {
    let mut lengths: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (at, episode) in episodes {
        lengths.entry(*at).or_default().extend(episode.generated.map(f64::from));
    }
    let mut series =
        Series { label: "mean".into(), raw: Vec::new(), line: Vec::new(), band: Vec::new() };
    for (at, mut lengths) in lengths.into_iter().filter(|(_, lengths)| !lengths.is_empty()) {
        lengths.sort_unstable_by(f64::total_cmp);
        let x = stretches.middle(at);
        let rank = |share: f64| lengths[((lengths.len() - 1) as f64 * share).round() as usize];
        series.band.push(Band { x, low: rank(0.1), high: rank(0.9) });
        series.line.push(Point { x, y: lengths.iter().sum::<f64>() / lengths.len() as f64 });
    }
    (!series.line.is_empty()).then(|| Chart {
        id: "length".into(),
        title: "Length of episodes, tokens".into(),
        x_name: STEP_AXIS.into(),
        unit: Unit::Plain,
        about: "What the policy generated, tool output not counted. Line: mean. Band: from the 10th to the 90th percentile of \
                episodes."
            .into(),
        series: vec![series],
    })
}

fn tools(stretches: Stretches, episodes: &[(usize, &EpisodeFact)]) -> Option<Chart> {
    let (mut all, mut ok) = (Tally::new(stretches.count()), Tally::new(stretches.count()));
    for (at, conduct) in conducts(episodes) {
        for (name, (good, calls)) in &conduct.tools {
            // One that could not be read called no tool.
            if name != crate::facts::episode::UNREADABLE {
                all.add(at, name, f64::from(*calls));
                ok.add(at, name, f64::from(*good));
            }
        }
    }
    let names = all.names(TOOLS_MAX);
    let ones = vec![1.0; stretches.count()];
    let (all, ok) = (all.parts(&names, &ones), ok.parts(&names, &ones));
    let series: Vec<Series> = names
        .into_iter()
        .enumerate()
        .map(|(tool, label)| {
            let points = all.iter().zip(&ok).enumerate().filter_map(|(at, (all, ok))| {
                let point = Point { x: stretches.middle(at), y: ok[tool] / all[tool] };
                (all[tool] >= CALLS_MIN).then_some(point)
            });
            Series { label, raw: Vec::new(), line: points.collect(), band: Vec::new() }
        })
        .filter(|series| !series.line.is_empty())
        .collect();
    (!series.is_empty()).then(|| Chart {
        id: "tools".into(),
        title: "Tool calls that worked".into(),
        x_name: STEP_AXIS.into(),
        unit: Unit::Share,
        about:
            "Share of a tool's calls that did what they were meant to: a command with exit code \
                0, an edit whose text was found. No point where there were fewer than 5 calls."
                .into(),
        series,
    })
}

/// A stack of this tally, its most frequent names told apart, divided by `by`.
fn stack(stretches: Stretches, tally: &Tally, most: usize, by: &[f64]) -> (Vec<String>, Vec<Bar>) {
    let mut names = tally.names(most);
    let mut bars: Vec<Bar> = tally
        .parts(&names, by)
        .into_iter()
        .enumerate()
        .map(|(at, parts)| {
            let (from, to) = stretches.bounds(at);
            Bar { from, to, parts }
        })
        .collect();
    drop_empty_rest(&mut names, &mut bars);
    (names, bars)
}

fn finishes(stretches: Stretches, episodes: &[(usize, &EpisodeFact)]) -> Option<Stack> {
    use crrl_types::Finish;
    let mut tally = Tally::new(stretches.count());
    for (at, conduct) in conducts(episodes) {
        let name = match (conduct.finish, conduct.changed) {
            (Finish::Done, true) => "done, with a change",
            (Finish::Done, false) => "done, nothing changed",
            (Finish::CallLimit, _) => "out of calls",
            (Finish::TokenLimit, _) => "out of tokens",
            (Finish::TimeLimit, _) => "out of time",
            (Finish::Failed, _) => "harness failed",
        };
        tally.add(at, name, 1.0);
    }
    let (names, bars) = stack(stretches, &tally, 8, &tally.totals());
    (!names.is_empty()).then(|| Stack {
        id: "finish".into(),
        title: "How episodes ended".into(),
        x_name: STEP_AXIS.into(),
        unit: Unit::Share,
        about: "Share of episodes.".into(),
        names,
        bars,
        areas: true,
    })
}

fn calls(stretches: Stretches, episodes: &[(usize, &EpisodeFact)]) -> Option<Stack> {
    let mut tally = Tally::new(stretches.count());
    let mut n = vec![0.0; stretches.count()];
    for (at, conduct) in conducts(episodes) {
        n[at] += 1.0;
        for (name, (_, calls)) in &conduct.tools {
            tally.add(at, name, f64::from(*calls));
        }
    }
    let (names, bars) = stack(stretches, &tally, TOOLS_MAX + 1, &n);
    (!names.is_empty()).then(|| Stack {
        id: "calls".into(),
        title: "Calls of an episode".into(),
        x_name: STEP_AXIS.into(),
        unit: Unit::Plain,
        about: "Mean number of calls, by tool.".into(),
        names,
        bars,
        areas: true,
    })
}

fn programs(stretches: Stretches, episodes: &[(usize, &EpisodeFact)]) -> Option<Stack> {
    let mut tally = Tally::new(stretches.count());
    for (at, conduct) in conducts(episodes) {
        for (name, n) in &conduct.programs {
            tally.add(at, name, f64::from(*n));
        }
    }
    let (names, bars) = stack(stretches, &tally, PROGRAMS_MAX, &tally.totals());
    (!names.is_empty()).then(|| Stack {
        id: "programs".into(),
        title: "Programs in shell commands".into(),
        x_name: STEP_AXIS.into(),
        unit: Unit::Share,
        about: "Share of the programs that command lines call; a pipe calls several.".into(),
        names,
        bars,
        areas: true,
    })
}

fn spent(stretches: Stretches, episodes: &[(usize, &EpisodeFact)]) -> Option<Stack> {
    let mut tally = Tally::new(stretches.count());
    let mut n = vec![0.0; stretches.count()];
    for (at, spent) in episodes.iter().filter_map(|(at, e)| Some((*at, e.spent?))) {
        n[at] += 1.0;
        let parts = [
            ("generating", spent.generating),
            ("tools", spent.tools),
            ("waiting for a place", spent.places),
            ("diff and reward", spent.scoring),
            ("doing again what a lost node had done", spent.replaying),
            ("between these", spent.rest),
        ];
        parts.into_iter().for_each(|(name, seconds)| tally.add(at, name, seconds));
    }
    let (names, bars) = stack(stretches, &tally, 6, &n);
    (!names.is_empty()).then(|| Stack {
        id: "episode-time".into(),
        title: "Where an episode's time went, seconds".into(),
        x_name: STEP_AXIS.into(),
        unit: Unit::Seconds,
        about: "Mean of the attempts that came back, as their node measured.".into(),
        names,
        bars,
        areas: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_cover_every_step_once() {
        for steps in [1, 6, 24, 25, 30, 1_000] {
            let stretches = Stretches::of(steps);
            for step in 1..=steps {
                let at = stretches.at(step);
                let (from, to) = stretches.bounds(at);
                assert!(from < step as f64 && step as f64 <= to, "step {step} of {steps}: {at}");
            }
            assert_eq!(stretches.at(steps + 1), stretches.count() - 1, "leftovers of the end");
            assert!(stretches.count() as u64 <= STRETCHES_MAX);
        }
        assert_eq!(Stretches::of(0).at(7), 0, "no step yet");
    }
}
