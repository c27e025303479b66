//! The live screen: draws [`Progress`], and puts the terminal back as it was, whatever happens.

use std::io::{self, Stderr};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyModifiers};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, terminal};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Axis, Block, Borders, Cell, Chart, Dataset, Gauge, GraphType, Paragraph, Row, Table, Wrap,
};
use ratatui::{Frame, Terminal, backend::CrosstermBackend};

use super::progress::{Progress, clock, plain};

/// Colours, or none of them where `NO_COLOR` is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Palette {
    accent: Style,
    good: Style,
    quiet: Style,
    strong: Style,
}

impl Palette {
    pub(crate) fn new(colour: bool) -> Self {
        let style = |c: Color| if colour { Style::new().fg(c) } else { Style::new() };
        Self {
            accent: style(Color::Cyan),
            good: style(Color::Green),
            quiet: style(Color::DarkGray),
            strong: Style::new().add_modifier(Modifier::BOLD),
        }
    }
}

/// The terminal while it is ours.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    palette: Palette,
}

impl Screen {
    /// Takes the terminal over.
    pub(crate) fn open(colour: bool) -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        execute!(io::stderr(), EnterAlternateScreen, cursor::Hide)?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        let terminal = Terminal::new(CrosstermBackend::new(io::stderr()))?;
        Ok(Self { terminal, palette: Palette::new(colour) })
    }

    /// Draws; `true` if the person asked to stop (q, Esc or Ctrl-C).
    pub(crate) fn show(&mut self, progress: &Progress) -> io::Result<bool> {
        let palette = self.palette;
        self.terminal.draw(|frame| draw(frame, progress, palette))?;
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()? {
                let control_c =
                    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back. Nothing can be done where that fails: it is gone.
fn restore() {
    let _ = terminal::disable_raw_mode();
    let _ = execute!(io::stderr(), LeaveAlternateScreen, cursor::Show);
}

/// Draws the whole screen.
pub(crate) fn draw(frame: &mut Frame<'_>, progress: &Progress, palette: Palette) {
    let nodes_height = u16::try_from(progress.nodes.len()).unwrap_or(8).min(8) + 3;
    let [head, gauge, curve, nodes, episode, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(6),
        Constraint::Length(nodes_height),
        Constraint::Percentage(32),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, progress, palette);
    draw_gauge(frame, gauge, progress, palette);
    draw_curve(frame, curve, progress, palette);
    draw_nodes(frame, nodes, progress, palette);
    draw_episode(frame, episode, progress, palette);
    let foot_text = if progress.notice.is_empty() {
        format!("{}   q stops (resumable)", progress.run_dir)
    } else {
        plain(&progress.notice)
    };
    frame.render_widget(Paragraph::new(foot_text).style(palette.quiet), foot);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, progress: &Progress, palette: Palette) {
    let mut spans = vec![
        Span::styled(progress.title.clone(), palette.strong),
        Span::raw("  "),
        Span::styled(progress.phase.clone(), palette.accent),
        Span::raw(format!("  {}", clock(progress.elapsed))),
    ];
    if let Some(reward) = progress.recent_reward() {
        spans.push(Span::raw("   reward "));
        spans.push(Span::styled(format!("{reward:.3}"), palette.good));
    }
    if let Some((_, solved)) = progress.success.last() {
        spans.push(Span::raw("   solved "));
        spans.push(Span::styled(format!("{:.0} %", 100.0 * solved), palette.good));
    }
    if let Some(left) = progress.time_left() {
        spans.push(Span::styled(format!("   about {} left", clock(left)), palette.quiet));
    }
    frame.render_widget(Line::from(spans), area);
}

fn draw_gauge(frame: &mut Frame<'_>, area: Rect, progress: &Progress, palette: Palette) {
    let (done, total, unit) = if progress.phase.starts_with("train") {
        (progress.step, progress.steps, "steps")
    } else {
        (progress.episodes.0, progress.episodes.1, "episodes")
    };
    #[expect(clippy::cast_precision_loss, reason = "a share for a gauge")]
    let share = if total == 0 { 0.0 } else { (done as f64 / total as f64).min(1.0) };
    let label = format!("{done}/{total} {unit}");
    frame.render_widget(
        Gauge::default().gauge_style(palette.accent).ratio(share).label(label),
        area,
    );
}

fn draw_curve(frame: &mut Frame<'_>, area: Rect, progress: &Progress, palette: Palette) {
    let block = Block::new().borders(Borders::TOP).title(" reward and solved, by step ");
    if progress.reward.is_empty() {
        let text = Paragraph::new("the curve begins with the first optimizer step")
            .style(palette.quiet)
            .block(block);
        frame.render_widget(text, area);
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "steps are far below 2^52")]
    let end = (progress.steps.max(1)) as f64;
    let both = progress.reward.iter().chain(&progress.success).map(|point| point.1);
    let (low, high) = both.fold((1.0_f64, 0.0_f64), |(l, h), y| (l.min(y), h.max(y)));
    let (low, high) = ((low - 0.05).max(0.0), (high + 0.05).min(1.0));
    let line = |name: &'static str, points, style| {
        Dataset::default()
            .name(name)
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(style)
            .data(points)
    };
    let chart = Chart::new(vec![
        line("reward", &progress.reward, palette.accent),
        line("solved", &progress.success, palette.good),
    ])
    .block(block)
    .x_axis(Axis::default().bounds([0.0, end]).labels(["0".to_owned(), progress.steps.to_string()]))
    .y_axis(
        Axis::default().bounds([low, high]).labels([format!("{low:.2}"), format!("{high:.2}")]),
    );
    frame.render_widget(chart, area);
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, progress: &Progress, palette: Palette) {
    let header = Row::new(["NODE", "ROLE", "STATE", "ADAPTER", "TOK/S", "RST", "DOING"])
        .style(palette.quiet);
    let rows = progress.nodes.iter().map(|node| {
        let state = if node.state == "ready" { palette.good } else { palette.strong };
        Row::new([
            Cell::from(node.name.clone()),
            Cell::from(node.role.clone()),
            Cell::from(Span::styled(node.state.clone(), state)),
            Cell::from(format!("v{}", node.adapter_version)),
            Cell::from(format!("{:>6.0}", node.tokens_per_s)),
            Cell::from(node.restarts.to_string()),
            Cell::from(plain(&node.activity)),
        ])
    });
    let widths = [
        Constraint::Length(12),
        Constraint::Length(18),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(4),
        Constraint::Min(10),
    ];
    let block = Block::new().borders(Borders::TOP).title(" cluster ");
    frame.render_widget(Table::new(rows, widths).header(header).block(block), area);
}

fn draw_episode(frame: &mut Frame<'_>, area: Rect, progress: &Progress, palette: Palette) {
    let lines: Vec<Line<'_>> = progress
        .episode
        .iter()
        .map(|line| {
            let style = if line.starts_with('>') { palette.accent } else { Style::new() };
            Line::styled(line.clone(), style)
        })
        .collect();
    let block = Block::new().borders(Borders::TOP).title(" an episode ");
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::display::NodeLine;

    fn drawn(width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("in memory");
        let progress = Progress {
            title: "crrl quickstart".into(),
            phase: "train".into(),
            step: 2,
            steps: 10,
            reward: vec![(1.0, 0.4), (2.0, 0.5)],
            success: vec![(1.0, 0.2), (2.0, 0.25)],
            nodes: vec![NodeLine {
                name: "rollout-0".into(),
                role: "rollout".into(),
                state: "ready".into(),
                adapter_version: 2,
                tokens_per_s: 1234.0,
                restarts: 0,
                activity: "16 episodes".into(),
            }],
            episode: vec!["> shell grep -n foo".into(), "12:def foo():".into()],
            ..Progress::default()
        };
        terminal.draw(|frame| draw(frame, &progress, Palette::new(false))).expect("in memory");
        let buffer = terminal.backend().buffer().clone();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        (0..height).map(|y| row(y) + "\n").collect()
    }

    #[test]
    fn everything_a_run_is_judged_by_is_on_the_screen() {
        let screen = drawn(100, 30);
        for text in
            ["crrl quickstart", "2/10 steps", "rollout-0", "v2", "1234", "grep -n foo", "25 %"]
        {
            assert!(screen.contains(text), "{text} is missing from\n{screen}");
        }
    }

    #[test]
    fn a_tiny_terminal_is_survived() {
        for (width, height) in [(1, 1), (20, 5), (80, 3)] {
            drawn(width, height);
        }
    }
}
