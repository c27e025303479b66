//! What a policy wrote, token by token, each in a colour that says something of it.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Palette, place_of_break};
use crate::pieces::{Piece, Pieces};
use crate::state::transcript::Paint;
use crate::text::{self, LINE_CHARS_MAX, LINES_MAX};

/// Probabilities at which a token is taken to be less likely, from likely to not.
const LIKELY: [f32; 3] = [0.5, 0.1, 0.01];

/// How tokens are coloured.
#[derive(Debug, Clone)]
pub struct Brush {
    /// By what.
    pub paint: Paint,
    /// Versions that are told apart, in order.
    pub versions: Vec<u64>,
    /// Of the whole episode.
    pub advantage: Option<f64>,
    /// Colours.
    pub palette: Palette,
}

impl Brush {
    /// The style of a token.
    #[must_use]
    pub fn style(&self, piece: &Piece) -> Style {
        let palette = self.palette;
        match self.paint {
            Paint::Logprob => piece.logprob.map_or(palette.quiet, |logprob| {
                let p = logprob.exp();
                palette.heat[LIKELY.iter().take_while(|bound| p < **bound).count()]
            }),
            Paint::Version => piece.version.map_or(palette.quiet, |version| self.of(version)),
            Paint::Advantage => match self.advantage {
                Some(value) if value > 0.0 => palette.good,
                Some(value) if value < 0.0 => palette.bad,
                Some(_) => palette.text,
                None => palette.quiet,
            },
        }
    }

    fn of(&self, version: u64) -> Style {
        let at = self.versions.iter().position(|held| *held == version).unwrap_or(0);
        self.palette.apart[at % self.palette.apart.len()]
    }

    /// What the colours say.
    #[must_use]
    pub fn legend(&self) -> Line<'static> {
        let palette = self.palette;
        let quiet = |text: &str| Span::styled(text.to_owned(), palette.quiet);
        let mut spans = vec![quiet(&format!(" tokens by {} (c: next):  ", self.paint.name()))];
        match self.paint {
            Paint::Logprob => {
                let names = ["1/2 or more", "1/10 or more", "1/100 or more", "less likely"];
                for (name, style) in names.iter().zip(palette.heat) {
                    spans.push(Span::styled(*name, style));
                    spans.push(quiet("  "));
                }
            }
            Paint::Version => {
                for version in &self.versions {
                    spans.push(Span::styled(format!("v{version}"), self.of(*version)));
                    spans.push(quiet("  "));
                }
            }
            Paint::Advantage => spans.push(match self.advantage {
                Some(value) if value > 0.0 => {
                    Span::styled(format!("{value:+.3}, to be done more"), palette.good)
                }
                Some(value) if value < 0.0 => {
                    Span::styled(format!("{value:+.3}, to be done less"), palette.bad)
                }
                Some(_) => Span::raw("0: its group teaches nothing, all earned the same"),
                None => quiet("not known before the episode is over and was scored"),
            }),
        }
        Line::from(spans)
    }
}

/// The lines of a turn, of at most so many columns.
#[must_use]
pub fn lines(pieces: &Pieces, width: usize, brush: &Brush) -> Vec<Line<'static>> {
    let mut rows: Vec<Vec<(char, Style)>> = vec![Vec::new()];
    for piece in &pieces.pieces {
        let style = brush.style(piece);
        for (at, part) in piece.text.split('\n').enumerate() {
            if at > 0 {
                rows.push(Vec::new());
            }
            let Some(row) = rows.last_mut().filter(|row| row.len() < LINE_CHARS_MAX) else {
                continue;
            };
            row.extend(text::plain(part, LINE_CHARS_MAX).chars().map(|c| (c, style)));
        }
        if rows.len() > LINES_MAX {
            rows.push("… and more lines".chars().map(|c| (c, brush.palette.quiet)).collect());
            break;
        }
    }
    rows.into_iter().flat_map(|row| fold(row, width.max(4))).map(|row| joined(&row)).collect()
}

/// Breaks a line between words where that can be.
fn fold(mut rest: Vec<(char, Style)>, width: usize) -> Vec<Vec<(char, Style)>> {
    let mut rows = Vec::new();
    while let Some((at, is_blank)) = place_of_break(rest.iter().map(|(c, _)| *c), width) {
        let tail = rest.split_off(at + usize::from(is_blank));
        rows.push(std::mem::replace(&mut rest, tail));
    }
    rows.push(rest);
    rows
}

/// Characters of one style are one span.
fn joined(row: &[(char, Style)]) -> Line<'static> {
    let mut spans = vec![Span::raw("   ")];
    for run in row.chunk_by(|a, b| a.1 == b.1) {
        let text: String = run.iter().map(|(c, _)| *c).collect();
        spans.push(Span::styled(text, run[0].1));
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str, logprob: f32, version: u64) -> Piece {
        Piece { id: 0, text: text.into(), logprob: Some(logprob), version: Some(version) }
    }

    fn brush(paint: Paint) -> Brush {
        let palette = Palette::new(true);
        Brush { paint, versions: vec![4, 5], advantage: Some(-0.5), palette }
    }

    fn told(lines: &[Line<'_>]) -> Vec<String> {
        lines.iter().map(|l| l.spans.iter().map(|s| s.content.as_ref()).collect()).collect()
    }

    #[test]
    fn each_token_is_in_the_colour_of_what_it_is_painted_by() {
        let (sure, wild) = (piece("def ", -0.01, 4), piece("foo", -6.0, 5));
        let by = |paint| (brush(paint).style(&sure), brush(paint).style(&wild));
        let palette = Palette::new(true);
        assert_eq!(by(Paint::Logprob), (palette.heat[0], palette.heat[3]));
        assert_eq!(by(Paint::Version), (palette.apart[0], palette.apart[1]));
        assert_eq!(by(Paint::Advantage), (palette.bad, palette.bad));
        let unknown = Piece { logprob: None, ..sure };
        assert_eq!(brush(Paint::Logprob).style(&unknown), palette.quiet);
    }

    #[test]
    fn lines_are_broken_and_nothing_hostile_is_in_them() {
        let pieces = vec![
            piece("a \u{1b}[2Jlong", -0.1, 4),
            piece(" word\nand \u{202e}an", -3.0, 4),
            piece("other", -0.1, 5),
        ];
        let pieces = Pieces { pieces, left_out: 0, note: None };
        assert_eq!(
            told(&lines(&pieces, 8, &brush(Paint::Logprob))),
            ["   a long ", "   word", "   and anot", "   her"]
        );
        let pieces =
            vec![piece("修正された", -0.1, 4), piece("コ🙂ド ", -3.0, 5), piece("ab", -0.1, 5)];
        let wide = Pieces { pieces, left_out: 0, note: None };
        assert_eq!(
            told(&lines(&wide, 8, &brush(Paint::Version))),
            ["   修正され", "   たコ🙂ド ", "   ab"]
        );
        let endless =
            Pieces { pieces: vec![piece("\n\n\n", 0.0, 1); 4_000], left_out: 0, note: None };
        assert!(lines(&endless, 80, &brush(Paint::Version)).len() <= LINES_MAX + 6);
    }
}
