//! What people had done to a run, as its log of orders tells: a fault for as long as it lasted, an order with
//! what became of it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::fault::{Fault, Injection};
use crate::order::{OrderRecord, Outcome};

/// [`OrderRecord::operation`] of a fault.
pub const FAULT: &str = "fault";
/// [`OrderRecord::operation`] of more or less in a log, for a time.
const LOG: &str = "log";

/// A fault that was injected, or an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deed {
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// For how long at most, milliseconds; none of what is done once.
    pub lasts_ms: Option<u64>,
    /// Whether it is a fault.
    pub is_fault: bool,
    /// What: the fault in words, or the order's word and what else was said.
    pub what: String,
    /// To whom.
    pub target: String,
    /// By whom.
    pub who: String,
    /// What became of it; none where nothing tells.
    pub outcome: Option<Outcome>,
}

impl Deed {
    /// Whether it was done, as far as is known: what ends the coordinator is not answered any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.outcome.is_none_or(Outcome::is_done)
    }

    fn of(record: OrderRecord) -> Self {
        let OrderRecord { at_ms, who, operation, target, detail, outcome, .. } = record;
        let is_fault = operation == FAULT;
        let (said, lasts_ms) = match Injection::lasting(&detail) {
            Some((said, ms)) if is_fault || operation == LOG => (said.to_owned(), Some(ms)),
            _ => (detail, None),
        };
        // A process is killed at once, whatever time was given.
        let lasts_ms = lasts_ms.filter(|_| said != Fault::Kill.to_string());
        let what = match (is_fault, said.is_empty()) {
            (true, _) => said,
            (false, true) => operation,
            (false, false) => format!("{operation} {said}"),
        };
        Self { at_ms, lasts_ms, is_fault, what, target, who, outcome }
    }

    /// Whether this fault goes on at that moment.
    fn goes_on(&self, at_ms: u64) -> bool {
        let lasts = |ms| (self.at_ms..self.at_ms.saturating_add(ms)).contains(&at_ms);
        self.is_fault && self.is_done() && self.lasts_ms.is_some_and(lasts)
    }
}

/// What a log of orders tells, oldest first. What lifted a fault is that fault's end.
#[must_use]
pub fn deeds(records: Vec<OrderRecord>) -> Vec<Deed> {
    let mut deeds: Vec<Deed> = Vec::new();
    for deed in folded(records).into_iter().map(Deed::of) {
        let lifted = Injection::lifted_of(&deed.what).filter(|_| deed.is_fault && deed.is_done());
        let begun = lifted.and_then(|fault| {
            let is_it = |held: &&mut Deed| held.target == deed.target && held.what == fault;
            deeds.iter_mut().rev().filter(is_it).find(|held| held.goes_on(deed.at_ms))
        });
        match begun {
            Some(begun) => begun.lasts_ms = Some(deed.at_ms - begun.at_ms),
            None => deeds.push(deed),
        }
    }
    deeds
}

/// One record an order, in the order they were asked for; what became of it takes the place of the
/// question.
#[must_use]
pub fn folded(records: Vec<OrderRecord>) -> Vec<OrderRecord> {
    let mut orders: Vec<OrderRecord> = Vec::new();
    let mut places = BTreeMap::new();
    for record in records {
        let place = *places.entry(record.id).or_insert(orders.len());
        match orders.get_mut(place) {
            Some(held) if held.outcome.is_none() => {
                let asked_ms = held.at_ms;
                *held = OrderRecord { at_ms: asked_ms, ..record };
            }
            Some(_) => {}
            None => orders.push(record),
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, at_ms: u64, operation: &str, detail: &str) -> OrderRecord {
        OrderRecord {
            id,
            at_ms,
            who: "chaos".into(),
            roles: vec!["chaos".into()],
            operation: operation.into(),
            target: "rollout-0".into(),
            detail: detail.into(),
            outcome: None,
            says: String::new(),
        }
    }

    fn answer(record: &OrderRecord, outcome: Outcome) -> OrderRecord {
        OrderRecord { at_ms: record.at_ms + 5, outcome: Some(outcome), ..record.clone() }
    }

    #[test]
    fn a_fault_lasts_for_its_time_or_until_it_is_lifted() {
        let pause = Injection { id: 3, fault: Fault::Pause, duration_ms: 30_000, seed: 1 };
        let lifted = pause.lifted().expect("it goes on for a time");
        let kill = Injection { fault: Fault::Kill, ..pause };
        let records = vec![
            record(1, 1_000, FAULT, &pause.to_string()),
            record(2, 50_000, FAULT, &pause.to_string()),
            record(3, 60_000, FAULT, &lifted.to_string()),
            record(4, 70_000, FAULT, &kill.to_string()),
        ];
        let deeds = deeds(records);
        let seen: Vec<_> = deeds.iter().map(|d| (d.at_ms, d.lasts_ms, d.what.as_str())).collect();
        let (still, killed) = (Fault::Pause.to_string(), Fault::Kill.to_string());
        assert_eq!(
            seen,
            [
                (1_000, Some(30_000), still.as_str()),
                (50_000, Some(10_000), still.as_str()),
                (70_000, None, killed.as_str())
            ]
        );
        assert!(deeds.iter().all(|deed| deed.is_fault && deed.who == "chaos" && deed.is_done()));
    }

    #[test]
    fn what_lifts_nothing_that_is_known_is_kept() {
        let pause = Injection { id: 3, fault: Fault::Pause, duration_ms: 1_000, seed: 1 };
        let lifted = pause.lifted().expect("it goes on for a time").to_string();
        let mut refused = record(2, 500, FAULT, &lifted);
        refused.outcome = Some(Outcome::Denied);
        let records = vec![
            record(1, 0, FAULT, &pause.to_string()),
            refused,
            record(3, 9_000, FAULT, &lifted),
        ];
        let deeds = deeds(records);
        assert_eq!(deeds.len(), 3, "{deeds:?}");
        assert_eq!(deeds[0].lasts_ms, Some(1_000), "it was over, or nobody was allowed to end it");
        assert!(!deeds[1].is_done());
    }

    #[test]
    fn an_order_has_its_outcome_and_when_it_was_asked_for() {
        let drain = record(1, 10, "drain", "");
        let log = record(2, 11, LOG, "\"debug\" for 2000 ms");
        let records = vec![drain.clone(), log, answer(&drain, Outcome::Absent)];
        let deeds = deeds(records);
        assert_eq!((deeds[0].at_ms, deeds[0].outcome), (10, Some(Outcome::Absent)));
        assert_eq!((deeds[0].what.as_str(), deeds[0].lasts_ms), ("drain", None));
        assert!(!deeds[0].is_done() && !deeds[0].is_fault);
        assert_eq!((deeds[1].what.as_str(), deeds[1].lasts_ms), ("log \"debug\"", Some(2_000)));
        let stop = super::deeds(vec![record(3, 12, "stop-run", "idle for 20 ms")]);
        assert_eq!(stop[0].what, "stop-run idle for 20 ms", "what a person says is left as it is");
    }
}
