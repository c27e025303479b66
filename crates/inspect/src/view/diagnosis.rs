//! What is wrong, in plain words (`d`).

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Scene, scroll, wrap};
use crate::diagnose::diagnose;
use crate::state::App;

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, area: Rect, app: &mut App, scene: &Scene<'_>) {
    let palette = scene.palette;
    let verdict = diagnose(scene.world);
    let width = usize::from(area.width).saturating_sub(6);
    let mut lines = match (scene.world.frame(), verdict.found) {
        (None, 0) => vec![Line::styled(" Nothing has come from the cluster yet.", palette.warn)],
        (_, 0) => vec![Line::styled(" Healthy: no rule is broken.", palette.good)],
        (_, 1) => vec![Line::styled(" One thing is wrong.", palette.bad)],
        (_, many) => vec![Line::styled(format!(" {many} things are wrong."), palette.bad)],
    };
    lines.push(Line::styled(format!(" Looked at: {}.", verdict.looked_at), palette.quiet));
    for finding in &verdict.findings {
        lines.push(Line::raw(""));
        for (at, text) in wrap(&finding.says, width).into_iter().enumerate() {
            let bullet = if at == 0 { " ✕ " } else { "   " };
            lines.push(Line::from(vec![Span::styled(bullet, palette.bad), Span::raw(text)]));
        }
    }
    if let Some(says) = verdict.left_out() {
        lines.push(Line::raw(""));
        lines.push(Line::styled(format!(" {says}."), palette.quiet));
    }
    scroll(frame, area, app, &lines);
}
