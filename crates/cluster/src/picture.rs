//! The board as one viewer has it: in pieces of bounded size, what changed longest unseen first.
//!
//! A viewer at the coordinator is a [`Cursor`]: one number a node, and nothing queued. What it was
//! too slow to take is never sent; what is sent is as things are then. A report that takes more room than
//! there is has to be paid for: until then no other is sent. The viewer's own end is a [`Picture`].
//!
//! When nodes were heard takes some bytes a node and is in every piece, however little room there is for
//! what they said: a node whose row has to wait for its turn is not silent. Ages are counted by the
//! board; a viewer adds what has passed since the piece came.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crrl_control::wire::NodeReport;
use crrl_transport::codec::OLDEST;
use crrl_transport::{DecodeError, EncodeError, decode, encode, encode_as};
use crrl_types::actor::{ActorEvent, Fate};
use crrl_types::{NodeName, Vitals};
use serde::{Deserialize, Serialize};

use crate::board::{Board, NodeSeen, Progress, RewardPoint, Snapshot, StatusBoard, ms};
use crate::happened::{HAPPENED_MAX, Happened};

/// Two counts of when the same thing began differ by what pieces took on their way. What differs by more is
/// something else, milliseconds.
const SAME_MS: u64 = 250;

/// What a viewer can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Pieces with ages, and with what the board knows of the run.
    Full,
    /// Pieces with ages: it is of an earlier build of protocol version 4.
    Timed,
    /// Pieces alone: it is of a build before protocol version 4.
    Plain,
}

/// What changed, and how old things are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct TimedPiece {
    /// For how long the run has been in its phase, milliseconds.
    phase_ms: Option<u64>,
    /// Nodes that have got a place since the piece before, in the order of places.
    named: Vec<NodeName>,
    /// Every node that was heard of since the piece before.
    heard: Vec<Heard>,
    /// Of the nodes whose reports are in the piece, what they measure.
    measured: Vec<Measured>,
    piece: Piece,
    /// Beside it: a viewer of an earlier build does not read it.
    #[serde(skip)]
    more: More,
}

/// What the board knows of the run itself. As JSON, so that a later build can say more.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct More {
    /// For how long no episode has come back, counted from when one could, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    none_back_ms: Option<u64>,
    /// What became of actors since the piece before, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    happened: Vec<Told>,
    /// Whether there is more of that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    goes_on: bool,
}

/// What became of an actor.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    /// Since its node told of it, milliseconds.
    ago_ms: u64,
    node: NodeName,
    actor: String,
    fate: Fate,
    why: Option<String>,
}

/// How long ago a node was heard.
#[derive(Debug, Serialize, Deserialize)]
struct Heard {
    /// Its place on the board.
    at: u32,
    /// Since it reported, milliseconds.
    silent_ms: u64,
    /// Since it says what it is doing, milliseconds.
    doing_ms: u64,
}

/// What a node measures.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    /// Its place on the board.
    at: u32,
    clock_ahead_us: Option<i64>,
    vitals: Option<Vitals>,
}

/// What changed, without ages.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Nothing that came before holds any more.
    anew: bool,
    /// How far the run is, without what follows.
    headline: Option<Progress>,
    history: Option<VecDeque<RewardPoint>>,
    lines: Option<VecDeque<String>>,
    /// Reports, each encoded by itself.
    reports: Vec<Vec<u8>>,
    /// Nodes whose last report is still to come.
    behind: u32,
    /// Pieces that were due while the viewer did not read.
    skipped: u64,
}

/// What a viewer was sent.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    /// By place on the board.
    revisions: Vec<u64>,
    /// The same, of when nodes were heard.
    heard: Vec<u64>,
    at: usize,
    replaced: Option<u64>,
    progress: Progress,
    /// Number of what became of an actor last.
    happened: u64,
    /// Bytes of reports that were sent without there being room for them.
    debt: usize,
}

impl Cursor {
    /// The next piece, of about `bytes_max` at most. When nodes were heard is in it in any case. One report
    /// is sent however large it is; what it takes beyond the room there is, the next pieces go without.
    ///
    /// # Errors
    /// A report that cannot be encoded (none of ours).
    pub(crate) fn next(
        &mut self,
        board: &StatusBoard,
        bytes_max: usize,
        skipped: u64,
        now: Instant,
    ) -> Result<TimedPiece, EncodeError> {
        let board = board.read();
        let mut piece = Piece { skipped, ..Piece::default() };
        if self.replaced != Some(board.replaced) {
            *self = Self { replaced: Some(board.replaced), ..Self::default() };
            piece.anew = true;
        }
        let progress = &board.progress;
        let changed = |now: &Progress, then: &Progress| now.headline() != then.headline();
        piece.headline = changed(progress, &self.progress).then(|| progress.headline());
        piece.history =
            (progress.history != self.progress.history).then(|| progress.history.clone());
        piece.lines = (progress.lines != self.progress.lines).then(|| progress.lines.clone());
        if piece.headline.is_some() || piece.history.is_some() || piece.lines.is_some() {
            self.progress = progress.clone();
        }
        let places = board.places.len();
        let new = board.places.iter().skip(self.heard.len());
        let named = new.map(|place| place.report.node.clone()).collect();
        self.heard.resize(places, 0);
        self.revisions.resize(places, 0);
        let mut heard = Vec::new();
        for (at, (place, told)) in (0u32..).zip(board.places.iter().zip(&mut self.heard)) {
            if place.revision > *told {
                *told = place.revision;
                let (silent_ms, doing_ms) = (ms(place.silent(now)), ms(place.doing(now)));
                heard.push(Heard { at, silent_ms, doing_ms });
            }
        }
        let phase_ms = board.phase_for(now).map(ms);
        let more = self.more(&board, now);
        let mut timed = TimedPiece { phase_ms, named, heard, measured: Vec::new(), piece, more };
        let fixed = encode(&timed)?.len() + timed.more.encoded().len();
        let room = bytes_max.saturating_sub(self.debt);
        let (mut bytes, mut is_full) = (fixed, false);
        let first = self.at;
        for at in (first..places).chain(0..first.min(places)) {
            let place = &board.places[at];
            if place.revision <= self.revisions[at] {
                continue;
            }
            let is_first = timed.piece.reports.is_empty() && self.debt == 0;
            if is_full || (bytes >= room && !is_first) {
                is_full = true;
                timed.piece.behind += 1;
                continue;
            }
            // A viewer of the build before reads it too.
            let report = encode_as(OLDEST, &place.report)?;
            let measured = Measured {
                at: u32::try_from(at).unwrap_or(u32::MAX),
                clock_ahead_us: place.clock_ahead_us(),
                vitals: place.vitals.clone(),
            };
            let more = report.len() + encode(&measured)?.len();
            if bytes + more > room && !is_first {
                is_full = true;
                timed.piece.behind += 1;
                continue;
            }
            bytes += more;
            timed.piece.reports.push(report);
            timed.measured.push(measured);
            self.revisions[at] = place.revision;
            self.at = at + 1;
        }
        // However much is told in any case, half of the room pays.
        let paid = bytes_max.saturating_sub(fixed).max(bytes_max / 2);
        self.debt = (self.debt + bytes - fixed).saturating_sub(paid);
        Ok(timed)
    }

    fn more(&mut self, board: &Board, now: Instant) -> More {
        let mut all = board.happened_after(self.happened);
        let goes_on = all.len() > HAPPENED_MAX;
        all.truncate(HAPPENED_MAX);
        if let Some((_, last)) = all.last() {
            self.happened = last.number;
        }
        let told = |(node, happened): (&NodeName, &Happened)| Told {
            ago_ms: ms(now.saturating_duration_since(happened.at)),
            node: node.clone(),
            actor: happened.actor.clone(),
            fate: happened.fate,
            why: happened.why.clone(),
        };
        let happened = all.into_iter().map(told).collect();
        More { none_back_ms: board.none_back_for(now).map(ms), happened, goes_on }
    }
}

impl More {
    fn encoded(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers, texts and lists have a text")
    }
}

impl TimedPiece {
    /// Whether everything there is has been sent.
    pub(crate) fn is_last(&self) -> bool {
        self.piece.behind == 0 && !self.more.goes_on
    }

    /// Its bytes, for whoever reads pieces of this form.
    ///
    /// # Errors
    /// None of ours.
    pub(crate) fn encoded(&self, form: Form) -> Result<Vec<u8>, EncodeError> {
        match form {
            Form::Full => encode(&(self, self.more.encoded())),
            Form::Timed => encode(self),
            Form::Plain => encode_as(OLDEST, &self.piece),
        }
    }

    /// The piece in some bytes.
    ///
    /// # Errors
    /// They are none, or of another build.
    pub(crate) fn decoded(form: Form, bytes: &[u8]) -> Result<Self, DecodeError> {
        match form {
            Form::Full => {
                let (timed, more): (Self, Vec<u8>) = decode(bytes)?;
                let more = serde_json::from_slice(&more)
                    .map_err(|error| DecodeError::Malformed(error.to_string()))?;
                Ok(Self { more, ..timed })
            }
            Form::Timed => decode(bytes),
            Form::Plain => Ok(Self { piece: decode(bytes)?, ..Self::default() }),
        }
    }
}

/// The board, as it was put together from pieces.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    nodes: BTreeMap<NodeName, NodeReport>,
    progress: Progress,
    phase_since_ms: Option<u64>,
    /// Who has which place on the board.
    places: Vec<NodeName>,
    seen: BTreeMap<NodeName, NodeSeen>,
    none_back_since_ms: Option<u64>,
    /// Oldest first.
    actor_events: VecDeque<ActorEvent>,
    /// Pieces that were due while nobody read here.
    pub(crate) skipped: u64,
}

impl Picture {
    /// Adds a piece that has come at `now_ms`, milliseconds since the Unix epoch by the viewer's clock.
    ///
    /// # Errors
    /// A report of another build.
    pub(crate) fn add(&mut self, timed: TimedPiece, now_ms: u64) -> Result<(), DecodeError> {
        let TimedPiece { phase_ms, named, heard, measured, piece, more } = timed;
        if piece.anew {
            *self = Self { skipped: self.skipped, ..Self::default() };
        }
        self.skipped += piece.skipped;
        let history = piece.history.unwrap_or_else(|| std::mem::take(&mut self.progress.history));
        let lines = piece.lines.unwrap_or_else(|| std::mem::take(&mut self.progress.lines));
        if let Some(headline) = piece.headline {
            self.progress = headline;
        }
        (self.progress.history, self.progress.lines) = (history, lines);
        let ago = |ms: u64| now_ms.saturating_sub(ms);
        self.phase_since_ms = phase_ms.map(|ms| steady(self.phase_since_ms, ago(ms)));
        let since = more.none_back_ms.map(|ms| steady(self.none_back_since_ms, ago(ms)));
        self.none_back_since_ms = since;
        for Told { ago_ms, node, actor, fate, why } in more.happened {
            self.became(ActorEvent { at_ms: ago(ago_ms), node, actor, fate, why });
        }
        self.places.extend(named);
        for Heard { at, silent_ms, doing_ms } in heard {
            let Some(node) = self.places.get(at as usize) else { continue };
            let (reported_at_ms, since_ms) = (ago(silent_ms), ago(doing_ms));
            let seen = self.seen.entry(node.clone()).or_insert_with(|| NodeSeen {
                node: node.clone(),
                reported_at_ms,
                activity_since_ms: since_ms,
                clock_ahead_us: None,
                vitals: None,
            });
            seen.reported_at_ms = reported_at_ms;
            seen.activity_since_ms = steady(Some(seen.activity_since_ms), since_ms);
        }
        for Measured { at, clock_ahead_us, vitals } in measured {
            let node = self.places.get(at as usize);
            if let Some(seen) = node.and_then(|node| self.seen.get_mut(node)) {
                (seen.clock_ahead_us, seen.vitals) = (clock_ahead_us, vitals);
            }
        }
        for report in &piece.reports {
            let report: NodeReport = decode(report)?;
            self.nodes.insert(report.node.clone(), report);
        }
        Ok(())
    }

    /// Keeps what became of an actor; of each node only the last.
    fn became(&mut self, event: ActorEvent) {
        let of_node = |held: &&ActorEvent| held.node == event.node;
        if self.actor_events.iter().filter(of_node).count() >= HAPPENED_MAX
            && let Some(oldest) = self.actor_events.iter().position(|held| held.node == event.node)
        {
            self.actor_events.remove(oldest);
        }
        self.actor_events.push_back(event);
    }

    /// What it shows.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            nodes: self.nodes.values().cloned().collect(),
            progress: self.progress.clone(),
            phase_since_ms: self.phase_since_ms,
            seen: self.seen.values().cloned().collect(),
            none_back_since_ms: self.none_back_since_ms,
            actor_events: self.actor_events.iter().cloned().collect(),
        }
    }
}

/// When something began: as it was counted first, so that nothing seems to change where nothing does.
fn steady(before: Option<u64>, counted: u64) -> u64 {
    before.filter(|before| before.abs_diff(counted) < SAME_MS).unwrap_or(counted)
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
