//! Which key does what. No key does nothing: one that does not apply says so.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::actors::{ActorColumn, ActorRow};
use super::app::{App, Opened, Prompt, REFRESH_MS_MAX, REFRESH_MS_MIN, RowKey};
use super::episodes::{LiveColumn, Rollout};
use super::history::EventRow;
use super::list::Step;
use super::screens::Screen;
use super::world::World;
use crate::filter::{CHARS_MAX, Filter};

/// Screens Esc can lead back through.
const BACK_MAX: usize = 16;

/// What the loop has to do because of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing more.
    None,
    /// Leave; the cluster goes on.
    Detach,
    /// Write what is shown to a file.
    Export,
    /// Move in a recording by so many milliseconds.
    Seek(i64),
    /// Play a recording, or halt it.
    Halt,
}

impl App {
    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent, world: &World) -> Effect {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Effect::Detach;
        }
        if self.prompt.is_some() {
            self.type_filter(key.code, world);
            return Effect::None;
        }
        match key.code {
            KeyCode::Char('q') => return Effect::Detach,
            KeyCode::Char('e') => return Effect::Export,
            KeyCode::Char(' ') if self.is_replay => return Effect::Halt,
            KeyCode::Left if self.is_replay => return Effect::Seek(-1_000),
            KeyCode::Right if self.is_replay => return Effect::Seek(1_000),
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('u') if control => self.step(Step::Pages(-1)),
            KeyCode::Char('d') if control => self.step(Step::Pages(1)),
            KeyCode::Char('d') => self.go(Screen::Diagnosis),
            KeyCode::Char('?') | KeyCode::F(1) => self.go(Screen::Help),
            KeyCode::Char('j') | KeyCode::Down => self.step(Step::Rows(1)),
            KeyCode::Char('k') | KeyCode::Up => self.step(Step::Rows(-1)),
            KeyCode::PageDown => self.step(Step::Pages(1)),
            KeyCode::PageUp => self.step(Step::Pages(-1)),
            KeyCode::Char('g') | KeyCode::Home => self.step(Step::First),
            KeyCode::Char('G') | KeyCode::End => self.step(Step::Last),
            KeyCode::Char('<') => self.sort_by(-1, world),
            KeyCode::Char('>') => self.sort_by(1, world),
            KeyCode::Char('r') => self.reverse(world),
            KeyCode::Char('f') => self.toggle_follow(world),
            KeyCode::Char('/') => self.open_prompt(world),
            KeyCode::Char('+') => self.refresh(self.refresh_ms / 2, world),
            KeyCode::Char('-') => self.refresh(self.refresh_ms * 2, world),
            KeyCode::Enter => self.open(world),
            KeyCode::Esc | KeyCode::Backspace => self.leave(world),
            KeyCode::Char('5') => {
                self.say("5 is kept for traces, which are not recorded yet", world.now_ms());
            }
            KeyCode::Char(c) => match Screen::NUMBERED.iter().find(|(digit, _)| *digit == c) {
                Some((_, Screen::Actor)) => self.open_actor(world),
                Some((_, screen)) => {
                    self.back.clear();
                    self.screen = *screen;
                }
                None => self.say(format!("{c} is no key here; ? lists them"), world.now_ms()),
            },
            _ => {}
        }
        Effect::None
    }

    fn go(&mut self, screen: Screen) {
        if self.screen == screen {
            return;
        }
        self.back.push(self.screen);
        if self.back.len() > BACK_MAX {
            self.back.remove(0);
        }
        self.screen = screen;
    }

    fn step(&mut self, step: Step) {
        let (len, page, is_text) = (self.len, self.page, self.screen.is_text());
        let is_events = self.screen == Screen::Events;
        let list = self.list_mut();
        if is_text {
            list.scroll(step, len, page);
        } else {
            list.step(step, len, page);
        }
        if is_events {
            list.follow = step == Step::Last;
        }
    }

    fn sort_by(&mut self, by: isize, world: &World) {
        let turn = |at: usize, len: usize| (at as isize + by).rem_euclid(len as isize) as usize;
        let name = match self.screen {
            Screen::Actors => {
                let all = ActorColumn::ALL;
                let sort = &mut self.actor_sort;
                let at = all.iter().position(|(column, _)| *column == sort.column).unwrap_or(0);
                sort.column = all[turn(at, all.len())].0;
                sort.descending = sort.column.is_descending();
                sort.column.name()
            }
            Screen::Rollouts => {
                let all = LiveColumn::ALL;
                let sort = &mut self.live_sort;
                let at = all.iter().position(|(column, _)| *column == sort.column).unwrap_or(0);
                sort.column = all[turn(at, all.len())].0;
                sort.descending = sort.column.is_descending();
                sort.column.name()
            }
            _ => return self.say("nothing is sorted on this screen", world.now_ms()),
        };
        self.say(format!("sorted by {name}"), world.now_ms());
    }

    fn reverse(&mut self, world: &World) {
        match self.screen {
            Screen::Actors => self.actor_sort.descending = !self.actor_sort.descending,
            Screen::Rollouts => self.live_sort.descending = !self.live_sort.descending,
            _ => self.say("nothing is sorted on this screen", world.now_ms()),
        }
    }

    fn toggle_follow(&mut self, world: &World) {
        if !self.screen.has_follow() {
            return self.say("nothing moves on this screen", world.now_ms());
        }
        let is_events = self.screen == Screen::Events;
        let list = self.list_mut();
        list.follow = !list.follow;
        let says = match (list.follow, is_events) {
            (true, true) => "stays at the newest event",
            (true, false) => "the cursor stays with its row",
            (false, _) => "the cursor stays in its place",
        };
        self.say(says, world.now_ms());
    }

    fn refresh(&mut self, ms: u64, world: &World) {
        self.refresh_ms = ms.clamp(REFRESH_MS_MIN, REFRESH_MS_MAX);
        self.say(format!("drawn every {} ms", self.refresh_ms), world.now_ms());
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
            Some(RowKey::Episode(episode)) => {
                self.opened = Some(Opened { episode, ..Opened::default() });
                self.lists.remove(&Screen::Episode);
                self.go(Screen::Episode);
            }
            None if self.screen.opens() => {
                self.say("there is nothing to open here", world.now_ms());
            }
            None => self.say("nothing opens on this screen", world.now_ms()),
        }
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

    fn leave(&mut self, world: &World) {
        if let Some(screen) = self.back.pop() {
            self.screen = screen;
        } else if self.filters.remove(&self.screen).is_some_and(|f| !f.as_str().is_empty()) {
            self.say("the filter is gone", world.now_ms());
        } else if self.screen != Screen::Overview {
            self.screen = Screen::Overview;
        } else {
            self.say("q leaves; the cluster goes on", world.now_ms());
        }
    }

    fn open_prompt(&mut self, world: &World) {
        if !self.screen.has_filter() {
            return self.say("nothing is filtered on this screen", world.now_ms());
        }
        let text = self.filter(self.screen).map_or_else(String::new, |f| f.as_str().to_owned());
        let before = self.filters.get(&self.screen).cloned();
        self.prompt = Some(Prompt { text, error: None, before });
    }

    fn type_filter(&mut self, code: KeyCode, world: &World) {
        let Some(prompt) = &mut self.prompt else { return };
        match code {
            KeyCode::Esc => {
                let before = prompt.before.take().unwrap_or_default();
                self.filters.insert(self.screen, before);
                self.prompt = None;
            }
            KeyCode::Enter if prompt.error.is_none() => self.prompt = None,
            KeyCode::Backspace if prompt.text.pop().is_none() => self.prompt = None,
            KeyCode::Char(c) if prompt.text.chars().count() < CHARS_MAX => prompt.text.push(c),
            _ => {}
        }
        let Some(prompt) = &mut self.prompt else { return };
        let parsed = match self.screen {
            Screen::Actors => Filter::parse::<ActorRow>(&prompt.text),
            Screen::Rollouts => Filter::parse::<Rollout<'_>>(&prompt.text),
            _ => Filter::parse::<EventRow>(&prompt.text),
        };
        match parsed {
            Ok(filter) => {
                prompt.error = None;
                self.filters.insert(self.screen, filter);
            }
            Err(error) => prompt.error = Some(error),
        }
        self.notice = self.notice.take().filter(|(_, until)| *until > world.now_ms());
    }
}
