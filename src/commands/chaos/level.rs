//! Whether throughput is back at its level a stated time after a fault's end (I9). Pure.
//!
//! Episodes come back in bursts, so that their number says little of how sure a rate is. Compared are pairs
//! of windows of one length, the one before a fault and the one after: all that came back after as a share
//! of all that came back before, with its error over whole pairs ([`clustered_error`], a 95 % interval by
//! Student's t). Of few faults, each pair of windows is cut into pieces where each piece holds several
//! optimizer steps, the longest rhythm there is; where it does not, nothing is judged.

use crrl_control::resilience::throughput;
use crrl_eval::{Cluster, clustered_error, half_width95};
use crrl_types::{Event, EventKind};
use serde::Serialize;

/// Share of its level that throughput has to be back at.
pub(super) const SHARE_MIN: f64 = 0.95;
/// So many faults are judged by whole windows.
const FAULTS_MIN: usize = 20;
/// Pieces a window is cut into where there are fewer.
const PIECES: u64 = 10;
/// Optimizer steps of a window that is cut: each piece holds two in the mean.
const STEPS_MIN: usize = 20;

/// Episodes per second before a fault and a stated time after its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    /// Over the whole window before.
    pub(super) before: f64,
    /// Over the whole window after.
    pub(super) after: f64,
    /// Before and after, piece by piece.
    pieces: Vec<(f64, f64)>,
    /// Optimizer steps in the window that has fewer.
    steps: usize,
}

impl Pair {
    /// Of the windows of `window_ms` that begin at these times.
    pub(super) fn of(history: &[Event], before_ms: u64, after_ms: u64, window_ms: u64) -> Self {
        let rate = |from_ms: u64, first: u64, last: u64| {
            let at = |piece: u64| from_ms + window_ms * piece / PIECES;
            throughput(history, at(first), at(last))
        };
        let steps = |from_ms: u64| {
            let within = |event: &&Event| (from_ms..from_ms + window_ms).contains(&event.at_ms);
            let stepped = |event: &&Event| matches!(event.kind, EventKind::Stepped { .. });
            history.iter().filter(within).filter(stepped).count()
        };
        let piece = |n| (rate(before_ms, n, n + 1), rate(after_ms, n, n + 1));
        Self {
            before: rate(before_ms, 0, PIECES),
            after: rate(after_ms, 0, PIECES),
            pieces: (0..PIECES).map(piece).collect(),
            steps: steps(before_ms).min(steps(after_ms)),
        }
    }
}

/// What can be said of I9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Judgement {
    /// The whole interval is at or above the share.
    Held,
    /// The whole interval is below it.
    Broken,
    /// Neither, or too little was seen.
    NotJudged,
}

impl Judgement {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Broken => "BROKEN",
            Self::NotJudged => "not judged",
        }
    }
}

/// Throughput after faults by that before them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Level {
    pub(super) judgement: Judgement,
    /// After as a share of before; absent where it is not known well enough to say how well.
    pub(super) share: Option<f64>,
    /// Its 95 % interval.
    pub(super) interval: Option<[f64; 2]>,
    /// What it rests on, or what is missing.
    pub(super) says: String,
}

impl Level {
    /// Nothing can be said, and why.
    pub(super) fn unknown(says: impl Into<String>) -> Self {
        Self { judgement: Judgement::NotJudged, share: None, interval: None, says: says.into() }
    }

    /// For a cell of a table.
    pub(super) fn cell(&self) -> String {
        format!("{}{}", self.judgement.text(), self.numbers())
    }

    /// For a line.
    pub(super) fn line(&self) -> String {
        format!("{}{}", self.says, self.numbers())
    }

    fn numbers(&self) -> String {
        match (self.share, self.interval) {
            (Some(share), Some([low, high])) => format!(
                ", {:.0} % ({:.0} to {:.0} %)",
                100.0 * share,
                100.0 * low.max(0.0),
                100.0 * high
            ),
            _ => String::new(),
        }
    }
}

/// Judges faults together.
pub(super) fn judge(pairs: &[&Pair]) -> Level {
    let units: Vec<Cluster> = if pairs.len() >= FAULTS_MIN {
        pairs.iter().map(|pair| unit((pair.before, pair.after))).collect()
    } else if !pairs.is_empty() && pairs.iter().all(|pair| pair.steps >= STEPS_MIN) {
        pairs.iter().flat_map(|pair| &pair.pieces).map(|piece| unit(*piece)).collect()
    } else {
        let steps = pairs.iter().map(|pair| pair.steps).min().unwrap_or_default();
        return Level::unknown(format!(
            "it takes {FAULTS_MIN} faults, or windows of {STEPS_MIN} optimizer steps; there were {}, \
             and {steps} in the shortest",
            pairs.len()
        ));
    };
    let sum = |of: fn(&Cluster) -> f64| units.iter().map(of).sum::<f64>();
    let (before, after) = (sum(|unit| unit.n), sum(|unit| unit.sum));
    let Some(error) = clustered_error(&units) else {
        return Level::unknown("no episode came back before the faults");
    };
    let (share, half) = (after / before, half_width95(error, units.len()));
    let (low, high) = (share - half, share + half);
    let judgement = if low >= SHARE_MIN {
        Judgement::Held
    } else if high < SHARE_MIN {
        Judgement::Broken
    } else {
        Judgement::NotJudged
    };
    let says = match judgement {
        Judgement::NotJudged => "the spread is too wide to tell: more faults, or longer windows",
        Judgement::Held | Judgement::Broken => "throughput after as a share of that before",
    };
    Level { judgement, share: Some(share), interval: Some([low, high]), says: says.to_owned() }
}

fn unit((before, after): (f64, f64)) -> Cluster {
    Cluster { sum: after, n: before }
}

#[cfg(test)]
mod tests {
    use crrl_types::{EpisodeId, Step};
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    const SECOND: u64 = 1000;

    /// A history in which an optimizer step takes half a second and five episodes come back at once after
    /// each, until `slow_ms` from which on so many do.
    fn history(seconds: u64, slow_ms: u64, then: u64) -> Vec<Event> {
        let event = |at_ms, kind| Event { at_ms, node: "coordinator".into(), kind };
        let mut events = Vec::new();
        for at_ms in (0..seconds * SECOND).step_by(500) {
            let kind = EventKind::Stepped { step: Step(at_ms), version: Default::default() };
            events.push(event(at_ms, kind));
            let burst = if at_ms < slow_ms { 5 } else { then };
            for episode in 0..burst {
                let episode = EpisodeId(episode);
                let kind = EventKind::Finished { episode, reward: 0.0, success: false };
                events.push(event(at_ms + 20, kind));
            }
        }
        events
    }

    #[test]
    fn a_fault_with_long_windows_is_judged_by_itself() {
        for (then, judgement) in [(5, Judgement::Held), (3, Judgement::Broken)] {
            let pair = Pair::of(&history(60, 30 * SECOND, then), 0, 40 * SECOND, 20 * SECOND);
            assert!((pair.before - 10.0).abs() < 1e-9, "{pair:?}");
            let level = judge(&[&pair]);
            assert_eq!(level.judgement, judgement, "{level:?}");
            assert!((level.share.expect("known") - then as f64 / 5.0).abs() < 1e-9, "{level:?}");
        }
    }

    #[test]
    fn what_is_too_short_is_not_judged_however_good_it_looks() {
        let history = history(60, u64::MAX, 5);
        let short = Pair::of(&history, 0, 40 * SECOND, 5 * SECOND);
        assert!((short.before - short.after).abs() < 1e-9, "{short:?}");
        let few: Vec<&Pair> = [&short; FAULTS_MIN - 1].to_vec();
        for pairs in [&few[..], &few[..1], &[]] {
            let level = judge(pairs);
            assert_eq!((level.judgement, level.share), (Judgement::NotJudged, None), "{level:?}");
            assert!(level.says.contains("20 faults"), "{level:?}");
        }
        assert_eq!(judge(&[&short; FAULTS_MIN]).judgement, Judgement::Held);
    }

    #[test]
    fn a_run_in_which_nothing_came_back_before_is_not_judged() {
        let history = history(60, u64::MAX, 5);
        let pair = Pair::of(&history, 1000 * SECOND, 0, 20 * SECOND);
        assert_eq!(judge(&[&pair; FAULTS_MIN]).judgement, Judgement::NotJudged);
    }

    /// Windows into which bursts of eight fall by chance.
    fn noisy(rng: &mut StdRng, faults: usize, share: f64) -> Vec<Pair> {
        let mut window = || 8.0 * (0..6).filter(|_| rng.random_bool(0.5)).count() as f64;
        let pair = |_| {
            let (before, after) = (window(), share * window());
            Pair { before, after, pieces: Vec::new(), steps: 0 }
        };
        (0..faults).map(pair).collect()
    }

    #[test]
    fn at_the_very_border_it_is_rarely_said_to_be_on_either_side() {
        const SEED: u64 = 9;
        println!("seed {SEED}");
        let mut rng = StdRng::seed_from_u64(SEED);
        let campaigns = 400;
        let mut said = [0; 2];
        for _ in 0..campaigns {
            let pairs = noisy(&mut rng, 40, SHARE_MIN);
            match judge(&pairs.iter().collect::<Vec<_>>()).judgement {
                Judgement::Held => said[0] += 1,
                Judgement::Broken => said[1] += 1,
                Judgement::NotJudged => {}
            }
        }
        assert!(said.iter().all(|count| *count < campaigns / 12), "{said:?} of {campaigns}");
    }

    #[test]
    fn many_faults_tell_in_spite_of_noise() {
        for seed in 0..20 {
            println!("seed {seed}");
            let mut rng = StdRng::seed_from_u64(seed);
            let halved = noisy(&mut rng, 40, 0.5);
            let level = judge(&halved.iter().collect::<Vec<_>>());
            assert_eq!(level.judgement, Judgement::Broken, "{level:?}");
            let better = noisy(&mut rng, 200, 1.3);
            let level = judge(&better.iter().collect::<Vec<_>>());
            assert_eq!(level.judgement, Judgement::Held, "{level:?}");
        }
    }
}
