//! The history of a run, folded: when episodes came back, and what went wrong. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crrl_types::{EpisodeId, Event, EventKind, NodeName};
use serde::Serialize;

/// Marks that are kept; the rest is counted.
pub const MARKS_MAX: usize = 2_000;

/// Leases that one node loses within this time are one mark.
const TOGETHER_MS: u64 = 2_000;

/// An episode that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The optimizer step that was to come.
    pub step: u64,
}

/// Something that went wrong, or was mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What.
    pub kind: MarkKind,
    /// Whom it happened to.
    pub node: String,
    /// More of it.
    pub detail: String,
    /// How often, right after each other.
    pub times: u32,
}

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// A node was lost.
    NodeDown,
    /// A node came back.
    NodeUp,
    /// A lease ended without a result.
    LeaseLost,
    /// The coordinator started again.
    Restarted,
    /// The learner fell back to an earlier step.
    RolledBack,
    /// A task was the end of too many nodes.
    Quarantined,
    /// The ledger was damaged, and restored from its copy.
    Restored,
}

impl MarkKind {
    /// All, as they are listed.
    pub const ALL: [Self; 7] = [
        Self::NodeDown,
        Self::NodeUp,
        Self::LeaseLost,
        Self::Restarted,
        Self::RolledBack,
        Self::Quarantined,
        Self::Restored,
    ];

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NodeDown => "node lost",
            Self::NodeUp => "node back",
            Self::LeaseLost => "lease lost",
            Self::Quarantined => "task quarantined",
            Self::Restarted => "coordinator restarted",
            Self::RolledBack => "learner rolled back",
            Self::Restored => "ledger restored",
        }
    }
}

/// The fold of a history.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// When the first line was written.
    pub began_ms: Option<u64>,
    /// When the last was.
    pub ended_ms: Option<u64>,
    /// When each episode came back, the first time it did.
    pub returned: BTreeMap<EpisodeId, Returned>,
    /// When each optimizer step was made, the last time it was.
    pub stepped: BTreeMap<u64, u64>,
    /// What went wrong, in order.
    pub marks: Vec<Mark>,
    /// Marks past [`MARKS_MAX`].
    pub marks_left_out: u64,
    /// Lines that are no event of this build.
    pub unread: u64,
    step: u64,
    seen: BTreeSet<NodeName>,
}

impl History {
    /// Takes one event in.
    pub fn take(&mut self, event: &Event) {
        let at_ms = event.at_ms;
        self.began_ms.get_or_insert(at_ms);
        self.ended_ms = self.ended_ms.max(Some(at_ms));
        match &event.kind {
            EventKind::Finished { episode, .. } => {
                let step = self.step + 1;
                self.returned.entry(*episode).or_insert(Returned { at_ms, step });
            }
            EventKind::Stepped { step, .. } => {
                self.step = step.0;
                self.stepped.insert(step.0, at_ms);
            }
            EventKind::RolledBack { step } => {
                self.step = step.0.saturating_sub(1);
                self.mark(at_ms, MarkKind::RolledBack, "", format!("step {step} is made again"));
            }
            EventKind::Restored { copy, step, lost } => {
                let detail = format!(
                    "from its copy of step {copy}, up to step {step}; the records of {lost} episodes \
                     are lost"
                );
                self.mark(at_ms, MarkKind::Restored, event.node.as_str(), detail);
            }
            EventKind::Started => {
                if !self.seen.insert(event.node.clone()) {
                    self.mark(at_ms, MarkKind::Restarted, event.node.as_str(), String::new());
                }
            }
            EventKind::NodeUp { peer, incarnation } => {
                if !self.seen.insert(peer.clone()) {
                    let detail = format!("life {incarnation}");
                    self.mark(at_ms, MarkKind::NodeUp, peer.as_str(), detail);
                }
            }
            EventKind::NodeDown { peer, reason } => {
                self.mark(at_ms, MarkKind::NodeDown, peer.as_str(), reason.clone());
            }
            EventKind::LeaseLost { episode, from } => {
                let detail = format!("episode {episode}");
                self.mark(at_ms, MarkKind::LeaseLost, from.as_str(), detail);
            }
            EventKind::Quarantined { task, reason } => {
                let detail = format!("{task}: {reason}");
                self.mark(at_ms, MarkKind::Quarantined, "", detail);
            }
            EventKind::Dispatched { .. }
            | EventKind::Resumed { .. }
            | EventKind::Restarted { .. }
            | EventKind::Duplicated { .. }
            | EventKind::Released { .. }
            | EventKind::Trained { .. }
            | EventKind::Dropped { .. }
            | EventKind::Failed { .. }
            | EventKind::Published { .. }
            | EventKind::Activated { .. } => {}
        }
    }

    fn mark(&mut self, at_ms: u64, kind: MarkKind, node: &str, detail: String) {
        if let Some(last) = self.marks.last_mut()
            && kind == MarkKind::LeaseLost
            && last.kind == kind
            && last.node == node
            && at_ms.saturating_sub(last.at_ms) <= TOGETHER_MS
        {
            last.times += 1;
            return;
        }
        if self.marks.len() == MARKS_MAX {
            self.marks_left_out += 1;
            return;
        }
        self.marks.push(Mark { at_ms, kind, node: node.to_owned(), detail, times: 1 });
    }
}

#[cfg(test)]
mod tests {
    use crrl_types::{AdapterVersion, GroupId, Step};

    use super::*;

    fn fold(events: Vec<EventKind>) -> History {
        let mut history = History::default();
        for (kind, at) in events.into_iter().zip(0_u64..) {
            history.take(&Event { at_ms: 1_000 * at, node: "coordinator".into(), kind });
        }
        history
    }

    fn up(incarnation: u64) -> EventKind {
        EventKind::NodeUp { peer: "rollout-0".into(), incarnation }
    }

    fn finished(id: u64) -> EventKind {
        EventKind::Finished { episode: EpisodeId(id), reward: 0.5, success: false }
    }

    fn stepped(step: u64) -> EventKind {
        EventKind::Stepped { step: Step(step), version: AdapterVersion(step + 1) }
    }

    #[test]
    fn a_first_start_is_no_fault_and_a_second_is_one() {
        let history = fold(vec![EventKind::Started, up(1), EventKind::Started, up(2)]);
        let kinds: Vec<_> = history.marks.iter().map(|mark| mark.kind).collect();
        assert_eq!(kinds, [MarkKind::Restarted, MarkKind::NodeUp]);
        assert_eq!(history.marks[1].detail, "life 2");
    }

    #[test]
    fn episodes_belong_to_the_step_that_was_to_come() {
        let back = EventKind::RolledBack { step: Step(2) };
        let history = fold(vec![
            finished(0),
            stepped(1),
            finished(1),
            stepped(2),
            back,
            finished(2),
            finished(0),
        ]);
        let steps: Vec<_> = history.returned.values().map(|returned| returned.step).collect();
        assert_eq!(steps, [1, 2, 2], "the first return counts, and a step made again is the same");
        assert_eq!((history.began_ms, history.ended_ms), (Some(0), Some(6_000)));
    }

    #[test]
    fn leases_lost_together_are_one_mark_and_marks_are_bounded() {
        let lost = |id| EventKind::LeaseLost { episode: EpisodeId(id), from: "rollout-0".into() };
        let history = fold(vec![lost(1), lost(2), lost(3)]);
        assert_eq!((history.marks.len(), history.marks[0].times), (1, 3));
        let down = |id: u64| EventKind::NodeDown {
            peer: format!("n{id}").into(),
            reason: "silent".into(),
        };
        let history = fold((0..MARKS_MAX as u64 + 5).map(down).collect());
        assert_eq!((history.marks.len(), history.marks_left_out), (MARKS_MAX, 5));
    }

    #[test]
    fn what_is_no_fault_leaves_no_mark() {
        let history = fold(vec![
            EventKind::Started,
            EventKind::Dispatched {
                episode: EpisodeId(0),
                group: GroupId(0),
                task: "t".into(),
                to: "rollout-0".into(),
                attempt: 1,
            },
            EventKind::Dropped { episode: EpisodeId(0), reason: "stale".into() },
        ]);
        assert!(history.marks.is_empty() && history.returned.is_empty());
    }
}
