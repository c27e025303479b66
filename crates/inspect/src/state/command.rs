//! Everything that can be asked for, by key or by name.

use super::actors::ActorColumn;
use super::episodes::LiveColumn;
use super::fuzzy;
use super::orders;
use super::screens::Screen;

/// Something a person can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Look at a screen.
    Go(Screen),
    /// Order actors by a column; round, if they are ordered by it.
    SortActors(ActorColumn),
    /// Order episodes by a column; round, if they are ordered by it.
    SortRollouts(LiveColumn),
    /// Order by a column further left (-1) or right (1).
    Turn(isize),
    /// Turn the order round.
    Reverse,
    /// Type a filter.
    Filter,
    /// Open what the cursor is on.
    Open,
    /// One screen back.
    Back,
    /// Stay with the row, or at what is newest.
    Follow,
    /// Show the next thing that tokens can be coloured by.
    Paint,
    /// Count actors over the last seconds, or since they were first started.
    Count,
    /// Stand still, or go on.
    Pause,
    /// Draw more often.
    Faster,
    /// Draw less often.
    Slower,
    /// Take the mouse, or leave it to the terminal.
    Mouse,
    /// Type the name of a command.
    Palette,
    /// Trace the messages of what the cursor is on.
    Trace,
    /// End the trace.
    EndTrace,
    /// Ask whether what this key of [`orders::KEYS`] stands for is to be done to what the cursor is on.
    Order(char),
    /// Write what is shown to a file.
    Export,
    /// Leave; the cluster goes on.
    Leave,
}

/// A command with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What it is called.
    pub name: String,
    /// The key that does the same; empty where there is none.
    pub key: String,
    /// What it does.
    pub command: Command,
}

/// Commands that are neither a screen nor a column.
const ACTIONS: [(&str, &str, Command); 16] = [
    ("open what the cursor is on", "Enter", Command::Open),
    ("back", "Esc", Command::Back),
    ("filter", "/", Command::Filter),
    ("reverse the order", "r", Command::Reverse),
    ("follow", "f", Command::Follow),
    ("colour tokens by the next measure", "c", Command::Paint),
    ("count lately or ever", "w", Command::Count),
    ("pause", "Space", Command::Pause),
    ("draw more often", "+", Command::Faster),
    ("draw less often", "-", Command::Slower),
    ("mouse", "m", Command::Mouse),
    ("trace what the cursor is on", "t", Command::Trace),
    ("trace no more", "Esc", Command::EndTrace),
    ("export", "e", Command::Export),
    ("leave", "q", Command::Leave),
    ("quit", "q", Command::Leave),
];

/// Every command that has a name, in the order they are listed.
#[must_use]
pub fn all() -> Vec<Named> {
    let screens = Screen::ALL.iter().map(|(key, screen)| Named {
        name: format!("screen {}", screen.title().to_lowercase()),
        key: key.map(String::from).unwrap_or_default(),
        command: Command::Go(*screen),
    });
    let actors = ActorColumn::ALL.iter().map(|(column, name)| Named {
        name: format!("sort actors by {name}"),
        key: String::new(),
        command: Command::SortActors(*column),
    });
    let rollouts = LiveColumn::ALL.iter().map(|(column, name)| Named {
        name: format!("sort rollouts by {name}"),
        key: String::new(),
        command: Command::SortRollouts(*column),
    });
    let actions = ACTIONS.iter().map(|(name, key, command)| Named {
        name: (*name).to_owned(),
        key: (*key).to_owned(),
        command: *command,
    });
    let orders = orders::KEYS.iter().map(|(key, action)| Named {
        name: format!("{} what the cursor is on", action.word()),
        key: key.to_string(),
        command: Command::Order(*key),
    });
    screens.chain(actions).chain(orders).chain(actors).chain(rollouts).collect()
}

/// Those that answer to what was typed, the best first; with nothing typed those that were run
/// last, and then all others.
#[must_use]
pub fn matching(typed: &str, history: &[String]) -> Vec<Named> {
    let recent = |named: &Named| history.iter().rposition(|name| *name == named.name);
    let mut found: Vec<(i32, Named)> = all()
        .into_iter()
        .filter_map(|named| Some((fuzzy::score(typed, &named.name)?, named)))
        .collect();
    if typed.trim().is_empty() {
        found.sort_by_key(|(_, named)| std::cmp::Reverse(recent(named)));
    } else {
        found.sort_by_key(|(score, named)| std::cmp::Reverse((*score, recent(named))));
    }
    found.into_iter().map(|(_, named)| named).collect()
}
