//! Screen 1: nodes, how far the run is, who waits for whom.

use crrl_cluster::Progress;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::grid::{Cell, Column, Grid, width_of};
use super::{Palette, Scene, empty};
use crate::diagnose::diagnose;
use crate::state::nodes::{NodeRow, Standing};
use crate::state::{App, World};
use crate::text::plain;
use crate::units::{self, age, bytes, count, round_trip, skew};

/// Lines the state of the run takes.
const RUN_LINES: u16 = 6;
/// A clock that is further from the coordinator's than this is far from it, milliseconds.
const SKEW_FAR_MS: f64 = 1_000.0;

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let world = scene.world;
    let Some(progress) = world.progress() else {
        app.settle(0, 0);
        let says = "The coordinator has not answered yet. It is dialled again until it does; a cluster \
                    that starts takes a few seconds.";
        return empty(frame, area, scene, says);
    };
    let nodes = u16::try_from(world.nodes().len()).unwrap_or(u16::MAX).saturating_add(2);
    let is_tall = area.height > nodes.min(area.height) + RUN_LINES;
    let run = if area.height >= 12 { RUN_LINES } else { 0 };
    let [top, middle, bottom] = Layout::vertical([
        if is_tall { Constraint::Length(nodes) } else { Constraint::Min(2) },
        Constraint::Length(run),
        if is_tall { Constraint::Min(0) } else { Constraint::Length(0) },
    ])
    .areas(area);
    table(frame, top, app, scene);
    for (y, line) in (middle.y..middle.bottom()).zip(run_lines(progress, scene)) {
        frame.render_widget(line, Rect { y, height: 1, ..middle });
    }
    last_lines(frame, bottom, progress, scene);
}

fn table(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let (nodes, palette) = (scene.world.nodes(), scene.palette);
    app.settle(nodes.len(), Grid::page(area));
    if nodes.is_empty() {
        return empty(
            frame,
            area,
            scene,
            "No node has joined yet; the coordinator waits for them.",
        );
    }
    let gpus: Vec<String> = nodes.iter().map(|node| units::gpus(&node.gpus)).collect();
    let gpu = width_of(gpus.iter().map(String::as_str), 3, 34);
    let columns = [
        Column::text("NODE", width_of(nodes.iter().map(|n| n.name.as_str()), 11, 24)).kept(),
        Column::text("STATE", 10).kept(),
        Column::text("ROLE", width_of(nodes.iter().map(|n| n.roles.as_str()), 11, 24)),
        Column::number("VERSION", 7),
        Column::number("TOK/s", 6),
        Column::number("CPU%", 5),
        Column::number("RSS", 8),
        Column::number("REPORT", 6),
        Column::number("RST", 3),
        Column::text("DOING", 24).flexible(16),
        Column::text("GPU", gpu).least(16),
        Column::number("RTT p50/p99", 12),
        Column::number("SKEW", 7),
        Column::text("BUILD", 8),
        Column::number("ACTORS", 6),
    ];
    let grid = Grid { columns: &columns, sorted: None, palette };
    let list = app.list();
    let drawn =
        grid.draw(frame, area, Some(&list), nodes.len(), |at| node_row(&nodes[at], palette));
    drawn.register(&mut app.spots, |_| None);
}

fn node_row(node: &NodeRow, palette: Palette) -> (Vec<Cell>, Option<Style>) {
    let dash = || "-".to_owned();
    let style = match node.state {
        Standing::Ready => palette.good,
        Standing::Starting | Standing::Silent => palette.warn,
        Standing::Draining | Standing::Suspended => palette.warn,
        Standing::Left => palette.quiet,
        Standing::Lost | Standing::Restarting | Standing::GivenUp => palette.bad,
    };
    let is_stale = node.is_stale();
    let restarts = node.restarts.map_or_else(dash, |n| n.to_string());
    let report = node.age_ms.map_or_else(dash, age);
    let doing = match &node.last_exit {
        Some(exit) if node.state == Standing::Left => exit.clone(),
        Some(exit) if node.is_down() => format!("{} [{exit}]", node.activity),
        _ => node.activity.clone(),
    };
    let cells = vec![
        node.name.as_str().into(),
        Cell::new(node.state.word(), style),
        node.roles.as_str().into(),
        node.adapter.map_or_else(dash, |version| format!("v{version}")).into(),
        node.tokens_per_s.filter(|v| *v > 0.0).map_or_else(dash, count).into(),
        node.cpu_percent.map_or_else(dash, |percent| format!("{percent:.0}")).into(),
        node.rss_bytes.map_or_else(dash, bytes).into(),
        Cell::new(report, palette.quiet),
        Cell::new(restarts, if node.restarts > Some(0) { palette.warn } else { palette.text }),
        doing.into(),
        units::gpus(&node.gpus).into(),
        round_trip(node.rtt_p50_ms, node.rtt_p99_ms).into(),
        Cell::new(node.clock_skew_ms.map_or_else(dash, skew), far(node, palette)),
        node.build.clone().unwrap_or_else(dash).into(),
        if node.actors == 0 { dash() } else { node.actors.to_string() }.into(),
    ];
    (cells, (is_stale && !node.is_down()).then_some(palette.quiet))
}

/// A clock that is far from the coordinator's stands out: what a node writes down bears its time.
fn far(node: &NodeRow, palette: Palette) -> Style {
    let is_far = node.clock_skew_ms.is_some_and(|ms| ms.abs() > SKEW_FAR_MS);
    if is_far { palette.warn } else { palette.text }
}

fn run_lines(progress: &Progress, scene: &Scene<'_>) -> Vec<Line<'static>> {
    let palette = scene.palette;
    let label = |text: &'static str| Span::styled(format!(" {text:<9}"), palette.quiet);
    let phase = plain(&progress.phase, 80);
    let since = age(scene.world.phase_ms());
    let counts = progress.episodes;
    let last = progress.history.back();
    let solved = last.map_or_else(
        || "the first step has not been made yet".to_owned(),
        |p| format!("reward {:.3}   solved {:.0} %   step {}", p.reward, 100.0 * p.success, p.step),
    );
    let failed = if counts.failed > 0 { palette.warn } else { palette.text };
    vec![
        Line::from(vec![
            label("run"),
            Span::styled(phase, palette.accent),
            Span::styled(format!("   for {since}{}   ", or_more(scene.world)), palette.quiet),
            Span::styled(bar(progress.step, progress.steps), palette.accent),
            Span::raw(format!(
                " {}/{} steps   v{}",
                progress.step, progress.steps, progress.adapter_version
            )),
        ]),
        Line::from(vec![
            label("episodes"),
            Span::raw(format!(
                "{} out   {} back   {} trained on   {} dropped   ",
                counts.in_flight, counts.finished, counts.trained, counts.dropped
            )),
            Span::styled(format!("{} failed", counts.failed), failed),
        ]),
        Line::from(vec![label("policy"), Span::raw(solved)]),
        Line::from(vec![label("waits"), Span::raw(waits(progress, scene.world))]),
        Line::from(vec![label("wrong"), wrong(scene)]),
    ]
}

/// The worst finding; `d` tells all.
fn wrong(scene: &Scene<'_>) -> Span<'static> {
    let verdict = diagnose(scene.world);
    match verdict.findings.as_slice() {
        [] => Span::styled("nothing", scene.palette.good),
        [one] => Span::styled(one.says.clone(), scene.palette.bad),
        [first, ..] => {
            let says = format!("{} (d: {} more)", first.says, verdict.found - 1);
            Span::styled(says, scene.palette.bad)
        }
    }
}

/// What is said of ages that count from when somebody began to look.
fn or_more(world: &World) -> &'static str {
    if world.tells_ages() { "" } else { " or more" }
}

/// Who waits for whom.
#[must_use]
pub fn waits(progress: &Progress, world: &World) -> String {
    let (since, more) = (age(world.phase_ms()), or_more(world));
    let mut said = Vec::new();
    if let Some((_, what)) = progress.phase.split_once("waiting for ") {
        said.push(format!("rollouts wait for {}, for {since}{more}", plain(what, 60)));
    }
    for node in world.nodes().iter().filter(|n| n.activity.starts_with("waiting")) {
        let since = age(node.activity_ms);
        said.push(format!("{} is {}, for {since}{more}", node.name, node.activity));
    }
    if said.is_empty() { "nobody waits for anybody".to_owned() } else { said.join("; ") }
}

fn bar(done: u64, all: u64) -> String {
    const WIDTH: u64 = 20;
    let filled = (done.min(all) * WIDTH).checked_div(all).unwrap_or(0) as usize;
    format!("{}{}", "━".repeat(filled), "╌".repeat(WIDTH as usize - filled))
}

fn last_lines(frame: &mut Frame<'_>, area: Rect, progress: &Progress, scene: &Scene<'_>) {
    if area.height < 2 {
        return;
    }
    let head = Line::styled(" LAST EPISODES", scene.palette.quiet);
    frame.render_widget(head, Rect { height: 1, ..area });
    let room = usize::from(area.height - 1);
    if progress.lines.is_empty() {
        return empty(frame, super::below(area, 1), scene, "None has come back yet.");
    }
    let skip = progress.lines.len().saturating_sub(room);
    for (y, line) in (area.y + 1..area.bottom()).zip(progress.lines.iter().skip(skip)) {
        let text = plain(line, usize::from(area.width).saturating_sub(2));
        let line = Line::styled(format!(" {text}"), scene.palette.text);
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}
