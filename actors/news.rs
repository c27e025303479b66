//! What the parameter server published, told to those who must know of it.
//!
//! The coordinator refuses tokens of a version it has not heard of, so it hears of every one, and of
//! the last ones again in each of its lives: one that was killed may have heard and not kept it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crrl_control::wire::Serving;
use crrl_types::{AdapterVersion, NodeName};

/// Versions that are told again.
const RECENT_MAX: usize = 64;
/// Whoever hears of everything hears it again after this long: its actor may have failed with the news
/// unread, and without it nobody who serves the adapter is given work.
const TELL_AGAIN: Duration = Duration::from_secs(2);

/// How much of it somebody wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Every version, oldest first.
    All,
    /// The newest.
    Newest,
}

/// What was published last, and how far each peer was told.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Oldest first.
    recent: VecDeque<Serving>,
    told: BTreeMap<NodeName, (AdapterVersion, Duration)>,
}

impl News {
    /// News of what was published so far, oldest first.
    pub(crate) fn new(recent: Vec<Serving>) -> Self {
        Self { recent: recent.into(), told: BTreeMap::new() }
    }

    /// What was published last, oldest first.
    pub(crate) fn recent(&self) -> Vec<Serving> {
        self.recent.iter().copied().collect()
    }

    /// Something was published; of what is known already everyone is told again.
    pub(crate) fn add(&mut self, serving: Serving) {
        if self.recent.back() == Some(&serving) {
            self.told.clear();
            return;
        }
        self.recent.push_back(serving);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// A peer that was lost comes back knowing nothing.
    pub(crate) fn forget(&mut self, peer: &NodeName) {
        self.told.remove(peer);
    }

    /// Tells a peer what it has not been told. `send` says whether the message went out; what did not
    /// is told at the next call.
    pub(crate) fn tell(
        &mut self,
        to: &NodeName,
        wants: Wants,
        now: Duration,
        mut send: impl FnMut(Serving) -> bool,
    ) {
        let told = self.told.get(to).copied();
        let stale = |at: Duration| wants == Wants::All && now >= at + TELL_AGAIN;
        let from = told.filter(|(_, at)| !stale(*at)).map(|(version, _)| version);
        let at = told.filter(|(_, at)| !stale(*at)).map_or(now, |(_, at)| at);
        let behind = match wants {
            Wants::All => 0,
            Wants::Newest => self.recent.len().saturating_sub(1),
        };
        for serving in self.recent.iter().skip(behind) {
            if from.is_some_and(|version| version >= serving.version) {
                continue;
            }
            if !send(*serving) {
                return;
            }
            self.told.insert(to.clone(), (serving.version, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crrl_types::Digest;

    fn serving(version: u64) -> Serving {
        Serving { version: AdapterVersion(version), digest: Digest::of(&version.to_le_bytes()) }
    }

    fn heard(news: &mut News, wants: Wants, at_s: f64) -> Vec<u64> {
        let mut heard = Vec::new();
        news.tell(&"peer".into(), wants, Duration::from_secs_f64(at_s), |serving| {
            heard.push(serving.version.0);
            true
        });
        heard
    }

    #[test]
    fn everyone_hears_once_what_it_wants_to_hear() {
        let mut news = News::new(vec![serving(3)]);
        news.add(serving(4));
        assert_eq!(heard(&mut news, Wants::All, 0.0), [3, 4]);
        assert_eq!(heard(&mut news, Wants::All, 0.1), [0; 0]);
        news.add(serving(5));
        news.add(serving(6));
        assert_eq!(heard(&mut news, Wants::All, 0.2), [5, 6]);
        news.forget(&"peer".into());
        assert_eq!(heard(&mut news, Wants::Newest, 0.3), [6]);
        assert_eq!(heard(&mut news, Wants::Newest, 60.0), [0; 0]);
        news.add(serving(6));
        assert_eq!(heard(&mut news, Wants::Newest, 60.0), [6], "asked for again");
    }

    #[test]
    fn whoever_was_lost_or_may_not_have_read_it_hears_all_of_it_again() {
        let mut news = News::new(Vec::new());
        for version in 1..=3 {
            news.add(serving(version));
        }
        assert_eq!(heard(&mut news, Wants::All, 0.0), [1, 2, 3]);
        news.forget(&"peer".into());
        assert_eq!(heard(&mut news, Wants::All, 0.5), [1, 2, 3]);
        assert_eq!(heard(&mut news, Wants::All, 2.4), [0; 0]);
        assert_eq!(heard(&mut news, Wants::All, 2.5), [1, 2, 3]);
        assert_eq!(heard(&mut news, Wants::All, 2.6), [0; 0]);
    }

    #[test]
    fn what_could_not_be_sent_is_told_later_and_only_so_much_is_kept() {
        let mut news = News::new(Vec::new());
        for version in 1..=100 {
            news.add(serving(version));
        }
        let mut left = 2;
        news.tell(&"peer".into(), Wants::All, Duration::ZERO, |_| {
            left -= 1;
            left >= 0
        });
        let rest = heard(&mut news, Wants::All, 0.1);
        assert_eq!((rest.len(), rest[0], rest[61]), (62, 39, 100));
    }
}
