//! What can be looked at.

/// A screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Screen {
    /// Nodes, how far the run is, who waits for whom.
    Overview,
    /// Every actor.
    Actors,
    /// Who supervises whom.
    Tree,
    /// One actor.
    Actor,
    /// Messages of one actor, as they are handled.
    Trace,
    /// Episodes, under way and over.
    Rollouts,
    /// One episode.
    Episode,
    /// Curves of the training.
    Learner,
    /// Faults.
    Faults,
    /// The run's history.
    Events,
    /// What is wrong.
    Diagnosis,
    /// Keys and columns.
    Help,
}

impl Screen {
    /// Screens with a number of their own.
    pub const NUMBERED: [(char, Self); 9] = [
        ('1', Self::Overview),
        ('2', Self::Actors),
        ('3', Self::Tree),
        ('4', Self::Actor),
        ('5', Self::Trace),
        ('6', Self::Rollouts),
        ('7', Self::Learner),
        ('8', Self::Faults),
        ('9', Self::Events),
    ];

    /// Every screen, with its key if it has one.
    pub const ALL: [(Option<char>, Self); 12] = [
        (Some('1'), Self::Overview),
        (Some('2'), Self::Actors),
        (Some('3'), Self::Tree),
        (Some('4'), Self::Actor),
        (Some('5'), Self::Trace),
        (Some('6'), Self::Rollouts),
        (None, Self::Episode),
        (Some('7'), Self::Learner),
        (Some('8'), Self::Faults),
        (Some('9'), Self::Events),
        (Some('d'), Self::Diagnosis),
        (Some('?'), Self::Help),
    ];

    /// Its name.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Actors => "Actors",
            Self::Tree => "Tree",
            Self::Actor => "Actor",
            Self::Trace => "Trace",
            Self::Rollouts => "Rollouts",
            Self::Episode => "Episode",
            Self::Learner => "Learner",
            Self::Faults => "Faults",
            Self::Events => "Events",
            Self::Diagnosis => "Diagnosis",
            Self::Help => "Help",
        }
    }

    /// The numbered screen it belongs to.
    #[must_use]
    pub fn tab(self) -> Self {
        if self == Self::Episode { Self::Rollouts } else { self }
    }

    /// Whether its rows can be filtered.
    #[must_use]
    pub fn has_filter(self) -> bool {
        matches!(self, Self::Actors | Self::Rollouts | Self::Events)
    }

    /// Whether its rows can be sorted.
    #[must_use]
    pub fn has_sort(self) -> bool {
        matches!(self, Self::Actors | Self::Rollouts)
    }

    /// Whether it can stay with a row that moves, or at what is newest.
    #[must_use]
    pub fn has_follow(self) -> bool {
        matches!(self, Self::Actors | Self::Rollouts) || self.grows()
    }

    /// Whether new things come at its end.
    #[must_use]
    pub fn grows(self) -> bool {
        matches!(self, Self::Events | Self::Trace | Self::Episode)
    }

    /// Whether Enter opens the row the cursor is on.
    #[must_use]
    pub fn opens(self) -> bool {
        matches!(self, Self::Overview | Self::Actors | Self::Tree | Self::Rollouts)
    }

    /// Whether its rows are actors or nodes, which can be traced and given orders.
    #[must_use]
    pub fn has_target(self) -> bool {
        matches!(self, Self::Overview | Self::Actors | Self::Tree | Self::Actor)
    }

    /// Whether it is a text that scrolls, without a cursor.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Self::Actor | Self::Episode | Self::Learner | Self::Diagnosis | Self::Help)
    }
}
