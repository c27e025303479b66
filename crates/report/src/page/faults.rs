//! What went wrong, and when; and what people had done.

use crrl_types::Outcome;

use super::figure;
use super::table::{Cell, Table};
use crate::model::Model;
use crate::model::timeline::{LISTED_MAX, Timeline};
use crate::number;
use crate::plot::timeline::{DEED, letter, timeline};
use crate::text;

/// Characters of a reason.
const REASON_CHARS_MAX: usize = 160;
/// Tasks in quarantine that are listed.
const QUARANTINED_MAX: usize = 50;

/// The section.
#[must_use]
pub fn body(run: &Model) -> String {
    let mut out = String::new();
    if let (Some(stack), Some(svg)) = (&run.timeline.throughput, timeline(&run.timeline)) {
        out += &figure::drawn(stack, &svg, true);
    }
    out += &faults(&run.timeline);
    out += &deeds(&run.timeline);
    out += &quarantined(&run.quarantined);
    out
}

fn faults(timeline: &Timeline) -> String {
    if timeline.marks.is_empty() {
        return "<p>No node was lost, no lease ran out, nothing was started again or rolled back.</p>\n"
            .to_owned();
    }
    let counts: Vec<String> = timeline
        .counts
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(kind, n)| format!("{} {}: {}", letter(*kind), kind.name(), number::count(*n)))
        .collect();
    let mut out = format!("<p>{}</p>\n", counts.join(" · "));
    let mut table =
        Table::new("Faults and recoveries", &["#after", "mark", "what", "node", "detail"]);
    for (s, mark) in timeline.marks.iter().take(LISTED_MAX) {
        let times = if mark.times > 1 { format!(" ({} times)", mark.times) } else { String::new() };
        table.row([
            Cell::number(number::duration((s * 1_000.0) as u64)),
            Cell::text(letter(mark.kind)),
            Cell::text(format!("{}{times}", mark.kind.name())),
            Cell::text(text::short(&mark.node, 40)),
            Cell::text(text::short(&mark.detail, REASON_CHARS_MAX)),
        ]);
    }
    out += &table.html();
    let more = timeline.marks.len().saturating_sub(LISTED_MAX) as u64 + timeline.left_out;
    if more > 0 {
        out +=
            &format!("<p class=\"note\">{} more are in events.jsonl.</p>\n", number::count(more));
    }
    out
}

/// What was injected and ordered: nothing where nobody had anything done.
fn deeds(timeline: &Timeline) -> String {
    if timeline.deeds.is_empty() {
        return String::new();
    }
    let caption = format!("{DEED} Injected faults and orders");
    let columns = ["#after", "#for", "what", "to", "by", "came of it"];
    let mut table = Table::new(&caption, &columns);
    for (s, deed) in timeline.deeds.iter().take(LISTED_MAX) {
        table.row([
            Cell::number(number::duration((s * 1_000.0) as u64)),
            Cell::number(deed.lasts_ms.map_or_else(|| "–".to_owned(), number::duration)),
            Cell::text(text::short(&deed.what, REASON_CHARS_MAX)),
            Cell::text(text::short(&deed.target, 40)),
            Cell::text(text::short(&deed.who, 40)),
            Cell::text(deed.outcome.map_or("not known", Outcome::word)),
        ]);
    }
    let more = timeline.deeds.len().saturating_sub(LISTED_MAX) as u64;
    let more = match more {
        0 => String::new(),
        n => format!("<p class=\"note\">{} more are in orders.jsonl.</p>\n", number::count(n)),
    };
    table.html() + &more
}

fn quarantined(tasks: &[(String, String)]) -> String {
    if tasks.is_empty() {
        return String::new();
    }
    let mut table = Table::new("Tasks in quarantine", &["task", "why"]);
    for (task, reason) in tasks.iter().take(QUARANTINED_MAX) {
        let reason = text::short(reason, REASON_CHARS_MAX);
        table.row([Cell::text(text::short(task, 90)), Cell::text(reason)]);
    }
    let more = tasks.len().saturating_sub(QUARANTINED_MAX);
    let more =
        if more > 0 { format!("<p class=\"note\">And {more} more.</p>\n") } else { String::new() };
    table.html() + &more
}
