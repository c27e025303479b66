//! Pieces of a board, put together again.

use std::time::Duration;

use crrl_control::wire::{NodeRole, NodeState};
use crrl_types::actor::{ActorReport, ActorState, EpisodeReport};
use crrl_types::{AdapterVersion, Digest, EpisodeId, GroupId};

use super::*;

/// Of some day.
const NOW_MS: u64 = 1_700_000_000_000;

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

/// What both show, but for when nodes were heard.
fn shown(picture: &Picture, board: &StatusBoard) -> [(Vec<NodeReport>, Progress); 2] {
    [picture.snapshot(), board.snapshot()].map(|shown| (shown.nodes, shown.progress))
}

/// The next piece, by way of its bytes.
fn next(cursor: &mut Cursor, board: &StatusBoard, bytes_max: usize, now: Instant) -> TimedPiece {
    let piece = cursor.next(board, bytes_max, 0, now).expect("encodes");
    let bytes = piece.encoded(Form::Timed).expect("encodes");
    TimedPiece::decoded(Form::Timed, &bytes).expect("decodes")
}

#[test]
fn pieces_make_up_the_board_and_only_what_changed_comes_again() {
    let board = StatusBoard::new();
    for at in 0..500 {
        board.report(report(at, "rolling out"));
    }
    board.progress(|p| p.push_line("first"));
    let (mut cursor, mut picture, mut pieces) = (Cursor::default(), Picture::default(), 0);
    // Whom there is and when each was heard comes whole; the rest in pieces.
    let room = 12_000;
    loop {
        let piece = cursor.next(&board, room, 0, Instant::now()).expect("encodes");
        let is_last = piece.is_last();
        let bytes = piece.encoded(Form::Timed).expect("encodes").len();
        assert!(bytes < room + 2_000, "{bytes} bytes in one piece");
        picture.add(piece, NOW_MS).expect("decodes");
        pieces += 1;
        if is_last {
            break;
        }
    }
    assert!(pieces > 2, "{pieces} pieces");
    let [seen, there] = shown(&picture, &board);
    assert_eq!(seen, there);
    board.report(report(77, "idle"));
    board.lost(&"rollout-0400".into(), "gone");
    let piece = cursor.next(&board, 4096, 3, Instant::now()).expect("encodes");
    assert_eq!((piece.piece.reports.len(), piece.piece.lines.is_some()), (2, false));
    assert_eq!((piece.heard.len(), piece.named.len()), (2, 0));
    picture.add(piece, NOW_MS).expect("decodes");
    let [seen, there] = shown(&picture, &board);
    assert_eq!((seen, picture.skipped), (there, 3));
    board.update(|snapshot| snapshot.nodes.truncate(2));
    picture.add(next(&mut cursor, &board, 4096, Instant::now()), NOW_MS).expect("decodes");
    let [seen, there] = shown(&picture, &board);
    assert_eq!(seen, there, "nodes that are gone are gone");
    assert_eq!(picture.snapshot().seen.len(), 2);
}

#[test]
fn with_too_little_room_every_node_has_its_turn() {
    let board = StatusBoard::new();
    let mut seen = BTreeMap::<NodeName, u32>::new();
    let (mut cursor, now) = (Cursor::default(), Instant::now());
    for round in 0..60 {
        // All of them say something new before each piece.
        for at in 0..100 {
            board.report_at(report(at, &format!("round {round}")), now);
        }
        let piece = cursor.next(&board, 512, 0, now).expect("encodes").piece;
        for encoded in piece.reports {
            let report: NodeReport = decode(&encoded).expect("decodes");
            *seen.entry(report.node).or_default() += 1;
        }
    }
    let (least, most) = (seen.values().min(), seen.values().max());
    assert_eq!(seen.len(), 100);
    assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{seen:?}");
}

#[test]
fn a_viewer_of_the_build_before_gets_what_it_knows() {
    let board = StatusBoard::new();
    board.report(report(1, "rolling out"));
    let piece = Cursor::default().next(&board, 4096, 0, Instant::now()).expect("encodes");
    let bytes = piece.encoded(Form::Plain).expect("encodes");
    let plain: Piece = decode(&bytes).expect("it is the piece alone");
    assert_eq!((bytes[2], plain.reports.len()), (OLDEST, 1));
    // And the other way round: a coordinator of the build before says nothing of ages.
    let mut picture = Picture::default();
    let piece = TimedPiece::decoded(Form::Plain, &bytes).expect("decodes");
    picture.add(piece, NOW_MS).expect("decodes");
    let shown = picture.snapshot();
    assert_eq!((shown.nodes.len(), shown.seen, shown.phase_since_ms), (1, Vec::new(), None));
}

#[test]
fn a_viewer_that_attaches_late_is_told_the_true_ages_and_adds_what_passed_since() {
    let (board, begin) = (StatusBoard::new(), Instant::now());
    let after = |s| begin + Duration::from_secs(s);
    board.progress_at(|p| p.phase = "training, waiting for a rollout node".into(), begin);
    for s in 0..=40 {
        board.report_at(report(0, "waiting for a batch"), after(s));
    }
    let (mut cursor, mut picture) = (Cursor::default(), Picture::default());
    picture.add(next(&mut cursor, &board, 4096, after(41)), NOW_MS).expect("decodes");
    let shown = picture.snapshot();
    assert_eq!(shown.phase_since_ms, Some(NOW_MS - 41_000));
    assert_eq!(shown.seen[0].activity_since_ms, NOW_MS - 41_000);
    assert_eq!(shown.seen[0].reported_at_ms, NOW_MS - 1_000);
    // Nothing new comes: nothing moves. A report that was on its way for longer moves nothing either.
    picture.add(next(&mut cursor, &board, 4096, after(43)), NOW_MS + 2_000).expect("decodes");
    assert_eq!(picture.snapshot().seen, shown.seen);
    board.report_at(report(0, "waiting for a batch"), after(44));
    picture.add(next(&mut cursor, &board, 4096, after(44)), NOW_MS + 3_200).expect("decodes");
    let later = picture.snapshot();
    assert_eq!(later.phase_since_ms, Some(NOW_MS - 41_000));
    assert_eq!(later.seen[0].activity_since_ms, NOW_MS - 41_000);
    assert_eq!(later.seen[0].reported_at_ms, NOW_MS + 3_200);
    board.report_at(report(0, "step 3"), after(46));
    picture.add(next(&mut cursor, &board, 4096, after(46)), NOW_MS + 5_000).expect("decodes");
    assert_eq!(picture.snapshot().seen[0].activity_since_ms, NOW_MS + 5_000);
}

/// Twenty thousand actors in a thousand nodes are more than a viewer is told of in 5 s. Their rows have to
/// wait for their turn; when their nodes were heard has not.
#[test]
fn of_twenty_thousand_actors_no_node_seems_silent_but_the_one_that_is() {
    const NODES: u32 = 1_000;
    const ACTORS: usize = 20;
    const PIECES_PER_S: u64 = 5;
    const ROOM: usize = crate::operator::VIEW_BYTES_PER_S / PIECES_PER_S as usize;
    const SILENT: u32 = 500;
    const SILENT_FROM_S: u64 = 10;
    let actor = |at: usize, s: u64| ActorReport {
        name: format!("rollout-{at}"),
        kind: "Rollout".into(),
        parent: Some("node".into()),
        handled: 37 * s,
        handling: Some(("Inbound".into(), 3)),
        up_ms: 1_000 * s,
        ..ActorReport::default()
    };
    let episode = |at: u64| EpisodeReport {
        episode: EpisodeId(at),
        group: GroupId(at),
        task: "pytree-0001-operator-swap".into(),
        turns: 3,
        calls: 4,
        doing: "shell grep -n total table.py".into(),
        age_ms: 9_000,
        idle_ms: 120,
        version: AdapterVersion(0),
    };
    let full = |at: u32, s: u64| NodeReport {
        actors: (0..ACTORS).map(|at| actor(at, s)).collect(),
        live: (0..16).map(episode).collect(),
        ..report(at, "rolling out")
    };
    let (board, begin) = (StatusBoard::new(), Instant::now());
    let (mut cursor, mut picture) = (Cursor::default(), Picture::default());
    let (mut oldest_row_ms, mut bytes_most) = (0, 0);
    let silent = NodeName::from(format!("rollout-{SILENT:04}"));
    for s in 0..30_u64 {
        let now = begin + Duration::from_secs(s);
        for at in (0..NODES).filter(|at| *at != SILENT || s < SILENT_FROM_S) {
            board.report_at(full(at, s), now);
        }
        for n in 0..PIECES_PER_S {
            let since_ms = 1_000 * s + 200 * n;
            let piece = cursor.next(&board, ROOM, 0, now + Duration::from_millis(200 * n));
            let piece = piece.expect("encodes");
            bytes_most = bytes_most.max(piece.encoded(Form::Timed).expect("encodes").len());
            picture.add(piece, NOW_MS + since_ms).expect("decodes");
            assert_eq!(picture.seen.len(), NODES as usize);
            for seen in picture.seen.values() {
                let silent_ms = NOW_MS + since_ms - seen.reported_at_ms;
                if seen.node != silent || s < SILENT_FROM_S {
                    assert!(silent_ms < 1_000, "{} after {s} s: {silent_ms} ms", seen.node);
                } else {
                    assert_eq!(silent_ms, since_ms - 1_000 * (SILENT_FROM_S - 1));
                }
            }
            let others = picture.nodes.values().filter(|node| node.node != silent);
            let row_ms = others.map(|node| since_ms - node.actors[0].up_ms).max().unwrap_or(0);
            oldest_row_ms = oldest_row_ms.max(row_ms);
        }
    }
    println!("the oldest row was {oldest_row_ms} ms old, the largest piece {bytes_most} bytes");
    assert!(oldest_row_ms > 5_000, "rows had no need to wait: {oldest_row_ms} ms");
    // When a thousand nodes were heard takes some bytes each of what there is for everything.
    assert!(bytes_most < ROOM + 8_192, "{bytes_most} bytes");
}

/// A report that is larger than what a viewer may be sent in a second is paid for by what follows it.
#[test]
fn of_a_node_with_ten_thousand_actors_no_more_is_sent_than_a_viewer_may_cost() {
    const PIECES_PER_S: u64 = 5;
    const PER_S: usize = crate::operator::VIEW_BYTES_PER_S;
    const S: u64 = 40;
    let actor = |at: usize, s: u64| ActorReport {
        name: format!("rollout-{at}"),
        kind: "Rollout".into(),
        parent: Some("node".into()),
        state: ActorState::Idle,
        handled: 37_000 * s,
        busy_ms: 900 * s,
        up_ms: 1_000 * s,
        ..ActorReport::default()
    };
    let large = |s: u64| NodeReport {
        actors: (0..10_000).map(|at| actor(at, s)).collect(),
        ..report(0, "rolling out")
    };
    let (board, begin) = (StatusBoard::new(), Instant::now());
    let (mut cursor, mut picture) = (Cursor::default(), Picture::default());
    let (mut bytes, mut largest, mut rows) = (0, 0, 0);
    for s in 0..S {
        let now = begin + Duration::from_secs(s);
        board.report_at(large(s), now);
        board.report_at(report(1, &format!("step {s}")), now);
        for n in 0..PIECES_PER_S {
            let now = now + Duration::from_millis(200 * n);
            let room = PER_S / PIECES_PER_S as usize;
            let piece = cursor.next(&board, room, 0, now).expect("encodes");
            let len = piece.encoded(Form::Full).expect("encodes").len();
            (bytes, largest) = (bytes + len, largest.max(len));
            rows += piece.piece.reports.len();
            picture.add(piece, NOW_MS + 1_000 * s + 200 * n).expect("decodes");
            // Its row waits for its turn; when it was heard does not.
            assert!(picture.seen.values().all(|seen| seen.reported_at_ms >= NOW_MS + 1_000 * s));
        }
    }
    assert!(largest > PER_S, "{largest} bytes are no large piece");
    let most = S as usize * PER_S + largest;
    assert!(bytes < most, "{bytes} bytes in {S} s, and {most} may be");
    // Both have their turns, and as many as there is room for.
    assert!(bytes > most / 2 && rows > 10, "{bytes} bytes, {rows} rows");
    assert!(picture.nodes.values().all(|node| node.pid == 0 || node.activity != "step 0"));
}

#[test]
fn what_the_board_knows_of_the_run_is_told_to_whoever_asks_for_it() {
    let (board, begin) = (StatusBoard::new(), Instant::now());
    let after = |s| begin + Duration::from_secs(s);
    let actor = |state, restarts| ActorReport {
        name: "rollout".into(),
        state,
        restarts,
        last_failure: Some("no space".into()),
        ..ActorReport::default()
    };
    let with = |actor| NodeReport { actors: vec![actor], ..report(0, "rolling out") };
    board.report_at(with(actor(ActorState::Idle, 0)), begin);
    board.progress_at(|progress| progress.episodes.in_flight = 3, after(1));
    let (mut cursor, mut picture) = (Cursor::default(), Picture::default());
    let mut look = |picture: &mut Picture, form: Form, s: u64| {
        let piece = cursor.next(&board, 4096, 0, after(s)).expect("encodes");
        let bytes = piece.encoded(form).expect("encodes");
        let piece = TimedPiece::decoded(form, &bytes).expect("decodes");
        picture.add(piece, NOW_MS + 1_000 * s).expect("decodes");
        picture.snapshot()
    };
    let shown = look(&mut picture, Form::Full, 11);
    assert_eq!((shown.none_back_since_ms, shown.actor_events.len()), (Some(NOW_MS + 1_000), 0));
    board.came_back_at("solved", after(12));
    board.report_at(with(actor(ActorState::Failed, 0)), after(13));
    board.report_at(with(actor(ActorState::Idle, 1)), after(14));
    let shown = look(&mut picture, Form::Full, 20);
    assert_eq!(shown.none_back_since_ms, Some(NOW_MS + 12_000));
    let told: Vec<(u64, Fate)> =
        shown.actor_events.iter().map(|event| (event.at_ms - NOW_MS, event.fate)).collect();
    assert_eq!(told, [(13_000, Fate::Failed), (14_000, Fate::Restarted)]);
    assert_eq!(shown.actor_events[0].why.as_deref(), Some("no space"));
    let there = board.snapshot();
    assert_eq!(there.actor_events.len(), 2);
    // It is told once, and kept.
    assert_eq!(look(&mut picture, Form::Full, 21).actor_events, shown.actor_events);
    // A viewer of an earlier build of this protocol version reads what it did.
    let mut before = Picture::default();
    let piece = Cursor::default().next(&board, 4096, 0, after(22)).expect("encodes");
    let bytes = piece.encoded(Form::Timed).expect("encodes");
    before
        .add(TimedPiece::decoded(Form::Timed, &bytes).expect("decodes"), NOW_MS)
        .expect("decodes");
    let shown = before.snapshot();
    assert_eq!((shown.nodes.len(), shown.none_back_since_ms), (1, None));
    assert!(shown.actor_events.is_empty());
}

#[test]
fn of_a_node_whose_actors_fail_again_and_again_the_last_are_kept() {
    let (board, begin) = (StatusBoard::new(), Instant::now());
    let with = |name: &str, restarts| NodeReport {
        actors: vec![ActorReport { name: name.into(), restarts, ..ActorReport::default() }],
        ..report(u32::from(name == "once"), "rolling out")
    };
    board.report_at(with("once", 0), begin);
    board.report_at(with("once", 1), begin);
    for restarts in 0..200 {
        board.report_at(with("often", restarts), begin);
    }
    let (mut cursor, mut picture, mut pieces) = (Cursor::default(), Picture::default(), 0);
    loop {
        let piece = next_full(&mut cursor, &board, begin);
        let is_last = piece.is_last();
        picture.add(piece, NOW_MS).expect("decodes");
        pieces += 1;
        if is_last {
            break;
        }
    }
    let shown = picture.snapshot();
    let of = |name: &str| shown.actor_events.iter().filter(|event| event.actor == name).count();
    assert_eq!((of("once"), of("often"), pieces), (1, HAPPENED_MAX, 2));
}

fn next_full(cursor: &mut Cursor, board: &StatusBoard, now: Instant) -> TimedPiece {
    let piece = cursor.next(board, 1 << 20, 0, now).expect("encodes");
    let bytes = piece.encoded(Form::Full).expect("encodes");
    TimedPiece::decoded(Form::Full, &bytes).expect("decodes")
}
