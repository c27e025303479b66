//! The turns of an episode: what the policy wrote, what its tools answered, the change it made, what
//! that earned.

use crrl_types::{Stop, ToolRecord, Trajectory};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::tokens::{self, Brush};
use super::{Palette, wrap};
use crate::pieces::{self, Piece, Pieces};
use crate::state::transcript::{Fate, Journal, Left, LiveCall, Paint};
use crate::text;
use crate::units::{age, figure};

/// Lines of one output that are shown while the episode is under way; it is uncut there.
const LIVE_LINES_MAX: usize = 200;

/// An episode under way, as far as it is durable.
#[must_use]
pub fn live(journal: &Journal, width: usize, paint: Paint, palette: Palette) -> Vec<Line<'static>> {
    let all = || journal.turns.iter().flat_map(|turn| &turn.tokens.pieces);
    let brush = brush(all(), None, paint, palette);
    let mut lines = Vec::new();
    if journal.entries > 0 {
        lines.push(brush.legend());
    }
    if journal.forgotten > 0 {
        let says = format!(" the first {} turns are not kept here", journal.forgotten);
        lines.push(Line::styled(says, palette.quiet));
    }
    let note = journal.turns.iter().find_map(|turn| turn.tokens.note.as_deref());
    lines.extend(noted(note, width, palette));
    for (at, turn) in journal.turns.iter().enumerate() {
        let count = turn.tokens.pieces.len() + turn.tokens.left_out;
        let stop = match turn.stop {
            Stop::EndOfTurn => "",
            Stop::Text => "   stopped at a text",
            Stop::Length => "   cut: it used up its tokens",
        };
        let rest = format!("   {count} tokens{}{stop}", mean(mean_of(&turn.tokens)));
        lines.extend(turn_head(journal.forgotten + at + 1, &rest, palette));
        push_tokens(&mut lines, Some(&turn.tokens), &turn.text, width, &brush);
        turn.calls.iter().for_each(|call| push_live(&mut lines, call, width, palette));
    }
    if let Some(change) = &journal.change {
        push_change(&mut lines, change, width, palette);
    }
    lines
}

/// An episode that is over.
#[must_use]
pub fn left(left: &Left, width: usize, paint: Paint, palette: Palette) -> Vec<Line<'static>> {
    let trajectory = &left.trajectory;
    let all = || left.tokens.iter().flatten().flat_map(|turn| &turn.pieces);
    let brush = brush(all(), left.advantage, paint, palette);
    let mut lines = earned(left, palette);
    lines.push(brush.legend());
    let note = left.tokens.iter().flatten().find_map(|turn| turn.note.as_deref());
    lines.extend(noted(note, width, palette));
    let means = pieces::means(trajectory);
    for (at, turn) in trajectory.turns.iter().enumerate() {
        let mean = mean(means.as_ref().and_then(|means| means.get(at)).copied());
        lines.extend(turn_head(at + 1, &format!("   {} tokens{mean}", turn.tokens), palette));
        let tokens = left.tokens.get(at).and_then(Option::as_ref);
        push_tokens(&mut lines, tokens, &turn.text, width, &brush);
        turn.tools.iter().for_each(|tool| push_tool(&mut lines, tool, width, palette));
    }
    push_change(&mut lines, &trajectory.diff, width, palette);
    lines
}

fn brush<'a>(
    pieces: impl Iterator<Item = &'a Piece>,
    advantage: Option<f64>,
    paint: Paint,
    palette: Palette,
) -> Brush {
    let mut versions: Vec<u64> = pieces.filter_map(|piece| piece.version).collect();
    versions.sort_unstable();
    versions.dedup();
    Brush { paint, versions, advantage, palette }
}

fn noted(note: Option<&str>, width: usize, palette: Palette) -> Vec<Line<'static>> {
    let Some(note) = note else { return Vec::new() };
    let note = text::plain(note, 400);
    wrap(&note, width)
        .into_iter()
        .map(|line| Line::styled(format!(" {line}"), palette.warn))
        .collect()
}

fn mean(logprob: Option<f32>) -> String {
    logprob.map_or_else(String::new, |mean| format!("   log-probability {mean:.3} a token"))
}

fn mean_of(tokens: &Pieces) -> Option<f32> {
    let known: Vec<f32> = tokens.pieces.iter().filter_map(|piece| piece.logprob).collect();
    (!known.is_empty()).then(|| known.iter().sum::<f32>() / known.len() as f32)
}

fn turn_head(number: usize, rest: &str, palette: Palette) -> [Line<'static>; 2] {
    let title = Line::from(vec![
        Span::styled(format!(" TURN {number}"), palette.accent),
        Span::styled(rest.to_owned(), palette.quiet),
    ]);
    [Line::raw(""), title]
}

/// Token by token where tokens have a text, as it was decoded where not.
fn push_tokens(
    lines: &mut Vec<Line<'static>>,
    tokens: Option<&Pieces>,
    said: &str,
    width: usize,
    brush: &Brush,
) {
    let palette = brush.palette;
    match tokens.filter(|tokens| tokens.note.is_none()) {
        Some(tokens) => {
            lines.extend(tokens::lines(tokens, width, brush));
            if tokens.left_out > 0 {
                let says = format!("   … and {} more tokens", tokens.left_out);
                lines.push(Line::styled(says, palette.quiet));
            }
        }
        None => push_text(lines, &text::lines(said), width, |_| palette.text),
    }
}

fn earned(left: &Left, palette: Palette) -> Vec<Line<'static>> {
    let trajectory = &left.trajectory;
    let Trajectory { reward, finish, wall_ms, temperature, .. } = trajectory;
    let (word, style) =
        if reward.success { ("solved", palette.good) } else { ("not solved", palette.warn) };
    let mut lines = vec![Line::from(vec![
        Span::raw(format!(" reward {:.3}   ", reward.total)),
        Span::styled(word, style),
        Span::styled(
            format!("   ended: {finish:?}   took {}   temperature {temperature}", age(*wall_ms)),
            palette.quiet,
        ),
    ])];
    let quiet = |text: String| Line::styled(format!("   {text}"), palette.quiet);
    let parts: Vec<String> = reward
        .components
        .iter()
        .map(|part| {
            let name = text::plain(&part.name, 32);
            format!("{name} {:.3} x {}", part.value, figure(part.weight))
        })
        .collect();
    if !parts.is_empty() {
        lines.push(quiet(parts.join("   ")));
    }
    if let Some(advantage) = left.advantage {
        // Of a group of which some are still out it changes as they come back.
        let so_far = if left.is_final { "" } else { " so far" };
        let says = format!("advantage {advantage:+.3} among {} attempts{so_far}", left.scored);
        lines.push(quiet(says));
    }
    let adapters: Vec<String> = trajectory
        .adapters
        .iter()
        .map(|span| format!("v{} {} tokens", span.version, span.end.saturating_sub(span.start)))
        .collect();
    let tokens = trajectory.generated_len();
    let all = trajectory.tokens.len();
    lines.push(quiet(format!("{tokens} of {all} tokens generated: {}", adapters.join(", "))));
    if let (Some(trained), Some(oldest)) = (left.trained_at, trajectory.oldest_version()) {
        let stale = trained.saturating_sub(oldest.0);
        let says = format!("trained on by v{trained}: staleness {stale} at its oldest token");
        lines.push(quiet(says));
    }
    lines
}

fn push_live(lines: &mut Vec<Line<'static>>, call: &LiveCall, width: usize, palette: Palette) {
    let (sign, style) = match &call.fate {
        Fate::Waiting => ("◌", palette.accent),
        Fate::Answered { ok: true, .. } => ("▸", palette.accent),
        Fate::Answered { .. } | Fate::Refused(_) => ("✕", palette.warn),
    };
    push_call(lines, sign, &call.name, &call.arguments, width, style);
    match &call.fate {
        Fate::Waiting => lines.push(Line::styled("     it is being carried out", palette.quiet)),
        Fate::Refused(why) => {
            let why = format!("not carried out: {}", text::plain(why, 400));
            push_text(lines, &[why], width, |_| palette.warn);
        }
        Fate::Answered { output, wall_ms, .. } => {
            lines.push(Line::styled(format!("     {}", age(*wall_ms)), palette.quiet));
            let mut shown = text::lines(output);
            let more = shown.len().saturating_sub(LIVE_LINES_MAX);
            if more > 0 {
                shown.truncate(LIVE_LINES_MAX);
                shown.push(format!("… and {more} more lines"));
            }
            push_text(lines, &shown, width.saturating_sub(2), |_| palette.quiet);
        }
    }
}

fn push_tool(lines: &mut Vec<Line<'static>>, tool: &ToolRecord, width: usize, palette: Palette) {
    let (sign, style) = if tool.ok { ("▸", palette.accent) } else { ("✕", palette.warn) };
    push_call(lines, sign, &tool.name, &tool.arguments, width, style);
    lines.push(Line::styled(format!("     {}", age(tool.wall_ms)), palette.quiet));
    push_text(lines, &text::lines(&tool.output), width.saturating_sub(2), |_| palette.quiet);
}

fn push_call(
    lines: &mut Vec<Line<'static>>,
    sign: &str,
    name: &str,
    arguments: &str,
    width: usize,
    style: Style,
) {
    let name = if name.is_empty() { "(no tool could be read)" } else { name };
    let call = format!("{sign} {} {}", text::plain(name, 64), text::plain(arguments, 400));
    for line in wrap(&call, width) {
        lines.push(Line::styled(format!("   {line}"), style));
    }
}

fn push_change(lines: &mut Vec<Line<'static>>, diff: &str, width: usize, palette: Palette) {
    lines.push(Line::raw(""));
    lines.push(Line::styled(" CHANGE", palette.accent));
    if diff.is_empty() {
        lines.push(Line::styled("   it changed nothing", palette.quiet));
    }
    push_text(lines, &text::lines(diff), width, |line| match line.as_bytes().first() {
        Some(b'+') => palette.good,
        Some(b'-') => palette.bad,
        Some(b'@') => palette.accent,
        _ => palette.text,
    });
}

fn push_text(
    lines: &mut Vec<Line<'static>>,
    said: &[String],
    width: usize,
    style: impl Fn(&str) -> Style,
) {
    for line in said {
        let style = style(line);
        for part in wrap(line, width) {
            lines.push(Line::styled(format!("   {part}"), style));
        }
    }
}
