//! Several runs.

use super::figure;
use super::summary;
use super::table::{Cell, Table};
use crate::model::comparison::{Against, Comparison, Row, SETTINGS_MAX};
use crate::model::summary::State;
use crate::model::{Model, Report};
use crate::number;
use crate::text;

/// Characters of a value of the configuration.
const VALUE_CHARS_MAX: usize = 60;

/// All runs, a row each.
#[must_use]
pub fn table(comparison: &Comparison) -> String {
    let mut table = Table::new(
        "Runs",
        &[
            "run",
            "state",
            "#steps",
            "#episodes",
            "#wall time",
            "#reward at the end",
            "#repaired at the end",
            "evaluation",
            "#reward",
            "#95 %",
            "#repaired",
        ],
    );
    let or_none = |value: Option<String>| Cell::number(value.unwrap_or_else(|| "–".to_owned()));
    for row in &comparison.rows {
        let measured = row.measured.as_ref();
        table.row([
            Cell::text(row.name.clone()),
            Cell::text(match row.state {
                State::Complete => "complete",
                State::EndedEarly(_) => "ended early",
                State::NotOver => "not over",
            }),
            Cell::number(number::count(row.steps)),
            Cell::number(number::count(row.episodes)),
            or_none(row.wall_ms.map(number::duration)),
            or_none(row.reward.map(number::fixed)),
            or_none(row.success.map(number::percent)),
            Cell::text(measured.map_or("none", |measured| measured.label.as_str())),
            or_none(measured.map(|measured| number::fixed(measured.reward.value))),
            or_none(measured.map(|measured| summary::range(measured.reward))),
            or_none(measured.map(|measured| number::percent(measured.success.value))),
        ]);
    }
    let first = comparison.rows.first().map_or("", |row| row.name.as_str());
    let measured = comparison.rows.iter().any(|row| row.measured.is_some());
    let about =
        if measured { " Evaluation: the last one, with a bootstrap over its tasks." } else { "" };
    table.html()
        + "<p class=\"about\">At the end: where the curves below end; not every run's \
           attempts there are at the same tasks."
        + about
        + "</p>\n"
        + &against_first(&comparison.rows, first)
}

fn against_first(rows: &[Row], first: &str) -> String {
    let caption = format!("The last evaluation, less that of {}", text::short(first, 40));
    let columns =
        ["run", "#tasks in common", "#reward", "#95 %", "#p", "#repaired", "#95 %", "#p", "remark"];
    let mut table = Table::new(&caption, &columns);
    for row in rows {
        let name = Cell::text(row.name.clone());
        match &row.against_first {
            Against::First => {}
            Against::Nothing(why) => {
                let none = || Cell::number("–");
                let cells = [none(), none(), none(), none(), none(), none(), none()];
                table.row([name].into_iter().chain(cells).chain([Cell::text(*why)]));
            }
            Against::Compared(comparison) => {
                let cells = comparison.rows.iter().flat_map(|row| {
                    let (low, high) =
                        (number::signed(row.change.low), number::signed(row.change.high));
                    [
                        Cell::number(number::signed(row.change.value)),
                        Cell::number(format!("[{low}, {high}]")),
                        Cell::number(number::p(row.p)),
                    ]
                });
                let n = Cell::number(number::count(comparison.n as u64));
                table.row([name, n].into_iter().chain(cells).chain([Cell::text("")]));
            }
        }
    }
    let any = rows.iter().any(|row| matches!(row.against_first, Against::Compared(_)));
    let about = if any {
        "<p class=\"about\">Paired by the tasks both measured: bootstrap and permutation over tasks. It \
         tells these two runs apart, not the settings: runs with the same settings differ too.</p>\n"
    } else {
        ""
    };
    table.html() + about
}

/// The curves of all runs.
#[must_use]
pub fn curves(comparison: &Comparison) -> String {
    if comparison.charts.is_empty() {
        return "<p>No two of these runs have a curve in common.</p>\n".to_owned();
    }
    let mut out = String::from("<div class=\"figures\">\n");
    comparison.charts.iter().for_each(|chart| out += &figure::lines(chart));
    out + "</div>\n"
}

/// What was set differently.
#[must_use]
pub fn settings(report: &Report) -> String {
    let Some(comparison) = &report.comparison else { return String::new() };
    if comparison.settings.is_empty() {
        return "<p>Nothing, as far as their cluster.toml tell.</p>\n".to_owned();
    }
    let mut table = Table::new("Settings that differ", &["setting", "run", "value"]);
    for setting in comparison.settings.iter().take(SETTINGS_MAX) {
        for (run, value) in report.runs.iter().zip(&setting.values) {
            let value = value.as_deref().unwrap_or("not there");
            table.row([
                Cell::text(setting.name.clone()),
                Cell::text(run.name.clone()),
                Cell::text(text::short(value, VALUE_CHARS_MAX)),
            ]);
        }
    }
    let more = comparison.settings.len().saturating_sub(SETTINGS_MAX);
    let more =
        if more > 0 { format!("<p class=\"note\">And {more} more.</p>\n") } else { String::new() };
    table.html() + &more
}

/// Before and after of each run.
#[must_use]
pub fn runs(report: &Report) -> String {
    let each = |run: &Model| {
        let tables: String = run.summary.compared.iter().map(summary::before_after).collect();
        let name = text::html(&run.name);
        format!("<h3><bdi>{name}</bdi></h3>\n{}{tables}", summary::state(&run.summary))
    };
    report.runs.iter().map(each).collect()
}
