//! The board as one viewer has it: in pieces of bounded size, what changed longest unseen first.
//!
//! A viewer at the coordinator is a [`Cursor`]: one number a node, and nothing queued. What it was
//! too slow to take is never sent; what is sent is as things are then. The viewer's own end is a
//! [`Picture`].

use std::collections::{BTreeMap, VecDeque};

use crrl_control::wire::NodeReport;
use crrl_transport::codec::OLDEST;
use crrl_transport::{DecodeError, EncodeError, decode, encode_as};
use crrl_types::NodeName;
use serde::{Deserialize, Serialize};

use crate::board::{Progress, RewardPoint, Snapshot, StatusBoard};

/// What changed.
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
    at: usize,
    replaced: Option<u64>,
    progress: Progress,
}

impl Cursor {
    /// The next piece, of about `bytes_max` at most: one report is sent however large it is.
    ///
    /// # Errors
    /// A report that cannot be encoded (none of ours).
    pub(crate) fn next(
        &mut self,
        board: &StatusBoard,
        bytes_max: usize,
        skipped: u64,
    ) -> Result<Piece, EncodeError> {
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
        // A viewer of the build before reads it too.
        let mut bytes = encode_as(OLDEST, &piece)?.len();
        self.revisions.resize(board.places.len(), 0);
        let places = board.places.len();
        let first = self.at;
        for at in (first..places).chain(0..first.min(places)) {
            let place = &board.places[at];
            if place.revision <= self.revisions[at] {
                continue;
            }
            if bytes >= bytes_max && !piece.reports.is_empty() {
                piece.behind += 1;
                continue;
            }
            let report = encode_as(OLDEST, &place.report)?;
            bytes += report.len();
            piece.reports.push(report);
            self.revisions[at] = place.revision;
            self.at = at + 1;
        }
        Ok(piece)
    }
}

impl Piece {
    /// Whether everything there is has been sent.
    pub(crate) fn is_last(&self) -> bool {
        self.behind == 0
    }
}

/// The board, as it was put together from pieces.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    nodes: BTreeMap<NodeName, NodeReport>,
    progress: Progress,
    /// Pieces that were due while nobody read here.
    pub(crate) skipped: u64,
}

impl Picture {
    /// Adds a piece.
    ///
    /// # Errors
    /// A report of another build.
    pub(crate) fn add(&mut self, piece: Piece) -> Result<(), DecodeError> {
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
        for report in &piece.reports {
            let report: NodeReport = decode(report)?;
            self.nodes.insert(report.node.clone(), report);
        }
        Ok(())
    }

    /// What it shows.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { nodes: self.nodes.values().cloned().collect(), progress: self.progress.clone() }
    }
}

#[cfg(test)]
mod tests {
    use crrl_control::wire::{NodeRole, NodeState};
    use crrl_types::{AdapterVersion, Digest};

    use super::*;

    fn report(at: u32, activity: &str) -> NodeReport {
        NodeReport {
            node: format!("rollout-{at:04}").as_str().into(),
            roles: vec![NodeRole::Rollout],
            pid: at,
            incarnation: 1,
            state: NodeState::Ready,
            adapter_version: AdapterVersion(0),
            adapter_digest: Digest::default(),
            tokens_per_s: 0.0,
            episodes: 0,
            rss_bytes: 0,
            activity: activity.to_owned(),
            faults: Vec::new(),
            actors: Vec::new(),
            live: Vec::new(),
        }
    }

    #[test]
    fn pieces_make_up_the_board_and_only_what_changed_comes_again() {
        let board = StatusBoard::new();
        for at in 0..500 {
            board.report(report(at, "rolling out"));
        }
        board.progress(|p| p.push_line("first"));
        let (mut cursor, mut picture, mut pieces) = (Cursor::default(), Picture::default(), 0);
        loop {
            let piece = cursor.next(&board, 4096, 0).expect("encodes");
            let is_last = piece.is_last();
            let bytes = encode_as(OLDEST, &piece).expect("encodes").len();
            assert!(bytes < 6000, "{bytes} bytes in one piece");
            picture.add(piece).expect("decodes");
            pieces += 1;
            if is_last {
                break;
            }
        }
        assert!(pieces > 5, "{pieces} pieces");
        assert_eq!(picture.snapshot(), board.snapshot());
        board.report(report(77, "idle"));
        board.lost(&"rollout-0400".into(), "gone");
        let piece = cursor.next(&board, 4096, 3).expect("encodes");
        assert_eq!((piece.reports.len(), piece.lines.is_some()), (2, false));
        picture.add(piece).expect("decodes");
        assert_eq!((picture.snapshot(), picture.skipped), (board.snapshot(), 3));
        board.update(|snapshot| snapshot.nodes.truncate(2));
        picture.add(cursor.next(&board, 4096, 0).expect("encodes")).expect("decodes");
        assert_eq!(picture.snapshot(), board.snapshot(), "nodes that are gone are gone");
    }

    #[test]
    fn with_too_little_room_every_node_has_its_turn() {
        let board = StatusBoard::new();
        let mut seen = BTreeMap::<NodeName, u32>::new();
        let mut cursor = Cursor::default();
        for round in 0..60 {
            // All of them say something new before each piece.
            for at in 0..100 {
                board.report(report(at, &format!("round {round}")));
            }
            for encoded in cursor.next(&board, 512, 0).expect("encodes").reports {
                let report: NodeReport = decode(&encoded).expect("decodes");
                *seen.entry(report.node).or_default() += 1;
            }
        }
        let (least, most) = (seen.values().min(), seen.values().max());
        assert_eq!(seen.len(), 100);
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{seen:?}");
    }
}
