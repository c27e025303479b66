//! The scaffold's own words. The texts are files under `prompts/`; a final line break is not part
//! of them.

use crate::options::{Options, Style};

/// The system message.
#[must_use]
pub fn system(style: Style) -> &'static str {
    match style {
        Style::Full => include_str!("prompts/full_system.txt").trim_end(),
        Style::Brief => include_str!("prompts/brief_system.txt").trim_end(),
    }
}

/// The first user message: the issue, and the limits where the style names them.
#[must_use]
pub fn user(options: &Options, issue: &str) -> String {
    let text = match options.style {
        Style::Full => include_str!("prompts/full_user.txt"),
        Style::Brief => include_str!("prompts/brief_user.txt"),
    };
    // The issue goes in last: it may hold anything, braces too.
    text.trim_end()
        .replace("{calls}", &options.calls_max.to_string())
        .replace("{chars}", &options.output_chars_max.to_string())
        .replacen("{issue}", issue.trim(), 1)
}

/// What the policy is told when it stops without having changed anything.
#[must_use]
pub fn nudge(style: Style) -> &'static str {
    match style {
        Style::Full => include_str!("prompts/full_nudge.txt").trim_end(),
        Style::Brief => include_str!("prompts/brief_nudge.txt").trim_end(),
    }
}

/// What the policy is told of a call that cannot be used.
#[must_use]
pub fn malformed(style: Style, why: &str) -> String {
    let text = match style {
        Style::Full => include_str!("prompts/full_malformed.txt"),
        Style::Brief => include_str!("prompts/brief_malformed.txt"),
    };
    text.trim_end().replacen("{why}", why, 1)
}
