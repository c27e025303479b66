//! Orders given from a script, and what has become of those that were given.

use std::io::Write;

use crrl_cluster::{OperatorClient, OperatorError, RunDir, order_log};
use crrl_types::deed::folded;
use crrl_types::{Order, OrderAnswer, OrderRecord, Outcome};

use super::{json, line, runtime, table};
use crate::error::InspectError;
use crate::feed::{check, connect, is_up};
use crate::text::plain;
use crate::units::clock;

/// Characters of what is said of an order.
const SAYS_CHARS_MAX: usize = 120;

/// Gives an order with a certificate of the folder; without a name, the operator's.
///
/// # Errors
/// [`InspectError`]: nobody answers. Whatever became of the order is an answer.
pub fn give(run: &RunDir, who: Option<&str>, order: &Order) -> Result<OrderAnswer, InspectError> {
    runtime()?.block_on(async {
        let client = dial(run, who).await?;
        let answer = client.order(order).await;
        client.close().await;
        answer.map_err(|source| InspectError::Unreachable { path: run.path().to_owned(), source })
    })
}

/// Dials the coordinator.
pub(super) async fn dial(run: &RunDir, who: Option<&str>) -> Result<OperatorClient, InspectError> {
    check(run, who)?;
    connect(run, who).await.map_err(|source| match source {
        OperatorError::NotARun(says) if who.is_some() => InspectError::Usage(says),
        source if is_up(run) => InspectError::Unreachable { path: run.path().to_owned(), source },
        _ => InspectError::NotUp(run.path().to_owned()),
    })
}

/// The code `crrl` exits with.
#[must_use]
pub fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Done => 0,
        Outcome::Unsupported => 1,
        Outcome::Absent => 2,
        Outcome::Truncated => 5,
        Outcome::Busy => 6,
        Outcome::Denied => 7,
    }
}

/// Prints an answer.
///
/// # Errors
/// Nobody reads.
pub fn print(answer: &OrderAnswer, as_json: bool, out: &mut dyn Write) -> Result<(), InspectError> {
    let text = match as_json {
        true => json(answer)?,
        false => format!("{}: {}", answer.outcome.word(), plain(&answer.says, 2_000)),
    };
    line(out, &text).map(drop)
}

/// Prints what was asked for in a run, oldest first, the last `limit` orders. The run may be over.
///
/// # Errors
/// [`InspectError`]: no run, or its log cannot be read.
pub fn list(
    run: &RunDir,
    limit: usize,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), InspectError> {
    check(run, None)?;
    let orders = last(folded(order_log::read(run)?), limit);
    if as_json {
        return line(out, &json(&orders)?).map(drop);
    }
    for text in lines(&orders) {
        if !line(out, &text)? {
            break;
        }
    }
    Ok(())
}

fn last(mut orders: Vec<OrderRecord>, limit: usize) -> Vec<OrderRecord> {
    orders.split_off(orders.len().saturating_sub(limit))
}

fn lines(orders: &[OrderRecord]) -> Vec<String> {
    let head = ["ID", "TIME", "WHO", "ROLES", "ORDER", "TARGET", "DETAIL", "OUTCOME", "SAYS"];
    let cells = |order: &OrderRecord| {
        let short = |text: &str| plain(text, SAYS_CHARS_MAX);
        vec![
            order.id.to_string(),
            clock(order.at_ms),
            short(&order.who),
            short(&order.roles.join("+")),
            short(&order.operation),
            short(&order.target),
            short(&order.detail),
            order.outcome.map_or("not known", Outcome::word).to_owned(),
            short(&order.says),
        ]
    };
    table::lines(&head, &["ID"], &orders.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, at_ms: u64, outcome: Option<Outcome>) -> OrderRecord {
        OrderRecord {
            id,
            at_ms,
            who: "anna".into(),
            roles: vec!["operator".into()],
            operation: "drain".into(),
            target: "rollout-0".into(),
            detail: String::new(),
            outcome,
            says: String::new(),
        }
    }

    #[test]
    fn an_order_is_one_row_and_one_without_an_outcome_says_so() {
        let done = Some(Outcome::Done);
        let records = vec![
            record(1, 10, None),
            record(2, 11, None),
            record(1, 12, done),
            record(3, 13, done),
        ];
        let orders = folded(records);
        let seen: Vec<_> = orders.iter().map(|o| (o.id, o.at_ms, o.outcome)).collect();
        assert_eq!(seen, [(1, 10, done), (2, 11, None), (3, 13, done)]);
        let shown = lines(&orders);
        assert!(shown[2].contains("not known"), "{shown:?}");
        assert_eq!(last(orders, 1).len(), 1);
    }

    #[test]
    fn every_outcome_has_a_code_of_its_own() {
        use Outcome::{Absent, Busy, Denied, Done, Truncated, Unsupported};
        let codes = [Done, Unsupported, Absent, Truncated, Busy, Denied].map(exit_code);
        assert_eq!(codes, [0, 1, 2, 5, 6, 7]);
    }
}
