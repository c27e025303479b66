//! What the person does: the screen, a cursor on each, sort orders, filters.

use std::collections::HashMap;

use crrl_store::{EpisodeRow, StepRow};

use super::actors::{ActorColumn, ActorId, ActorRow, Counted};
use super::asking::{Asking, Prompt};
use super::episodes::{LiveColumn, LiveRow, Rollout};
use super::history::{EventRow, Weight};
use super::list::List;
use super::mouse::Spots;
use super::orders::Stage;
use super::screens::Screen;
use super::snapshot::Snapshot;
use super::trace::Tracing;
use super::transcript::{Journal, Laid, Left, Paint};
use super::tree::{self, Leaf};
use super::world::World;
use crate::filter::Filter;
use crate::past::Past;

/// Fastest redraw, milliseconds.
pub const REFRESH_MS_MIN: u64 = 250;
/// Slowest redraw, milliseconds.
pub const REFRESH_MS_MAX: u64 = 8_000;
/// How long a message at the bottom stays, milliseconds.
pub const NOTICE_MS: u64 = 4_000;

/// A column and a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort<C> {
    /// By what.
    pub column: C,
    /// Whether the largest are first.
    pub descending: bool,
}

/// An episode that was opened.
#[derive(Debug, Clone, Default)]
pub struct Opened {
    /// Its number.
    pub episode: u64,
    /// What it left behind: not looked up yet, nothing (it is not over), or a reason it cannot be
    /// read.
    pub left: Option<Result<Option<Box<Left>>, String>>,
    /// What has happened in it so far, while it is under way.
    pub journal: Journal,
    /// Why that cannot be read.
    pub unreadable: Option<String>,
}

/// What the run store has.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    /// The last episodes that are over, newest first.
    pub over: Vec<EpisodeRow>,
    /// Steps, oldest first.
    pub steps: Vec<StepRow>,
    /// Why nothing could be read.
    pub error: Option<String>,
}

/// Everything a person can change.
#[derive(Debug)]
pub struct App {
    /// What is looked at.
    pub screen: Screen,
    /// Where Esc leads.
    pub back: Vec<Screen>,
    /// Where the person is on each screen.
    pub lists: HashMap<Screen, List>,
    /// Order of actors.
    pub actor_sort: Sort<ActorColumn>,
    /// What is counted of actors.
    pub counted: Counted,
    /// Order of episodes under way.
    pub live_sort: Sort<LiveColumn>,
    /// Filters by screen.
    pub filters: HashMap<Screen, Filter>,
    /// What is being typed.
    pub asking: Option<Asking>,
    /// Names of the commands that were run from the palette, the last one last.
    pub history: Vec<String>,
    /// Whether the mouse is ours, and not the terminal's.
    pub has_mouse: bool,
    /// What the mouse can be pointed at, as drawn last.
    pub spots: Spots,
    /// What was clicked last, and when, milliseconds.
    pub clicked: Option<(Screen, Option<RowKey>, usize, u64)>,
    /// Whether the view stands still.
    pub paused: bool,
    /// Time between two redraws, milliseconds.
    pub refresh_ms: u64,
    /// The actor of screen 4.
    pub actor: Option<ActorId>,
    /// What it, or the one before, has published of its state.
    pub snapshot: Option<Snapshot>,
    /// The episode that was opened.
    pub opened: Option<Opened>,
    /// Its lines, as they were laid out last.
    pub laid: Option<Laid>,
    /// By what its tokens are coloured.
    pub paint: Paint,
    /// The trace that goes on, or went on last.
    pub trace: Option<Tracing>,
    /// What the run store has.
    pub archive: Archive,
    /// A line at the bottom, and until when on the clock of [`App::tick`].
    pub notice: Option<(String, u64)>,
    now_ms: u64,
    /// Rows seen at once, as drawn last.
    pub page: usize,
    /// Rows or lines there are, as drawn last.
    pub len: usize,
    /// What the run is called.
    pub title: String,
    /// Whether a recording is played.
    pub is_replay: bool,
    /// What a run that is not up came to; none of one that is.
    pub past: Option<Past>,
}

impl App {
    /// Looks at the overview.
    #[must_use]
    pub fn new(title: &str) -> Self {
        let newest = || List { follow: true, ..List::default() };
        Self {
            screen: Screen::Overview,
            back: Vec::new(),
            lists: HashMap::from([(Screen::Events, newest()), (Screen::Trace, newest())]),
            actor_sort: Sort { column: ActorColumn::Trouble, descending: true },
            counted: Counted::default(),
            live_sort: Sort { column: LiveColumn::Idle, descending: true },
            filters: HashMap::new(),
            asking: None,
            history: Vec::new(),
            has_mouse: false,
            spots: Spots::default(),
            clicked: None,
            paused: false,
            refresh_ms: 1_000,
            actor: None,
            snapshot: None,
            opened: None,
            laid: None,
            paint: Paint::default(),
            trace: None,
            archive: Archive::default(),
            notice: None,
            now_ms: 0,
            page: 10,
            len: 0,
            title: title.to_owned(),
            is_replay: false,
            past: None,
        }
    }

    /// The cursor of the screen.
    #[must_use]
    pub fn list(&self) -> List {
        self.lists.get(&self.screen).cloned().unwrap_or_default()
    }

    /// The cursor of the screen, to move it.
    pub fn list_mut(&mut self) -> &mut List {
        self.lists.entry(self.screen).or_default()
    }

    /// Keeps the cursor among the rows there are now.
    pub fn settle(&mut self, len: usize, page: usize) {
        (self.len, self.page) = (len, page);
        let is_end = self.screen.grows() && self.list().follow && !self.paused;
        let list = self.list_mut();
        if is_end {
            list.selected = len.saturating_sub(1);
        }
        list.settle(len, page);
    }

    /// The filter of a screen.
    #[must_use]
    pub fn filter(&self, screen: Screen) -> Option<&Filter> {
        self.filters.get(&screen).filter(|filter| !filter.as_str().is_empty())
    }

    /// Actors, filtered and in order.
    #[must_use]
    pub fn actor_rows<'w>(&self, world: &'w World) -> Vec<&'w ActorRow> {
        let filter = self.filter(Screen::Actors);
        let mut rows: Vec<&ActorRow> = world
            .actors()
            .iter()
            .filter(|row| filter.is_none_or(|filter| filter.shows(*row)))
            .collect();
        let Sort { column, descending } = self.actor_sort;
        column.sort_counted(self.counted, descending, &mut rows);
        rows
    }

    /// Episodes: those under way in order, then those that are over, newest first.
    #[must_use]
    pub fn rollout_rows<'a>(&'a self, world: &'a World) -> Vec<Rollout<'a>> {
        let filter = self.filter(Screen::Rollouts);
        let mut live: Vec<&LiveRow> = world.live().iter().collect();
        self.live_sort.column.sort(self.live_sort.descending, &mut live);
        let over = self.archive.over.iter().map(Rollout::Over);
        live.into_iter()
            .map(Rollout::Live)
            .chain(over)
            .filter(|row| filter.is_none_or(|filter| filter.shows(row)))
            .collect()
    }

    /// Events, oldest first.
    #[must_use]
    pub fn event_rows<'w>(&self, world: &'w World) -> Vec<&'w EventRow> {
        let filter = self.filter(Screen::Events);
        let shown = |row: &&EventRow| filter.is_none_or(|filter| filter.shows(*row));
        world.events().into_iter().filter(shown).collect()
    }

    /// What went wrong, and what people had done, oldest first: what screen 8 has of a run that is not up.
    #[must_use]
    pub fn trouble_rows<'w>(&self, world: &'w World) -> Vec<&'w EventRow> {
        let history = &world.history;
        let wrong = history.rows().filter(|row| row.weight == Weight::Trouble);
        let mut rows: Vec<&EventRow> = wrong.chain(&history.deeds).collect();
        // The history by itself has its order, whatever became of its clock.
        if !history.deeds.is_empty() {
            rows.sort_by_key(|row| row.at_ms);
        }
        rows
    }

    /// Keeps the cursor on what it is on, where the person asked for that, as rows move from
    /// `before` to now.
    pub fn follow(&mut self, before: Option<RowKey>, world: &World) {
        let Some(key) = before.filter(|_| self.list().follow) else { return };
        let at = match &key {
            RowKey::Actor(id) => self.actor_rows(world).iter().position(|row| row.id() == *id),
            RowKey::Episode(number) => {
                self.rollout_rows(world).iter().position(|row| row.episode() == *number)
            }
        };
        if let Some(at) = at {
            self.list_mut().selected = at;
        }
    }

    /// What the cursor is on.
    #[must_use]
    pub fn row_key(&self, world: &World) -> Option<RowKey> {
        let at = self.list().selected;
        match self.screen {
            Screen::Actors => self.actor_rows(world).get(at).map(|row| RowKey::Actor(row.id())),
            Screen::Rollouts => {
                self.rollout_rows(world).get(at).map(|row| RowKey::Episode(row.episode()))
            }
            Screen::Tree => match tree::rows(world).get(at)?.what {
                Leaf::Actor(row) => Some(RowKey::Actor(row.id())),
                Leaf::Node(_) => None,
            },
            _ => None,
        }
    }

    /// The filter being typed.
    #[must_use]
    pub fn prompt(&self) -> Option<&Prompt> {
        match &self.asking {
            Some(Asking::Filter(prompt)) => Some(prompt),
            _ => None,
        }
    }

    /// Whether what is looked at changes all the time.
    #[must_use]
    pub fn is_lively(&self) -> bool {
        let is_sent =
            matches!(&self.asking, Some(Asking::Order(held)) if held.stage == Stage::Sent);
        is_sent || (self.screen == Screen::Trace && self.is_tracing() && !self.paused)
    }

    /// Says something at the bottom for a moment.
    pub fn say(&mut self, text: impl Into<String>) {
        self.notice = Some((text.into(), self.now_ms.saturating_add(NOTICE_MS)));
    }

    /// Time goes on for the person, also while what is shown stands still: milliseconds of a clock that is
    /// never set back. What was said for long enough goes.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.notice = self.notice.take().filter(|(_, until)| *until > now_ms);
    }
}

/// What a row is, whichever place it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKey {
    /// An actor.
    Actor(ActorId),
    /// An episode.
    Episode(u64),
}
