//! What became of actors, read off the reports of their nodes: who failed, was started again, was stopped.
//!
//! A node that is started again begins anew: that it was lost is in the run's history.

use std::collections::VecDeque;
use std::time::Instant;

use crrl_control::wire::NodeReport;
use crrl_types::actor::{ActorReport, ActorState, Fate, STOPPED_BY_ORDER};

/// What is kept of one node; the oldest goes.
pub(crate) const HAPPENED_MAX: usize = 32;

/// One thing that became of an actor.
#[derive(Debug)]
pub(crate) struct Happened {
    /// Grows with all that happens, whatever the node.
    pub(crate) number: u64,
    /// When the node told of it.
    pub(crate) at: Instant,
    pub(crate) actor: String,
    pub(crate) fate: Fate,
    pub(crate) why: Option<String>,
}

/// What became of a node's actors lately.
#[derive(Debug, Default)]
pub(crate) struct Lately(VecDeque<Happened>);

impl Lately {
    /// Notes what is new in a report. `number` is that of what happened last, of whatever node.
    pub(crate) fn note(
        &mut self,
        before: &NodeReport,
        report: &NodeReport,
        at: Instant,
        number: &mut u64,
    ) {
        if before.incarnation != report.incarnation {
            return;
        }
        for (nth, actor) in report.actors.iter().enumerate() {
            // They keep their order, but for those that are new.
            let same = before.actors.get(nth).filter(|held| held.name == actor.name);
            let held = same.or_else(|| before.actors.iter().find(|held| held.name == actor.name));
            let Some((fate, why)) = held.and_then(|held| fate(held, actor)) else { continue };
            *number += 1;
            let (number, actor) = (*number, actor.name.clone());
            self.0.push_back(Happened { number, at, actor, fate, why });
            if self.0.len() > HAPPENED_MAX {
                self.0.pop_front();
            }
        }
    }

    /// What happened after that of this number, oldest first.
    pub(crate) fn after(&self, number: u64) -> impl Iterator<Item = &Happened> {
        self.0.iter().filter(move |happened| happened.number > number)
    }
}

/// What became of an actor between two reports, and why.
fn fate(before: &ActorReport, actor: &ActorReport) -> Option<(Fate, Option<String>)> {
    let why = || actor.last_failure.clone();
    let is_now = |state| actor.state == state && before.state != state;
    if actor.restarts > before.restarts {
        return Some((Fate::Restarted, why()));
    }
    if is_now(ActorState::Failed) {
        return Some((Fate::Failed, why()));
    }
    let by_order = |why: &String| why.starts_with(STOPPED_BY_ORDER);
    is_now(ActorState::Stopped).then(|| (Fate::Stopped, why().filter(by_order)))
}
