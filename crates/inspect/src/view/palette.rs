//! The few colours there are. Every difference they make is also made by a word or a sign.

use ratatui::style::{Color, Modifier, Style};

/// Styles by what they mean.
#[derive(Debug, Clone, Copy)]
pub struct Palette {
    /// Where one is, what is under way.
    pub accent: Style,
    /// As it should be.
    pub good: Style,
    /// Worth a look.
    pub warn: Style,
    /// Wrong.
    pub bad: Style,
    /// Labels, and what is old.
    pub quiet: Style,
    /// Titles.
    pub strong: Style,
    /// Everything else.
    pub text: Style,
    /// The row the cursor is on.
    pub cursor: Style,
    /// From what was to be expected to what was not: four steps.
    pub heat: [Style; 4],
    /// Things that are told apart and have no order.
    pub apart: [Style; 6],
}

impl Palette {
    /// Colours, or none of them (`NO_COLOR`).
    #[must_use]
    pub fn new(colour: bool) -> Self {
        let strong = Style::new().add_modifier(Modifier::BOLD);
        if !colour {
            return Self {
                accent: strong,
                good: Style::new(),
                warn: strong,
                bad: strong,
                quiet: Style::new().add_modifier(Modifier::DIM),
                strong,
                text: Style::new(),
                cursor: Style::new().add_modifier(Modifier::REVERSED),
                heat: [
                    Style::new(),
                    Style::new().add_modifier(Modifier::UNDERLINED),
                    strong,
                    Style::new().add_modifier(Modifier::REVERSED),
                ],
                apart: [
                    Style::new(),
                    Style::new().add_modifier(Modifier::UNDERLINED),
                    strong,
                    Style::new().add_modifier(Modifier::ITALIC),
                    Style::new().add_modifier(Modifier::DIM),
                    Style::new().add_modifier(Modifier::REVERSED),
                ],
            };
        }
        let of = |colour: Color| Style::new().fg(colour);
        Self {
            accent: of(Color::Cyan),
            good: of(Color::Green),
            warn: of(Color::Yellow),
            bad: of(Color::Red).add_modifier(Modifier::BOLD),
            quiet: of(Color::DarkGray),
            strong,
            text: Style::new(),
            cursor: Style::new().bg(Color::Indexed(237)).add_modifier(Modifier::BOLD),
            heat: [
                Style::new(),
                of(Color::Yellow),
                of(Color::Indexed(208)),
                of(Color::Red).add_modifier(Modifier::BOLD),
            ],
            apart: [
                Color::Cyan,
                Color::Yellow,
                Color::Magenta,
                Color::Green,
                Color::Blue,
                Color::Red,
            ]
            .map(of),
        }
    }
}
