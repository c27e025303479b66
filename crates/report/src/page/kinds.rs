//! By kind of bug.

use super::figure::{Parts, whole};
use super::table::{Cell, Table};
use crate::model::kinds::Kinds;
use crate::number;
use crate::plot;

/// The section; empty where the tasks say nothing of kinds.
#[must_use]
pub fn body(kinds: &Kinds) -> String {
    if !kinds.known() {
        return String::new();
    }
    let mut out = String::new();
    if let (Some((before, after)), false) = (&kinds.labels, kinds.compared.is_empty()) {
        let title = "Repaired, before and after";
        out += &whole(&Parts {
            id: "kinds",
            title,
            legend: "<ul class=\"legend\"><li><svg class=\"swatch\" width=\"12\" height=\"12\" \
                     viewBox=\"0 0 12 12\" aria-hidden=\"true\"><circle class=\"ring s1\" cx=\"6\" \
                     cy=\"6\" r=\"4.5\"/></svg>before</li><li><svg class=\"swatch\" width=\"12\" \
                     height=\"12\" viewBox=\"0 0 12 12\" aria-hidden=\"true\"><circle class=\"node \
                     f1\" cx=\"6\" cy=\"6\" r=\"4.5\"/></svg>after</li></ul>",
            svg: &plot::dumbbell::dumbbell("kinds", title, &kinds.compared),
            about: "Share of attempts that repaired their task; in brackets how many tasks.",
            numbers: "",
            wide: false,
        });
        let caption = format!("Repaired by kind of bug: {before} and {after}");
        let mut table =
            Table::new(&caption, &["kind", "#tasks", "#before", "#after", "#change", "#95 %"]);
        for row in &kinds.compared {
            table.row([
                Cell::text(row.kind.clone()),
                Cell::number(number::count(row.tasks as u64)),
                Cell::number(number::fixed(row.before)),
                Cell::number(number::fixed(row.after)),
                Cell::number(number::signed(row.change.value)),
                Cell::number(format!(
                    "[{}, {}]",
                    number::signed(row.change.low),
                    number::signed(row.change.high)
                )),
            ]);
        }
        out = format!(
            "<div class=\"beside\">{out}<div>{}<p class=\"about\">Each kind for itself: paired \
             bootstrap over its tasks. Of twenty such intervals about one leaves 0 out by chance; \
             kinds of few tasks have intervals that say little.</p></div></div>\n",
            table.html()
        );
    }
    out + &trained(kinds)
}

fn trained(kinds: &Kinds) -> String {
    let mut table = Table::new(
        "All attempts of the training, by kind of bug",
        &["kind", "#tasks", "#attempts", "#mean reward", "#repaired"],
    );
    for row in &kinds.trained {
        table.row([
            Cell::text(row.kind.clone()),
            Cell::number(number::count(row.tasks as u64)),
            Cell::number(number::count(row.attempts)),
            Cell::number(number::fixed(row.reward)),
            Cell::number(number::percent(row.success)),
        ]);
    }
    if table.is_empty() { String::new() } else { table.html() }
}
