//! What a fault did to a run, read off the history: when it was noticed, when work went on, and what
//! it cost. Pure.

use crrl_types::{Event, EventKind, NodeName};

/// A fault that was injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    /// Into which node.
    pub node: NodeName,
    /// What the node is needed for: what must be seen again after the fault.
    pub sign: Sign,
    /// When, in milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// When it ended. Of a process that was killed: the same.
    pub until_ms: u64,
    /// Whether it cannot have passed unnoticed: until the node is missed, nothing tells that it is
    /// back.
    pub is_missed: bool,
}

/// What shows that a node is back at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// A rollout node: it is handed an episode.
    Dispatched,
    /// The learner: a step is committed.
    Stepped,
    /// The coordinator: an episode comes back.
    Finished,
    /// The parameter server: an engine serves a new adapter.
    Activated,
}

/// What was seen of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observed {
    /// When the cluster noticed that the node was gone; `None` if it never was.
    pub noticed_ms: Option<u64>,
    /// When the node was at work again; `None` if it is not yet.
    pub recovered_ms: Option<u64>,
}

/// Looks for what a fault did. The history may begin and end anywhere around it.
#[must_use]
pub fn observe(history: &[Event], injected: &Injected) -> Observed {
    let Injected { node, sign, from_ms, until_ms, is_missed } = injected;
    let after = |ms: u64| history.iter().filter(move |event| event.at_ms >= ms);
    let noticed_ms = after(*from_ms)
        .find(|event| match &event.kind {
            EventKind::NodeDown { peer, .. } => peer == node,
            EventKind::Started => *sign == Sign::Finished || *sign == Sign::Activated,
            _ => false,
        })
        .map(|event| event.at_ms);
    if *is_missed && noticed_ms.is_none() {
        return Observed::default();
    }
    let begin = noticed_ms.unwrap_or_default().max(*until_ms);
    // One that was gone has to come back first, which the others do not say of themselves.
    let back = match (noticed_ms, sign) {
        (Some(noticed), Sign::Dispatched) => after(noticed)
            .filter(|event| event.at_ms >= begin)
            .find(|event| matches!(&event.kind, EventKind::NodeUp { peer, .. } if peer == node))
            .map(|event| event.at_ms),
        _ => Some(begin),
    };
    let recovered_ms = back.and_then(|back| {
        after(back)
            .find(|event| match (&event.kind, sign) {
                (EventKind::Dispatched { to, .. }, Sign::Dispatched) => to == node,
                (EventKind::Stepped { .. }, Sign::Stepped)
                | (EventKind::Finished { .. }, Sign::Finished)
                | (EventKind::Activated { .. }, Sign::Activated) => true,
                _ => false,
            })
            .map(|event| event.at_ms)
    });
    Observed { noticed_ms, recovered_ms }
}

/// Episodes that came back per second between two times.
#[must_use]
pub fn throughput(history: &[Event], from_ms: u64, until_ms: u64) -> f64 {
    let between = |event: &&Event| (from_ms..until_ms).contains(&event.at_ms);
    let finished = |event: &&Event| matches!(event.kind, EventKind::Finished { .. });
    let count = history.iter().filter(between).filter(finished).count();
    count as f64 / (until_ms.saturating_sub(from_ms).max(1) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use crrl_types::{EpisodeId, Step};

    use super::*;

    fn event(at_ms: u64, kind: EventKind) -> Event {
        Event { at_ms, node: "coordinator".into(), kind }
    }

    fn dispatched(at_ms: u64, to: &str) -> Event {
        let kind = EventKind::Dispatched {
            episode: EpisodeId(at_ms),
            group: crrl_types::GroupId(0),
            task: "task".into(),
            to: to.into(),
            attempt: 1,
        };
        event(at_ms, kind)
    }

    fn finished(at_ms: u64) -> Event {
        event(at_ms, EventKind::Finished { episode: EpisodeId(1), reward: 0.0, success: false })
    }

    fn rollout(from_ms: u64, until_ms: u64) -> Injected {
        let is_missed = from_ms == until_ms;
        Injected { node: "rollout-0".into(), sign: Sign::Dispatched, from_ms, until_ms, is_missed }
    }

    #[test]
    fn a_killed_node_is_back_when_it_came_up_again_and_was_given_work() {
        let down = EventKind::NodeDown { peer: "rollout-0".into(), reason: "killed".into() };
        let up = EventKind::NodeUp { peer: "rollout-0".into(), incarnation: 2 };
        let mut history = vec![
            dispatched(90, "rollout-0"),
            // On its way when the node died: it proves nothing.
            dispatched(120, "rollout-0"),
            event(150, down),
            dispatched(160, "rollout-1"),
            event(300, up),
        ];
        assert_eq!(observe(&history[..2], &rollout(100, 100)), Observed::default());
        let seen = observe(&history, &rollout(100, 100));
        assert_eq!(seen, Observed { noticed_ms: Some(150), recovered_ms: None });
        history.push(dispatched(320, "rollout-1"));
        history.push(dispatched(340, "rollout-0"));
        let seen = observe(&history, &rollout(100, 100));
        assert_eq!(seen.recovered_ms, Some(340));
    }

    #[test]
    fn a_node_that_was_never_lost_is_back_with_the_first_work_after_the_fault() {
        let history = [dispatched(110, "rollout-0"), dispatched(260, "rollout-0")];
        let seen = observe(&history, &rollout(100, 200));
        assert_eq!(seen, Observed { noticed_ms: None, recovered_ms: Some(260) });
    }

    #[test]
    fn the_learner_is_back_with_its_next_step() {
        let injected =
            Injected { node: "learner".into(), sign: Sign::Stepped, ..rollout(100, 100) };
        let stepped =
            |at| event(at, EventKind::Stepped { step: Step(3), version: Default::default() });
        let down = EventKind::NodeDown { peer: "learner".into(), reason: "killed".into() };
        let history = [stepped(105), event(180, down), finished(200), stepped(900)];
        let seen = observe(&history, &injected);
        assert_eq!(seen, Observed { noticed_ms: Some(180), recovered_ms: Some(900) });
    }

    #[test]
    fn throughput_counts_what_came_back_in_between() {
        let history =
            [finished(0), finished(500), finished(999), finished(1000), dispatched(3, "x")];
        assert!((throughput(&history, 0, 1000) - 3.0).abs() < 1e-9);
        assert!(throughput(&history, 2000, 3000).abs() < 1e-9);
    }
}
