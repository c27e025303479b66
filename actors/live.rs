//! What the episodes of this node are doing at the moment, for people to watch.
//!
//! Episodes write, the node's once-a-second report reads. Never more entries than episodes under
//! way, never more than a line each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crrl_agent::Invocation;
use crrl_control::wire::LIVE_MAX;
use crrl_types::actor::EpisodeReport;
use crrl_types::{AdapterVersion, EpisodeId, GroupId, TaskId};

/// Characters of one line.
const LINE_CHARS_MAX: usize = 100;

/// One episode under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveEpisode {
    /// The attempts it is compared with.
    pub group: GroupId,
    /// Its task.
    pub task: TaskId,
    /// Turns the policy has taken.
    pub turns: u32,
    /// Calls of tools so far.
    pub calls: u32,
    /// What is being done: `shell grep -n …`, `thinking`, `waiting for a sandbox, 8 of 8 taken`.
    pub doing: String,
    calls_tool: bool,
    began: Instant,
    changed: Instant,
    updated: u64,
}

#[derive(Debug, Default)]
struct Board {
    episodes: BTreeMap<EpisodeId, LiveEpisode>,
    updates: u64,
}

/// The episodes under way. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Mutex<Board>>);

impl Live {
    /// Enters an episode; it leaves when the returned value is dropped.
    #[must_use]
    pub fn enter(&self, episode: EpisodeId, group: GroupId, task: TaskId) -> LiveEntry {
        let entry = LiveEntry { live: self.clone(), episode };
        let now = Instant::now();
        let doing = "starting".to_owned();
        let fresh = LiveEpisode {
            group,
            task,
            turns: 0,
            calls: 0,
            doing,
            calls_tool: false,
            began: now,
            changed: now,
            updated: 0,
        };
        self.board().episodes.insert(episode, fresh);
        entry
    }

    /// Every episode under way.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(EpisodeId, LiveEpisode)> {
        self.board().episodes.iter().map(|(id, episode)| (*id, episode.clone())).collect()
    }

    /// Episodes under way for a report: at most [`LIVE_MAX`], those without news for longest first.
    #[must_use]
    pub fn report(&self, version: AdapterVersion) -> Vec<EpisodeReport> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut live: Vec<EpisodeReport> = self
            .snapshot()
            .into_iter()
            .map(|(episode, live)| EpisodeReport {
                episode,
                group: live.group,
                task: live.task,
                turns: live.turns,
                calls: live.calls,
                doing: live.doing,
                age_ms: ms(live.began.elapsed()),
                idle_ms: ms(live.changed.elapsed()),
                version,
            })
            .collect();
        live.sort_by_key(|episode| std::cmp::Reverse(episode.idle_ms));
        live.truncate(LIVE_MAX);
        live
    }

    /// The latest news in one line; empty where nothing is under way. Tool calls come before
    /// anything else: they are what one wants to see.
    #[must_use]
    pub fn line(&self) -> String {
        let board = self.board();
        let newest = board.episodes.iter().max_by_key(|(_, e)| (e.calls_tool, e.updated));
        newest.map_or_else(String::new, |(_, episode)| {
            cut(&format!("{} turn {}: {}", episode.task, episode.turns, episode.doing))
        })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // Nothing panics under the lock that could leave the board half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One episode's place on the board.
#[derive(Debug)]
pub struct LiveEntry {
    live: Live,
    episode: EpisodeId,
}

impl LiveEntry {
    /// Which episode it is.
    #[must_use]
    pub fn episode(&self) -> EpisodeId {
        self.episode
    }

    /// The policy has not begun: what it waits for, or what is made ready for it. That is no news of
    /// the node's, only of the episode's.
    pub fn preparing(&self, what: &str) {
        if let Some(episode) = self.live.board().episodes.get_mut(&self.episode) {
            episode.doing = cut(what);
            episode.changed = Instant::now();
        }
    }

    /// The policy is at it.
    pub fn thinking(&self) {
        self.update(|episode| {
            episode.turns += 1;
            episode.calls_tool = false;
            episode.doing = "thinking".to_owned();
        });
    }

    /// A tool runs.
    pub fn calling(&self, invocation: &Invocation) {
        let doing = match invocation {
            Invocation::Shell { cmd } => format!("shell {cmd}"),
            Invocation::ApplyPatch { path, .. } => format!("apply_patch {path}"),
        };
        self.update(|episode| {
            episode.calls += 1;
            episode.calls_tool = true;
            episode.doing = cut(&doing);
        });
    }

    fn update(&self, change: impl FnOnce(&mut LiveEpisode)) {
        let mut board = self.live.board();
        board.updates += 1;
        let now = board.updates;
        if let Some(episode) = board.episodes.get_mut(&self.episode) {
            change(episode);
            episode.changed = Instant::now();
            episode.updated = now;
        }
    }
}

impl Drop for LiveEntry {
    fn drop(&mut self) {
        self.live.board().episodes.remove(&self.episode);
    }
}

/// One line of at most [`LINE_CHARS_MAX`] characters, without control characters: the policy
/// wrote some of it, and it ends up on a terminal.
fn cut(text: &str) -> String {
    let mut line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE_CHARS_MAX).collect();
    if text.chars().nth(LINE_CHARS_MAX).is_some() {
        line.pop();
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_the_latest_tool_call_and_nothing_after_the_end() {
        let live = Live::default();
        let first = live.enter(EpisodeId(1), GroupId(0), "one".into());
        let second = live.enter(EpisodeId(2), GroupId(0), "two".into());
        first.thinking();
        first.calling(&Invocation::Shell { cmd: "grep -n 'x'\n\u{1b}[2J a.py".into() });
        second.thinking();
        assert_eq!(live.line(), "one turn 1: shell grep -n 'x'  [2J a.py");
        drop(first);
        assert_eq!(live.line(), "two turn 1: thinking");
        let [report] = &live.report(AdapterVersion(3))[..] else { panic!("one is left") };
        assert_eq!((report.episode, report.turns, report.calls), (EpisodeId(2), 1, 0));
        assert_eq!(report.version, AdapterVersion(3));
        drop(second);
        assert_eq!(live.line(), "");
    }

    #[test]
    fn an_episode_that_waits_says_for_what_and_hides_nothing_that_is_done() {
        let live = Live::default();
        let first = live.enter(EpisodeId(1), GroupId(0), "one".into());
        let second = live.enter(EpisodeId(2), GroupId(0), "two".into());
        first.thinking();
        second.preparing("waiting for a sandbox, 8 of 8 taken");
        assert_eq!(live.line(), "one turn 1: thinking");
        let doing = |live: &Live| live.snapshot().pop().map(|(_, episode)| episode.doing);
        assert_eq!(doing(&live).as_deref(), Some("waiting for a sandbox, 8 of 8 taken"));
        second.preparing("waiting for a place in the engine");
        assert_eq!(doing(&live).as_deref(), Some("waiting for a place in the engine"));
        let report = live.report(AdapterVersion(3));
        let waiting = report.iter().find(|seen| seen.episode == EpisodeId(2)).expect("under way");
        assert_eq!((waiting.turns, waiting.calls), (0, 0));
        drop(first);
        assert_eq!(live.line(), "two turn 0: waiting for a place in the engine");
    }

    #[test]
    fn a_long_command_is_cut() {
        let live = Live::default();
        let entry = live.enter(EpisodeId(1), GroupId(0), "one".into());
        entry.calling(&Invocation::Shell { cmd: "é".repeat(5_000) });
        assert_eq!(live.line().chars().count(), LINE_CHARS_MAX);
        assert!(live.line().ends_with('…'));
    }
}
