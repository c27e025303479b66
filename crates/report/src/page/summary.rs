//! How far the run got, before and after.

use super::table::{Cell, Table};
use crate::model::Model;
use crate::model::summary::{Compared, Measured, State, Summary};
use crate::number;
use crate::text;

/// Characters of why a run ended.
const REASON_CHARS_MAX: usize = 600;

/// The section.
#[must_use]
pub fn body(run: &Model) -> String {
    let mut out = state(&run.summary);
    out += &facts(&run.summary);
    run.summary.compared.iter().for_each(|compared| out += &before_after(compared));
    if run.summary.evaluations.is_empty() {
        out += "<p class=\"note\">No evaluation has ended: nothing can be said of how good the policy \
                is on tasks it was not trained on.</p>\n";
    } else {
        out += &evaluations(&run.summary.evaluations);
    }
    if !run.notes.is_empty() {
        out += "<div class=\"note\"><h3>What this report leaves out</h3><ul>";
        run.notes.iter().for_each(|note| out += &format!("<li>{}</li>", text::html(note)));
        out += "</ul></div>\n";
    }
    out
}

/// How far the run got, in a sentence.
#[must_use]
pub fn state(summary: &Summary) -> String {
    match &summary.state {
        State::Complete => {
            "<p class=\"state\"><strong>Complete.</strong> Every phase of the plan has ended.</p>\n"
                .into()
        }
        State::EndedEarly(reason) => {
            let cut = text::excerpt(reason, 8, REASON_CHARS_MAX);
            let more = if cut.left_out > 0 { " …" } else { "" };
            format!(
                "<p class=\"state bad\"><strong>Ended early.</strong> <bdi>{}{more}</bdi></p>\n",
                text::html(cut.shown)
            )
        }
        State::NotOver => {
            "<p class=\"state bad\"><strong>Not over.</strong> The run goes on, or was \
                           interrupted; what follows is how far it got.</p>\n"
                .into()
        }
    }
}

fn facts(summary: &Summary) -> String {
    let mut out = String::from("<dl class=\"facts\">");
    let mut fact = |name: &str, value: String, more: String| {
        let more =
            if more.is_empty() { more } else { format!("<span>{}</span>", text::html(&more)) };
        out += &format!("<div><dt>{name}</dt><dd>{}{more}</dd></div>", text::html(&value));
    };
    let planned = format!("of {} planned", number::count(summary.steps_planned));
    fact("Optimizer steps", number::count(summary.steps), planned);
    let states: Vec<String> = summary
        .episodes
        .iter()
        .map(|(state, n)| format!("{} {state}", number::count(*n)))
        .collect();
    fact("Episodes", number::count(summary.episodes_all()), states.join(", "));
    let began = summary
        .began_ms
        .map_or_else(String::new, |ms| format!("from {}, first to last event", number::utc(ms)));
    fact("Wall time", summary.wall_ms.map_or_else(|| "not known".into(), number::duration), began);
    let version = summary.adapter_version.map_or_else(|| "none".into(), |v| format!("v{v}"));
    fact("Newest adapter", version, String::new());
    out + "</dl>\n"
}

/// The table of two evaluations.
#[must_use]
pub fn before_after(compared: &Compared) -> String {
    let Compared { before, after, comparison } = compared;
    let caption = format!("“{before}” and “{after}”: {} tasks measured in both", comparison.n);
    let mut table = Table::new(
        &caption,
        &["measure", "#before", "#95 %", "#after", "#95 %", "#change", "#95 %", "#p", "#Cohen's d"],
    );
    for row in &comparison.rows {
        table.row([
            Cell::text(row.name.clone()),
            Cell::number(number::fixed(row.before.value)),
            Cell::number(range(row.before)),
            Cell::number(number::fixed(row.after.value)),
            Cell::number(range(row.after)),
            Cell::Html(format!(
                "<strong class=\"n\">{}</strong>",
                number::signed(row.change.value)
            )),
            Cell::number(format!(
                "[{}, {}]",
                number::signed(row.change.low),
                number::signed(row.change.high)
            )),
            Cell::number(number::p(row.p)),
            Cell::number(
                row.cohens_d.map_or_else(|| "–".into(), |d| format!("{d:.2}").replace('-', "−")),
            ),
        ]);
    }
    table.html()
        + &format!(
            "<p class=\"about\">Means over tasks of the mean over a task's attempts. Intervals: \
             percentile bootstrap over tasks; the change is paired by task. p: two-sided paired \
             permutation test. Tasks that most attempts repaired, before and after: McNemar's exact \
             test, {}.</p>\n",
            text::html(&number::p_is(comparison.mcnemar_p))
        )
}

pub(crate) fn range(interval: crrl_eval::Interval) -> String {
    format!("[{}, {}]", number::fixed(interval.low), number::fixed(interval.high))
}

fn evaluations(list: &[Measured]) -> String {
    let mut table = Table::new(
        "Every evaluation",
        &[
            "evaluation",
            "#adapter",
            "#temperature",
            "#tasks",
            "#attempts",
            "#reward",
            "#95 %",
            "#repaired",
            "#95 %",
            "#by any attempt",
        ],
    );
    for measured in list {
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        table.row([
            Cell::text(measured.label.clone()),
            Cell::number(format!("v{}", measured.version)),
            Cell::number(measured.temperature.map_or_else(|| "–".into(), |t| format!("{t}"))),
            Cell::number(number::count(measured.tasks as u64)),
            Cell::number(number::count(measured.attempts as u64)),
            Cell::number(number::fixed(measured.reward.value)),
            Cell::number(range(measured.reward)),
            Cell::number(number::percent(measured.success.value)),
            Cell::number(format!(
                "[{}, {}]",
                percent(measured.success.low),
                percent(measured.success.high)
            )),
            Cell::number(number::percent(measured.success_any)),
        ]);
    }
    table.html()
}
