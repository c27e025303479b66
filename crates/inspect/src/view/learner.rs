//! Screen 7: curves of the training.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Chart, Dataset, GraphType};

use super::{Scene, empty};
use crate::state::App;
use crate::units::figure;

/// A curve is at least this wide and this high.
const CURVE_SIZE: (u16, u16) = (38, 8);

/// A number of every step: title, name in the store.
const METRICS: [(&str, &str); 12] = [
    ("loss", "loss"),
    ("KL (k3)", "kl_k3"),
    ("entropy, nats", "entropy"),
    ("clipped at the upper bound", "clip_high"),
    ("clipped at the lower bound", "clip_low"),
    ("gradient norm", "grad_norm"),
    ("tokens/s", "tokens_per_s"),
    ("gap to the sampler, mean", "gap_mean"),
    ("gap to the sampler, worst", "gap_max"),
    ("staleness, largest", "staleness_max"),
    ("learner waited, s", "learner_waited_s"),
    ("learning rate", "learning_rate"),
];

struct Curve {
    title: &'static str,
    points: Vec<(f64, f64)>,
}

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let curves = curves(app, scene);
    if curves.is_empty() {
        let says = "No optimizer step has been made yet; the curves begin with the first.";
        (app.len, app.page) = (0, 1);
        return empty(frame, area, scene, says);
    }
    if area.height < 4 || area.width < 16 {
        return numbers(frame, area, &curves, scene);
    }
    let across = usize::from((area.width / CURVE_SIZE.0).clamp(1, 4));
    let rows = curves.len().div_ceil(across);
    let down = usize::from((area.height / CURVE_SIZE.1).max(1)).min(rows);
    (app.len, app.page) = (rows, down);
    let list = app.list_mut();
    list.offset = list.offset.min(rows.saturating_sub(down));
    let shown = curves.chunks(across).skip(list.offset);
    let bands = Layout::vertical(vec![Constraint::Fill(1); down]).split(area);
    for (band, curves) in bands.iter().zip(shown) {
        let cells = Layout::horizontal(vec![Constraint::Fill(1); across]).spacing(2).split(*band);
        for (cell, curve) in cells.iter().zip(curves) {
            draw_curve(frame, *cell, curve, scene);
        }
    }
}

fn curves(app: &App, scene: &Scene<'_>) -> Vec<Curve> {
    let history = scene.world.progress().map(|progress| &progress.history);
    let of = |value: fn(&crrl_cluster::board::RewardPoint) -> f64| {
        history.into_iter().flatten().map(|p| (p.step as f64, value(p))).collect::<Vec<_>>()
    };
    let mut curves = vec![
        Curve { title: "reward", points: of(|point| point.reward) },
        Curve { title: "solved", points: of(|point| point.success) },
    ];
    // The board keeps the last points, and a run that is not up has none: the store has all of them.
    if scene.world.progress().is_none() {
        for (curve, name) in curves.iter_mut().zip(["attempt_reward_mean", "attempt_success_rate"])
        {
            curve.points = stored(app, name);
        }
    }
    let last = scene.world.progress().map(|p| (p.step as f64, p.metrics.as_slice()));
    for (title, name) in METRICS {
        let mut points = stored(app, name);
        // The last step is on the board before the store was read again.
        if let Some((step, metrics)) = last
            && points.last().is_none_or(|(held, _)| *held < step)
            && let Some(value) = value(metrics, name)
        {
            points.push((step, value));
        }
        points.retain(|(_, value)| value.is_finite());
        curves.push(Curve { title, points });
    }
    curves.retain(|curve| !curve.points.is_empty());
    curves
}

/// A number of every step in the store.
fn stored(app: &App, name: &str) -> Vec<(f64, f64)> {
    let steps = app.archive.steps.iter();
    steps.filter_map(|row| Some((row.step.0 as f64, value(&row.metrics, name)?))).collect()
}

fn value(list: &[(String, f64)], name: &str) -> Option<f64> {
    list.iter().find(|(held, _)| held == name).map(|(_, value)| *value)
}

/// Where there is no room for curves: the last number of each.
fn numbers(frame: &mut Frame<'_>, area: Rect, curves: &[Curve], scene: &Scene<'_>) {
    for (y, curve) in (area.y..area.bottom()).zip(curves) {
        let line = Line::from(vec![
            Span::styled(format!(" {} ", curve.title), scene.palette.quiet),
            Span::raw(figure(curve.points.last().map_or(0.0, |(_, value)| *value))),
        ]);
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}

fn draw_curve(frame: &mut Frame<'_>, area: Rect, curve: &Curve, scene: &Scene<'_>) {
    let palette = scene.palette;
    let values = curve.points.iter().map(|(_, value)| *value);
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let (from, to) = match (curve.points.first(), curve.points.last()) {
        (Some((from, _)), Some((to, _))) => (*from, *to),
        _ => return,
    };
    let last = curve.points.last().map_or(0.0, |(_, value)| *value);
    let title = Line::from(vec![
        Span::styled(format!(" {}  ", curve.title), palette.quiet),
        Span::styled(figure(last), palette.strong),
    ]);
    frame.render_widget(title, Rect { height: 1, ..area });
    // A line that does not move is drawn in the middle.
    let margin = if high > low { 0.0 } else { low.abs().max(1.0) * 0.5 };
    let (low, high) = (low - margin, high + margin);
    let data = Dataset::default()
        .marker(if curve.points.len() == 1 { Marker::Dot } else { Marker::Braille })
        .graph_type(GraphType::Line)
        .style(palette.accent)
        .data(&curve.points);
    let label = |text: String| Span::styled(text, palette.quiet);
    let chart = Chart::new(vec![data])
        .x_axis(
            Axis::default()
                .bounds([from, to.max(from + 1.0)])
                .style(palette.quiet)
                .labels([label(format!("{from:.0}")), label(format!("step {to:.0}"))]),
        )
        .y_axis(
            Axis::default()
                .bounds([low, high])
                .style(palette.quiet)
                // As wide for every curve, so that all of them begin at the same column.
                .labels([
                    label(format!("{:>7}", figure(low))),
                    label(format!("{:>7}", figure(high))),
                ]),
        );
    frame.render_widget(chart, super::below(area, 1));
}
