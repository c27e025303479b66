//! One episode: turn by turn what the policy wrote and what its tools answered, the change it made,
//! what that earned.

use crrl_store::EpisodeRow;
use crrl_types::{Trajectory, Turn};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Palette, Scene, empty, scroll, wrap};
use crate::state::App;
use crate::state::episodes::LiveRow;
use crate::text;
use crate::units::{age, figure};

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let Some(opened) = app.opened.clone() else {
        return empty(frame, area, scene, "No episode was opened: Enter opens one in 6.");
    };
    let width = usize::from(area.width).saturating_sub(4).max(8);
    let palette = scene.palette;
    let live = scene.world.live().iter().find(|row| row.episode == opened.episode);
    let over = app.archive.over.iter().find(|row| row.episode.0 == opened.episode);
    let mut lines = head(opened.episode, live, over, palette);
    match &opened.transcript {
        Some(Ok(Some(trajectory))) => lines.extend(transcript(trajectory, width, palette)),
        Some(Err(error)) => {
            let says = format!("The run store cannot be read: {error}");
            lines.extend(said(&says, width, palette.bad));
        }
        _ if live.is_some() => {
            let says = "Its transcript is in the run store once it is over; until then its node tells \
                        what it is at.";
            lines.extend(said(says, width, palette.quiet));
        }
        None if app.is_replay => {
            let says = "A recording does not hold transcripts.";
            lines.extend(said(says, width, palette.quiet));
        }
        None => lines.push(Line::styled(" reading the run store …", palette.quiet)),
        Some(Ok(None)) => {
            let says = "It left no transcript: it failed, or is waiting to be handed out again.";
            lines.extend(said(says, width, palette.quiet));
        }
    }
    scroll(frame, area, app, &lines);
}

fn said(says: &str, width: usize, style: Style) -> Vec<Line<'static>> {
    let shown = text::plain(says, 400);
    wrap(&shown, width).into_iter().map(|line| Line::styled(format!(" {line}"), style)).collect()
}

fn head(
    episode: u64,
    live: Option<&LiveRow>,
    over: Option<&EpisodeRow>,
    palette: Palette,
) -> Vec<Line<'static>> {
    let title = |rest: String| {
        Line::from(vec![
            Span::styled(format!(" episode {episode}"), palette.strong),
            Span::styled(rest, palette.quiet),
        ])
    };
    let mut lines = Vec::new();
    if let Some(row) = live {
        lines.push(title(format!("  {}  in {}  group {}", row.task, row.node, row.group)));
        lines.push(Line::from(vec![
            Span::styled(" live", palette.accent),
            Span::raw(format!(
                "   turn {}   {} calls   for {}   adapter v{}, {} behind",
                row.turns,
                row.calls,
                age(row.age_ms),
                row.version,
                row.behind
            )),
        ]));
        let style = if row.hangs() { palette.warn } else { palette.text };
        let doing = format!(" at {}, for {}", row.doing, age(row.idle_ms));
        lines.push(Line::styled(doing, style));
    } else if let Some(row) = over {
        let node = row.node.as_ref().map_or_else(String::new, |node| format!("  in {node}"));
        let task = text::plain(row.task.as_str(), 200);
        lines.push(title(format!("  {task}{}  group {}", text::plain(&node, 64), row.group)));
        let step = row.step.map_or_else(String::new, |step| format!("   step {step}"));
        let reason = row
            .reason
            .as_deref()
            .map_or_else(String::new, |reason| format!("   {}", text::plain(reason, 200)));
        let state = text::plain(&row.state, 16);
        lines.push(Line::raw(format!(" {state}   attempt {}{step}{reason}", row.attempt)));
    } else {
        lines.push(title(String::new()));
    }
    lines.push(Line::raw(""));
    lines
}

fn transcript(trajectory: &Trajectory, width: usize, palette: Palette) -> Vec<Line<'static>> {
    let mut lines = reward(trajectory, palette);
    let logprobs = turn_logprobs(trajectory);
    for (at, turn) in trajectory.turns.iter().enumerate() {
        let logprob = logprobs.as_ref().and_then(|means| means.get(at));
        let mean = logprob
            .map_or_else(String::new, |mean| format!("   log-probability {mean:.3} a token"));
        lines.push(Line::raw(""));
        lines.push(Line::from(vec![
            Span::styled(format!(" TURN {}", at + 1), palette.accent),
            Span::styled(format!("   {} tokens{mean}", turn.tokens), palette.quiet),
        ]));
        push_text(&mut lines, &turn.text, width, |_| palette.text);
        push_tools(&mut lines, turn, width, palette);
    }
    lines.push(Line::raw(""));
    lines.push(Line::styled(" CHANGE", palette.accent));
    if trajectory.diff.is_empty() {
        lines.push(Line::styled("   it changed nothing", palette.quiet));
    }
    push_text(&mut lines, &trajectory.diff, width, |line| match line.as_bytes().first() {
        Some(b'+') => palette.good,
        Some(b'-') => palette.bad,
        Some(b'@') => palette.accent,
        _ => palette.text,
    });
    lines
}

fn reward(trajectory: &Trajectory, palette: Palette) -> Vec<Line<'static>> {
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
    let parts: Vec<String> = reward
        .components
        .iter()
        .map(|part| {
            let name = text::plain(&part.name, 32);
            format!("{name} {:.3} x {}", part.value, figure(part.weight))
        })
        .collect();
    if !parts.is_empty() {
        lines.push(Line::styled(format!("   {}", parts.join("   ")), palette.quiet));
    }
    let tokens = trajectory.generated_len();
    let adapters: Vec<String> = trajectory
        .adapters
        .iter()
        .map(|span| format!("v{} {} tokens", span.version, span.end.saturating_sub(span.start)))
        .collect();
    lines.push(Line::styled(
        format!(
            "   {tokens} of {} tokens generated: {}",
            trajectory.tokens.len(),
            adapters.join(", ")
        ),
        palette.quiet,
    ));
    lines
}

/// Mean log-probability of each turn's tokens; `None` where turns and tokens do not add up.
fn turn_logprobs(trajectory: &Trajectory) -> Option<Vec<f32>> {
    let generated: Vec<f32> = trajectory
        .logprobs
        .iter()
        .zip(&trajectory.generated)
        .filter(|(_, is_generated)| **is_generated)
        .map(|(logprob, _)| *logprob)
        .collect();
    let mut rest = generated.as_slice();
    let mut means = Vec::new();
    for turn in &trajectory.turns {
        let (mine, others) = rest.split_at_checked(turn.tokens as usize)?;
        means.push(mine.iter().sum::<f32>() / mine.len().max(1) as f32);
        rest = others;
    }
    rest.is_empty().then_some(means)
}

fn push_tools(lines: &mut Vec<Line<'static>>, turn: &Turn, width: usize, palette: Palette) {
    for tool in &turn.tools {
        let (sign, style) = if tool.ok { ("▸", palette.accent) } else { ("✕", palette.warn) };
        let name = if tool.name.is_empty() { "(no tool could be read)" } else { &tool.name };
        let call =
            format!("{sign} {} {}", text::plain(name, 64), text::plain(&tool.arguments, 400));
        for line in wrap(&call, width) {
            lines.push(Line::styled(format!("   {line}"), style));
        }
        lines.push(Line::styled(format!("     {}", age(tool.wall_ms)), palette.quiet));
        push_text(lines, &tool.output, width.saturating_sub(2), |_| palette.quiet);
    }
}

fn push_text(
    lines: &mut Vec<Line<'static>>,
    said: &str,
    width: usize,
    style: impl Fn(&str) -> Style,
) {
    for line in text::lines(said) {
        let style = style(&line);
        for part in wrap(&line, width) {
            lines.push(Line::styled(format!("   {part}"), style));
        }
    }
}
