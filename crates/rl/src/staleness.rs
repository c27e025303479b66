//! Which episodes are too old to train on. The oldest token decides.

use crrl_types::{AdapterVersion, Trajectory};

/// The verdict on an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Its oldest token is this many versions old, within the bound.
    Fresh(u64),
    /// Its oldest token is this many versions old, past the bound.
    Stale(u64),
    /// Nothing was generated.
    Empty,
    /// A token claims a version the learner has not published: the ledger is wrong somewhere.
    Ahead(u64),
}

/// Judges an episode against the learner's current version and the bound, in versions.
#[must_use]
pub fn judge(trajectory: &Trajectory, current: AdapterVersion, bound: u64) -> Age {
    let newest = trajectory.adapters.iter().map(|span| span.version).max();
    match (trajectory.oldest_version(), newest) {
        (Some(_), Some(newest)) if newest > current => Age::Ahead(newest.0 - current.0),
        (Some(oldest), _) if current.0 - oldest.0 > bound => Age::Stale(current.0 - oldest.0),
        (Some(oldest), _) => Age::Fresh(current.0 - oldest.0),
        (None, _) => Age::Empty,
    }
}

#[cfg(test)]
mod tests {
    use crrl_types::{Digest, Finish, Reward, TokenSpan};

    use super::*;

    fn drawn_under(versions: &[u64]) -> Trajectory {
        let span = |(i, version): (usize, &u64)| TokenSpan {
            start: i as u32,
            end: i as u32 + 1,
            version: AdapterVersion(*version),
            digest: Digest::default(),
        };
        Trajectory {
            episode: Default::default(),
            group: Default::default(),
            task: "t".into(),
            node: "n".into(),
            tokens: Vec::new(),
            generated: Vec::new(),
            logprobs: Vec::new(),
            adapters: versions.iter().enumerate().map(span).collect(),
            turns: Vec::new(),
            finish: Finish::Done,
            diff: String::new(),
            reward: Reward::default(),
            temperature: 1.0,
            wall_ms: 0,
        }
    }

    #[test]
    fn the_oldest_token_decides() {
        let verdict = |versions: &[u64]| judge(&drawn_under(versions), AdapterVersion(7), 2);
        assert_eq!(verdict(&[5, 7]), Age::Fresh(2));
        assert_eq!(verdict(&[7, 7, 4]), Age::Stale(3));
        assert_eq!(verdict(&[7]), Age::Fresh(0));
        assert_eq!(verdict(&[]), Age::Empty);
        assert_eq!(verdict(&[3, 9]), Age::Ahead(2));
    }
}
