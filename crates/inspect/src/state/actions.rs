//! What a command does, whether a key, the palette or the mouse asked for it.

use super::actors::{ActorColumn, ActorRow, Counted};
use super::app::{App, Opened, REFRESH_MS_MAX, REFRESH_MS_MIN, RowKey, Sort};
use super::asking::{Asking, CommandLine, Prompt};
use super::command::Command;
use super::episodes::LiveColumn;
use super::keys::Effect;
use super::list::{List, Step};
use super::screens::Screen;
use super::world::World;
use crate::filter::Filter;

/// Screens Esc can lead back through.
const BACK_MAX: usize = 16;

impl App {
    /// Does what was asked for.
    pub fn run(&mut self, command: Command, world: &World) -> Effect {
        match command {
            Command::Leave => return Effect::Detach,
            Command::Export => return Effect::Export,
            Command::Pause if self.is_replay => return Effect::Halt,
            Command::Pause => self.paused = !self.paused,
            Command::Go(screen) => self.visit(screen, world),
            Command::SortActors(column) => self.sort_actors(column),
            Command::SortRollouts(column) => self.sort_rollouts(column),
            Command::Turn(by) => self.sort_by(by),
            Command::Reverse => self.reverse(),
            Command::Filter => self.open_prompt(),
            Command::Palette => {
                self.asking = Some(Asking::Command(CommandLine::new(&self.history)));
            }
            Command::Open => self.open(world),
            Command::Follow => self.toggle_follow(),
            Command::Paint => self.paint(),
            Command::Count => self.count(),
            Command::Faster => self.refresh(self.refresh_ms / 2),
            Command::Slower => self.refresh(self.refresh_ms * 2),
            Command::Mouse => self.toggle_mouse(),
            Command::Trace => return self.begin_trace(world),
            Command::EndTrace => return self.end_trace(world),
            Command::Order(key) => self.open_dialogue(key, world),
            Command::Back if self.screen == Screen::Trace && self.is_tracing() => {
                return self.end_trace(world);
            }
            Command::Back => self.leave(),
        }
        Effect::None
    }

    fn visit(&mut self, screen: Screen, world: &World) {
        match screen {
            Screen::Actor => self.open_actor(world),
            Screen::Episode if self.opened.is_none() => {
                self.say("no episode was opened yet: Enter opens one in 6");
            }
            Screen::Episode | Screen::Diagnosis | Screen::Help => self.go(screen),
            _ => {
                self.back.clear();
                self.screen = screen;
            }
        }
    }

    pub(super) fn go(&mut self, screen: Screen) {
        if self.screen == screen {
            return;
        }
        self.back.push(self.screen);
        if self.back.len() > BACK_MAX {
            self.back.remove(0);
        }
        self.screen = screen;
    }

    pub(super) fn step(&mut self, step: Step) {
        let (len, page, screen) = (self.len, self.page, self.screen);
        let list = self.list_mut();
        if screen.is_text() {
            list.scroll(step, len, page);
        } else {
            list.step(step, len, page);
        }
        if screen.grows() {
            list.follow = step == Step::Last;
        }
    }

    fn sort_actors(&mut self, column: ActorColumn) {
        self.screen = Screen::Actors;
        turn_to(&mut self.actor_sort, column, column.is_descending());
        self.say(format!("sorted by {}", column.name()));
    }

    fn sort_rollouts(&mut self, column: LiveColumn) {
        self.screen = Screen::Rollouts;
        turn_to(&mut self.live_sort, column, column.is_descending());
        self.say(format!("sorted by {}", column.name()));
    }

    fn sort_by(&mut self, by: isize) {
        match self.screen {
            Screen::Actors => {
                let all = ActorColumn::ALL.map(|(column, _)| column);
                self.sort_actors(next(&all, self.actor_sort.column, by));
            }
            Screen::Rollouts => {
                let all = LiveColumn::ALL.map(|(column, _)| column);
                self.sort_rollouts(next(&all, self.live_sort.column, by));
            }
            _ => self.say("nothing is sorted on this screen"),
        }
    }

    fn reverse(&mut self) {
        match self.screen {
            Screen::Actors => self.actor_sort.descending = !self.actor_sort.descending,
            Screen::Rollouts => self.live_sort.descending = !self.live_sort.descending,
            _ => self.say("nothing is sorted on this screen"),
        }
    }

    fn toggle_follow(&mut self) {
        if !self.screen.has_follow() {
            return self.say("nothing moves on this screen");
        }
        let screen = self.screen;
        let list = self.list_mut();
        list.follow = !list.follow;
        let says = match (list.follow, screen) {
            (true, Screen::Events) => "stays at the newest event",
            (true, Screen::Trace) => "stays at the newest message",
            (true, Screen::Episode) => "stays at the newest turn",
            (true, _) => "the cursor stays with its row",
            (false, _) => "the cursor stays in its place",
        };
        self.say(says);
    }

    fn paint(&mut self) {
        if self.screen != Screen::Episode {
            return self.say("tokens are seen in an episode: Enter opens one in 6");
        }
        self.paint = self.paint.next();
        self.say(format!("tokens are coloured by {}", self.paint.name()));
    }

    fn count(&mut self) {
        if self.screen != Screen::Actors {
            return self.say("actors are counted in 2");
        }
        let (counted, says) = match self.counted {
            Counted::Lately => (Counted::Ever, "counted since each was first started"),
            Counted::Ever => (Counted::Lately, "counted over the last 5 s, a second"),
        };
        self.counted = counted;
        self.say(says);
    }

    fn toggle_mouse(&mut self) {
        self.has_mouse = !self.has_mouse;
        let says = match self.has_mouse {
            true => "the mouse points; m gives it back to the terminal, which selects text with it",
            false => "the mouse is the terminal's again",
        };
        self.say(says);
    }

    fn refresh(&mut self, ms: u64) {
        self.refresh_ms = ms.clamp(REFRESH_MS_MIN, REFRESH_MS_MAX);
        self.say(format!("drawn every {} ms", self.refresh_ms));
    }

    fn open(&mut self, world: &World) {
        if self.screen == Screen::Overview {
            let node = world.nodes().get(self.list().selected).map(|node| node.name.clone());
            if let Some(node) = node {
                let text = format!("node:^{}$", regex::escape(&node));
                if let Ok(filter) = Filter::parse::<ActorRow>(&text) {
                    self.filters.insert(Screen::Actors, filter);
                }
                self.lists.remove(&Screen::Actors);
                self.go(Screen::Actors);
            }
            return;
        }
        match self.row_key(world) {
            Some(RowKey::Actor(id)) => {
                self.actor = Some(id);
                self.lists.remove(&Screen::Actor);
                self.go(Screen::Actor);
            }
            Some(RowKey::Episode(episode)) => self.open_episode(episode, world),
            None if self.screen.opens() => {
                self.say("there is nothing to open here");
            }
            None => self.say("nothing opens on this screen"),
        }
    }

    /// One under way is looked at where it is: at its newest turn.
    fn open_episode(&mut self, episode: u64, world: &World) {
        let is_live = world.live().iter().any(|row| row.episode == episode);
        self.opened = Some(Opened { episode, ..Opened::default() });
        self.lists.insert(Screen::Episode, List { follow: is_live, ..List::default() });
        self.go(Screen::Episode);
    }

    fn open_actor(&mut self, world: &World) {
        if let Some(RowKey::Actor(id)) = self.row_key(world) {
            self.actor = Some(id);
        }
        if self.actor.is_none() {
            self.actor = self.actor_rows(world).first().map(|row| row.id());
        }
        self.go(Screen::Actor);
    }

    fn leave(&mut self) {
        if let Some(screen) = self.back.pop() {
            self.screen = screen;
        } else if self.filters.remove(&self.screen).is_some_and(|f| !f.as_str().is_empty()) {
            self.say("the filter is gone");
        } else if self.screen != Screen::Overview {
            self.screen = Screen::Overview;
        } else {
            self.say("q leaves; the cluster goes on");
        }
    }

    fn open_prompt(&mut self) {
        if !self.screen.has_filter() {
            return self.say("nothing is filtered on this screen");
        }
        let text = self.filter(self.screen).map_or_else(String::new, |f| f.as_str().to_owned());
        let before = self.filters.get(&self.screen).cloned();
        self.asking = Some(Asking::Filter(Prompt { text, error: None, before }));
    }
}

/// Orders by a column; the other way round if it is the one already.
fn turn_to<C: PartialEq>(sort: &mut Sort<C>, column: C, descending: bool) {
    sort.descending = if sort.column == column { !sort.descending } else { descending };
    sort.column = column;
}

fn next<C: Copy + PartialEq>(all: &[C], held: C, by: isize) -> C {
    let at = all.iter().position(|column| *column == held).unwrap_or(0) as isize;
    all[(at + by).rem_euclid(all.len() as isize) as usize]
}
