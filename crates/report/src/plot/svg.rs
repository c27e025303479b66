//! Elements of a drawing.

use std::fmt::Write as _;

use crate::text;

/// Where a text is anchored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// At its beginning.
    Start,
    /// At its middle.
    Middle,
    /// At its end.
    End,
}

/// A drawing under way. Texts are escaped here, once.
#[derive(Debug, Clone)]
pub struct Svg {
    out: String,
}

impl Svg {
    /// A drawing of this size. `description` is HTML already: it mixes escaped names and numbers.
    #[must_use]
    pub fn new(id: &str, size: (f64, f64), title: &str, description: &str) -> Self {
        let (id, title) = (text::attribute(id), text::attribute(title));
        Self {
            out: format!(
                "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
                 <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{description}</desc>",
                size.0, size.1
            ),
        }
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        self.out.write_fmt(element).expect("a string takes everything");
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.push(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    /// A line through points.
    pub fn polyline(&mut self, class: &str, points: &[(f64, f64)]) {
        let points = join(points);
        self.push(format_args!("<polyline class=\"{class}\" points=\"{points}\"/>"));
    }

    /// A filled shape; what it says when pointed at.
    pub fn polygon(&mut self, class: &str, points: &[(f64, f64)], hint: &str) {
        let (points, hint) = (join(points), hint_of(hint));
        self.push(format_args!("<polygon class=\"{class}\" points=\"{points}\">{hint}</polygon>"));
    }

    /// A circle; what it says when pointed at.
    pub fn circle(&mut self, class: &str, at: (f64, f64), r: f64, hint: &str) {
        let ((x, y), hint) = (at, hint_of(hint));
        self.push(format_args!(
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\">{hint}</circle>"
        ));
    }

    /// A rectangle; what it says when pointed at.
    pub fn rect(&mut self, class: &str, corner: (f64, f64), size: (f64, f64), hint: &str) {
        let ((x, y), (width, height), hint) = (corner, size, hint_of(hint));
        let (width, height) = (width.max(0.0), height.max(0.0));
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{height:.1}\">{hint}</rect>"
        ));
    }

    /// A text.
    pub fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, content: &str) {
        let (x, y) = at;
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let content = text::attribute(content);
        self.push(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>"
        ));
    }

    /// The whole.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.out.push_str("</svg>");
        self.out
    }
}

fn hint_of(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!("<title>{}</title>", text::attribute(hint))
    }
}

fn join(points: &[(f64, f64)]) -> String {
    let mut out = String::with_capacity(12 * points.len());
    for (x, y) in points {
        write!(out, "{x:.1},{y:.1} ").expect("a string takes everything");
    }
    out.truncate(out.trim_end().len());
    out
}
