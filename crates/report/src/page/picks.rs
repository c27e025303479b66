//! The best and the worst episodes.

use crrl_types::{ToolRecord, Turn};

use super::diff;
use crate::model::picks::{Pick, Side};
use crate::number;
use crate::text;

/// Turns of an episode that are shown.
const TURNS_MAX: usize = 24;
/// Calls of a turn that are shown.
const CALLS_MAX: usize = 8;
/// Lines of what was said, called or answered.
const LINES_MAX: usize = 40;
/// Characters of a task's name.
const NAME_CHARS_MAX: usize = 90;

/// The section; empty where there is none.
#[must_use]
pub fn body(picks: &[Pick]) -> String {
    let mut out = String::new();
    for (side, title, about) in [
        (
            Side::Best,
            "Highest reward",
            "Of training and evaluations, one a task; of equals the later one.",
        ),
        (
            Side::Worst,
            "Lowest reward",
            "Of those that changed something and did not repair their task, one a task; of equals \
             the later one.",
        ),
    ] {
        let mut of_side = picks.iter().filter(|pick| pick.side == side).peekable();
        if of_side.peek().is_some() {
            out += &format!("<h3>{title}</h3>\n<p class=\"about\">{about}</p>\n");
            of_side.for_each(|pick| out += &episode(pick));
        }
    }
    out
}

fn episode(pick: &Pick) -> String {
    let verdict = if pick.success { "repaired" } else { "not repaired" };
    let versions = pick.versions.map_or_else(String::new, |(oldest, newest)| {
        if oldest == newest {
            format!(", adapter v{oldest}")
        } else {
            format!(", adapters v{oldest} to v{newest}")
        }
    });
    let mut out = format!(
        "<article class=\"episode\"><h4><bdi><code>{}</code></bdi></h4>\n\
         <p><strong>Reward {}, {verdict}.</strong> Episode {}, {}{versions}; {} after {} tokens and \
         {}.</p>\n",
        text::html(&text::short(&pick.task, NAME_CHARS_MAX)),
        number::fixed(pick.reward),
        pick.episode,
        text::html(&pick.phase),
        pick.finish,
        number::count(pick.generated as u64),
        number::duration(pick.wall_ms),
    );
    let parts: Vec<String> = pick
        .components
        .iter()
        .filter(|(_, _, weight)| *weight != 0.0)
        .map(|(name, value, weight)| {
            format!("{} {} × {}", text::html(name), number::fixed(*value), number::fixed(*weight))
        })
        .collect();
    if !parts.is_empty() {
        out += &format!("<p class=\"about\">{}</p>\n", parts.join(" + "));
    }
    if let Some(statement) = &pick.statement {
        out += &format!("<blockquote dir=\"ltr\">{}</blockquote>\n", block(statement));
    }
    out += &diff::html("what the episode changed", &pick.diff);
    if let Some(gold) = pick.gold.as_deref().filter(|gold| !gold.trim().is_empty()) {
        let gold = diff::html("the gold patch", gold);
        out += &format!("<details><summary>Gold patch</summary>{gold}</details>\n");
    }
    out += &turns(&pick.turns);
    out + "</article>\n"
}

fn turns(turns: &[Turn]) -> String {
    let mut out =
        format!("<details><summary>Turns ({})</summary><ol class=\"turns\">\n", turns.len());
    for turn in turns.iter().take(TURNS_MAX) {
        out += &format!(
            "<li><p class=\"about\">{} tokens</p><pre class=\"said\" dir=\"ltr\">{}</pre>\n",
            turn.tokens,
            block(&turn.text)
        );
        turn.tools.iter().take(CALLS_MAX).for_each(|tool| out += &call(tool));
        let more = turn.tools.len().saturating_sub(CALLS_MAX);
        if more > 0 {
            out += &format!("<p class=\"note\">{more} more calls are not shown.</p>");
        }
        out += "</li>\n";
    }
    let more = turns.len().saturating_sub(TURNS_MAX);
    if more > 0 {
        out += &format!("<li class=\"note\">{more} more turns are not shown.</li>");
    }
    out + "</ol></details>\n"
}

fn call(tool: &ToolRecord) -> String {
    let name = if tool.name.is_empty() { "(unreadable call)" } else { &tool.name };
    let verdict = if tool.ok { "worked" } else { "failed" };
    format!(
        "<p class=\"about\"><bdi><code>{}</code></bdi> {verdict}, {}</p><pre class=\"answered\" \
         dir=\"ltr\">{}</pre>\n",
        text::html(&text::short(name, NAME_CHARS_MAX)),
        number::duration(tool.wall_ms),
        block(&tool.output)
    )
}

fn block(content: &str) -> String {
    let cut = text::excerpt(content, LINES_MAX, text::LINE_CHARS_MAX);
    text::html(cut.shown) + &cut_note(cut.left_out)
}

/// What stands where a text was cut; nothing where it was not.
#[must_use]
pub fn cut_note(left_out: usize) -> String {
    match left_out {
        0 => String::new(),
        n => format!(
            "<span class=\"cut\">\n… {} more characters are not shown</span>",
            number::count(n as u64)
        ),
    }
}
