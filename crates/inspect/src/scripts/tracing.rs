//! Messages of actors as lines on stdout, until there was enough of them.

use std::io::Write;

use crrl_cluster::RunDir;
use crrl_control::trace::TraceFilter;
use crrl_types::{OrderAnswer, TraceEnd, TraceEvent, TraceRequest, TraceStop, Traced};
use serde::Serialize;

use super::orders::dial;
use super::{json, line, runtime};
use crate::error::InspectError;
use crate::text::plain;
use crate::units::clock;

/// A line of a trace.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TraceLine {
    /// Something happened to a message.
    Event(TraceEvent),
    /// The last line: why nothing more comes.
    End(TraceEnd),
}

/// What came of a trace that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was not begun.
    Refused(OrderAnswer),
    /// It began, and ended.
    Over(TraceEnd),
}

impl Ended {
    /// The code `crrl` exits with: 5 where something was missed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(answer) => super::orders::exit_code(answer.outcome),
            Self::Over(end) => match end.why {
                TraceStop::Count | TraceStop::Time | TraceStop::Left => 0,
                TraceStop::Rate | TraceStop::Unread => 5,
                TraceStop::Gone => 6,
            },
        }
    }

    /// The same in words, for people.
    #[must_use]
    pub fn says(&self) -> String {
        match self {
            Self::Refused(answer) => {
                format!("{}: {}", answer.outcome.word(), plain(&answer.says, 2_000))
            }
            Self::Over(end) => format!("{} events; the end: {}", end.events, end.why.says()),
        }
    }
}

/// Prints messages until the trace is over, nobody reads, or Ctrl-C.
///
/// # Errors
/// [`InspectError`]: nobody answers, or the filter makes no sense.
pub fn trace(
    run: &RunDir,
    who: Option<&str>,
    request: &TraceRequest,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<Ended, InspectError> {
    TraceFilter::parse(&request.filter)
        .map_err(|error| InspectError::Usage(format!("--filter: {error}")))?;
    runtime()?.block_on(async {
        let client = dial(run, who).await?;
        let unreachable =
            |source| InspectError::Unreachable { path: run.path().to_owned(), source };
        let mut trace = client.trace(request).await.map_err(unreachable)?;
        if !trace.answer().outcome.is_done() {
            return Ok(Ended::Refused(trace.answer().clone()));
        }
        let mut events = 0;
        let why = loop {
            let traced = tokio::select! {
                traced = trace.next() => traced,
                _ = tokio::signal::ctrl_c() => break TraceStop::Left,
            };
            match traced {
                Ok(Some(Traced::Events(seen))) => {
                    events += seen.len() as u64;
                    if !show(seen, as_json, out)? {
                        break TraceStop::Left;
                    }
                }
                Ok(Some(Traced::End(end))) => break end.why,
                Ok(None) | Err(_) => break TraceStop::Gone,
            }
        };
        let end = TraceEnd { why, events };
        if as_json {
            line(out, &json(&TraceLine::End(end))?)?;
        }
        drop(trace);
        client.close().await;
        Ok(Ended::Over(end))
    })
}

/// Whether anybody reads.
fn show(events: Vec<TraceEvent>, as_json: bool, out: &mut dyn Write) -> Result<bool, InspectError> {
    for event in events {
        if !line(out, &text(event, as_json)?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn text(event: TraceEvent, as_json: bool) -> Result<String, InspectError> {
    if as_json {
        return json(&TraceLine::Event(event));
    }
    let from = event.from.map_or_else(String::new, |from| format!("  from {from}"));
    let what = match event.handled_us {
        None => "received".to_owned(),
        Some(us) => format!("handled in {:.3} ms", us as f64 / 1000.0),
    };
    let shown = format!(
        "{}  {}/{}  {}  {what}{from}",
        clock(event.at_ms),
        event.node,
        event.actor,
        event.message
    );
    Ok(plain(&shown, 400))
}
