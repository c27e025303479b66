//! The HTML page. Everything that came from a model, a tool or a file goes through [`crate::text`].
//!
//! - [`summary`]: how far the run got, before and after
//! - [`figure`]: a plot with its legend, its words and its numbers
//! - [`table`]: rows of text and numbers
//! - [`kinds`]: by kind of bug
//! - [`picks`], [`diff`]: episodes, with what they changed
//! - [`faults`]: what went wrong, and when
//! - [`setting`]: plan, processes, configuration
//! - [`comparison`]: several runs
//!
//! The page's own policy forbids scripts and every request: whatever slipped through the escaping
//! could still do nothing.

pub mod comparison;
pub mod diff;
pub mod faults;
pub mod figure;
pub mod kinds;
pub mod picks;
pub mod setting;
pub mod summary;
pub mod table;

use crate::model::{Model, Report};
use crate::text;

const STYLE: &str = include_str!("style.css");

/// Nothing is loaded, nothing is run; only the page's own style counts.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// One part of the page.
struct Section {
    id: &'static str,
    title: &'static str,
    body: String,
}

impl Report {
    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        let names: Vec<&str> = self.runs.iter().map(|run| run.name.as_str()).collect();
        let (title, kicker, sections) = match (&self.comparison, self.runs.as_slice()) {
            (None, [run]) => (run.name.clone(), "crrl run", of_run(run)),
            _ => (names.join(", "), "crrl runs compared", of_runs(self)),
        };
        let sections: Vec<Section> =
            sections.into_iter().filter(|section| !section.body.is_empty()).collect();
        let title = text::short(&title, 200);
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta name=\"generator\" content=\"crrl {version}\">\n\
             <title>{kicker}: {plain}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#{first}\">Skip to the content</a>\n\
             <header>\n<p class=\"kicker\">{kicker}</p>\n<h1><bdi>{name}</bdi></h1>\n",
            version = env!("CARGO_PKG_VERSION"),
            plain = text::attribute(&title),
            first = sections.first().map_or("top", |section| section.id),
            name = text::html(&title),
        );
        out += "<nav aria-label=\"Sections\"><ul>";
        for section in &sections {
            out += &format!("<li><a href=\"#{}\">{}</a></li>", section.id, section.title);
        }
        out += "</ul></nav>\n</header>\n<main>\n";
        for Section { id, title, body } in &sections {
            out += &format!(
                "<section id=\"{id}\" aria-labelledby=\"{id}-h\">\n<h2 id=\"{id}-h\">{title}</h2>\n\
                 {body}</section>\n"
            );
        }
        out += &format!(
            "</main>\n<footer><p>Made by crrl {} from the run's folder alone. Intervals are 95 %.</p>\
             </footer>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION")
        );
        out
    }
}

fn of_run(run: &Model) -> Vec<Section> {
    vec![
        Section { id: "summary", title: "Summary", body: summary::body(run) },
        Section { id: "curves", title: "Training, step by step", body: curves(run) },
        Section { id: "episodes", title: "What episodes did", body: episodes(run) },
        Section { id: "kinds", title: "By kind of bug", body: kinds::body(&run.kinds) },
        Section { id: "best", title: "Best and worst episodes", body: picks::body(&run.picks) },
        Section { id: "faults", title: "Throughput and faults", body: faults::body(run) },
        Section {
            id: "setting",
            title: "Plan, processes, configuration",
            body: setting::body(run),
        },
    ]
}

fn of_runs(report: &Report) -> Vec<Section> {
    let Some(comparison) = &report.comparison else { return Vec::new() };
    vec![
        Section { id: "summary", title: "Side by side", body: comparison::table(comparison) },
        Section { id: "curves", title: "Curves", body: comparison::curves(comparison) },
        Section {
            id: "settings",
            title: "What was set differently",
            body: comparison::settings(report),
        },
        Section { id: "runs", title: "Each run", body: comparison::runs(report) },
    ]
}

fn curves(run: &Model) -> String {
    if run.steps.is_empty() {
        return "<p>No optimizer step has been made.</p>\n".to_owned();
    }
    let mut out = String::from("<div class=\"figures\">\n");
    run.steps.iter().for_each(|chart| out += &figure::lines(chart));
    out += &run.step_time.as_ref().map(figure::stack).unwrap_or_default();
    out += "</div>\n";
    if let Some(note) = figure::thinning(run.summary.steps) {
        out += &format!("<p class=\"note\">{note}</p>\n");
    }
    if !run.all_zero.is_empty() {
        out += &format!("<p class=\"note\">0 at every step: {}.</p>\n", run.all_zero.join("; "));
    }
    out
}

fn episodes(run: &Model) -> String {
    if run.episodes.is_empty() && run.habits.is_empty() {
        return "<p>No episode of the training has come back.</p>\n".to_owned();
    }
    let mut out = String::from(
        "<p class=\"note\">All attempts of the training that came back, whether they were trained on \
         or not; evaluations are not among them.</p>\n<div class=\"figures\">\n",
    );
    run.episodes.iter().for_each(|chart| out += &figure::lines(chart));
    run.habits.iter().for_each(|stack| out += &figure::stack(stack));
    out + "</div>\n"
}
