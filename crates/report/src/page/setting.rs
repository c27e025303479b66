//! The plan, the configuration, and the processes that carried them out.

use super::picks::cut_note;
use super::table::{Cell, Table};
use crrl_store::Environment;

use crate::facts::HostFact;
use crate::model::Model;
use crate::number;
use crate::text;

/// Lines of the configuration that are shown.
const LINES_MAX: usize = 600;
/// Characters of it.
const CHARS_MAX: usize = 40_000;
/// Nodes that are listed.
const NODES_MAX: usize = 100;

/// The section.
#[must_use]
pub fn body(run: &Model) -> String {
    plan(run)
        + &environment(&run.environment)
        + &run.host.as_ref().map(processes).unwrap_or_default()
        + &configuration(run.configuration.as_deref())
}

fn plan(run: &Model) -> String {
    let caption = format!("Plan, seed {}", run.seed);
    let mut table = Table::new(&caption, &["phase", "task file", "extent", "#temperature"]);
    for phase in &run.phases {
        table.row([
            Cell::text(text::short(&phase.label, 60)),
            Cell::text(text::short(&phase.tasks, 60)),
            Cell::text(phase.extent.clone()),
            Cell::number(phase.temperature.to_string()),
        ]);
    }
    table.html()
}

/// On what it was started. A start on the same as the one before says nothing new.
fn environment(starts: &[Environment]) -> String {
    let mut table = Table::new(
        "Environment of the machine the run was started on",
        &["started", "crrl", "program", "system", "processor", "#threads", "#memory", "GPU"],
    );
    let mut before: Option<Environment> = None;
    for start in starts {
        let same = Environment { at_ms: 0, ..start.clone() };
        if before.as_ref() == Some(&same) {
            continue;
        }
        table.row([
            Cell::text(number::utc(start.at_ms)),
            Cell::text(text::short(&start.version, 20)),
            Cell::text(text::short(&start.program, 12)),
            Cell::text(text::short(&format!("{}, {}", start.system, start.kernel), 80)),
            Cell::text(text::short(&start.cpu, 60)),
            Cell::number(number::count(start.cores)),
            Cell::number(format!("{:.1} GiB", start.memory_bytes as f64 / (1_u64 << 30) as f64)),
            Cell::text(text::short(start.gpu.as_deref().unwrap_or("none asked for"), 80)),
        ]);
        before = Some(same);
    }
    if table.is_empty() {
        return "<p class=\"note\">What the run was started on was not written down (by builds before \
                environment.jsonl).</p>\n"
            .to_owned();
    }
    table.html()
}

fn processes(host: &HostFact) -> String {
    let mut table = Table::new(
        "Processes, as the host last wrote them down",
        &["node", "roles", "#started again", "last end"],
    );
    for node in host.nodes.iter().take(NODES_MAX) {
        let end = node.last_exit.clone().unwrap_or_else(|| "none yet".to_owned());
        let end = if node.given_up { format!("given up: {end}") } else { end };
        table.row([
            Cell::text(text::short(&node.name, 60)),
            Cell::text(text::short(&node.roles.join(", "), 80)),
            Cell::number(node.restarts.to_string()),
            Cell::text(text::short(&end, 200)),
        ]);
    }
    let more = host.nodes.len().saturating_sub(NODES_MAX);
    let more =
        if more > 0 { format!("<p class=\"note\">And {more} more.</p>\n") } else { String::new() };
    table.html() + &more
}

fn configuration(text: Option<&str>) -> String {
    let Some(content) = text else {
        return "<p class=\"note\">cluster.toml is not in the run's folder.</p>\n".to_owned();
    };
    let cut = text::excerpt(content, LINES_MAX, CHARS_MAX);
    format!(
        "<details open><summary>cluster.toml</summary><pre class=\"toml\" dir=\"ltr\" tabindex=\"0\">{}{}</pre></details>\n",
        text::html(cut.shown),
        cut_note(cut.left_out)
    )
}
