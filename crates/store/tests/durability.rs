//! What is said to be durable is: after kill -9, on a full disk, in a damaged or foreign file.

#[path = "../../../tests/support/skips.rs"]
mod skips;
#[path = "../../../tests/support/until.rs"]
mod until;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crrl_store::{
    BatchRow, EpisodeRow, EventLog, Op, Options, Reader, StepRow, StoreError, Writer, settled,
};
use crrl_types::{
    AdapterVersion, Digest, EpisodeId, Event, EventKind, Finish, GroupId, Reward, Step, TimedWork,
    Timing, TokenSpan, ToolRecord, Trajectory, Turn, Work,
};
use skips::skipped;
use until::until;

const CHILD: &str = "CRRL_STORE_TEST_CHILD";

fn row(id: u64) -> EpisodeRow {
    EpisodeRow {
        episode: EpisodeId(id),
        group: GroupId(id / 4),
        task: "task".into(),
        phase: 1,
        ordinal: id / 4,
        sample: (id % 4) as u32,
        evaluation: false,
        attempt: 1,
        node: Some("rollout-0".into()),
        state: "finished".into(),
        reason: None,
        reward: Some(0.25),
        success: Some(false),
        oldest: Some(AdapterVersion(3)),
        generated: Some(7),
        step: None,
    }
}

fn trajectory(id: u64, len: usize) -> Trajectory {
    Trajectory {
        episode: EpisodeId(id),
        group: GroupId(id / 4),
        task: "task".into(),
        node: "rollout-0".into(),
        tokens: (0..len as u32).collect(),
        generated: (0..len).map(|i| i % 2 == 0).collect(),
        logprobs: (0..len).map(|i| -(i as f32) / 8.0).collect(),
        adapters: vec![TokenSpan {
            start: 0,
            end: len as u32,
            version: AdapterVersion(3),
            digest: Digest::of(b"a"),
        }],
        turns: vec![Turn {
            text: "I look".into(),
            tokens: 3,
            tools: vec![ToolRecord {
                name: "shell".into(),
                arguments: "{}".into(),
                output: "é\u{0}x".into(),
                ok: true,
                wall_ms: 4,
            }],
        }],
        finish: Finish::Done,
        diff: "--- a/x\n+++ b/x\n".into(),
        reward: Reward::from_components(Vec::new(), false),
        temperature: 1.0,
        wall_ms: 12,
    }
}

type Said = Receiver<Result<u64, StoreError>>;

fn start(path: &Path, options: Options) -> Result<(Writer<u64>, Said), StoreError> {
    let (say, said) = channel();
    let writer = Writer::start(path, options, move |words| drop(say.send(words)))?;
    Ok((writer, said))
}

fn next(said: &Said) -> Result<u64, StoreError> {
    said.recv_timeout(Duration::from_secs(30)).expect("an answer within 30 s")
}

#[test]
fn a_store_gives_back_what_was_put_in() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.sqlite");
    let (writer, said) = start(&path, Options::default()).expect("a new store");
    let batch = BatchRow {
        step: Step(1),
        phase: 1,
        version: AdapterVersion(3),
        committed: true,
        episodes: vec![EpisodeId(5), EpisodeId(2)],
    };
    let metrics = vec![("loss".to_owned(), -0.5), ("bad".to_owned(), f64::NAN)];
    let step = StepRow { step: Step(1), version: AdapterVersion(4), metrics };
    let ops = vec![
        Op::Episode(Box::new(EpisodeRow { state: "leased".into(), ..row(5) })),
        Op::Episode(Box::new(row(5))),
        Op::Trajectory(Box::new(trajectory(5, 40))),
        Op::Batch(batch.clone()),
        Op::Step(step),
        Op::Published(AdapterVersion(4), Digest::of(b"b")),
        Op::Quarantined("bad".into(), "killed 3".into()),
        Op::Meta("phase".into(), "1".into()),
    ];
    writer.submit(ops, 7).expect("open");
    assert_eq!(next(&said).expect("durable"), 7);
    let reader = Reader::open(&path).expect("a store");
    assert_eq!(reader.episodes_in(&["finished", "queued"]).expect("rows"), [row(5)]);
    assert_eq!(reader.trajectory(EpisodeId(5)).expect("rows"), Some(trajectory(5, 40)));
    assert_eq!(reader.trajectory(EpisodeId(6)).expect("rows"), None);
    assert_eq!(reader.last_batches(3).expect("rows"), [batch]);
    assert_eq!(reader.steps().expect("rows")[0].metrics, [("loss".to_owned(), -0.5)]);
    assert_eq!(reader.next_ids().expect("rows"), (EpisodeId(6), GroupId(2)));
    assert_eq!(reader.ordinals().expect("rows"), [(1, 2)]);
    assert_eq!(reader.meta("phase").expect("rows").as_deref(), Some("1"));
    assert_eq!(reader.quarantined().expect("rows").len(), 1);
    assert_eq!(reader.published().expect("rows"), [(AdapterVersion(4), Digest::of(b"b"))]);
}

#[test]
fn whoever_writes_next_waits_for_the_last_commit_of_whoever_wrote_before() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.sqlite");
    let ((say, said), (go_on, held)) = (channel(), channel::<()>());
    let writer = Writer::start(&path, Options::default(), move |words| {
        drop(say.send(words));
        // Until the other end is dropped.
        let _ = held.recv();
    })
    .expect("a new store");
    let note = |name: &str| vec![Op::Meta(name.into(), "written".into())];
    writer.submit(note("first"), 1).expect("open");
    next(&said).expect("durable");
    // It is held up, as by a slow disk, with this still to be written.
    writer.submit(note("second"), 2).expect("open");
    let within = |busy_wait| Options { busy_wait, ..Options::default() };
    let soon = within(Duration::from_millis(50));
    let error = start(&path, soon.clone()).expect_err("two at once");
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    let busy = settled(&path, &soon).expect_err("it is written to");
    assert!(matches!(busy, StoreError::Busy { .. }), "{busy}");
    std::thread::scope(|threads| {
        let waits = threads.spawn(|| start(&path, within(Duration::from_secs(60))));
        drop(go_on);
        drop(writer);
        let (next_life, _) = waits.join().expect("no panic").expect("nobody else writes");
        let reader = Reader::open(&path).expect("a store");
        assert_eq!(reader.meta("second").expect("readable").as_deref(), Some("written"));
        drop(next_life);
    });
}

/// Not a test of its own: what the killed process does.
#[test]
fn child_writes_until_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let (writer, said) = start(Path::new(&path), Options::default()).expect("a store");
    let mut out = std::io::stdout();
    for id in 0.. {
        writer
            .submit(
                vec![Op::Episode(Box::new(row(id))), Op::Trajectory(Box::new(trajectory(id, 300)))],
                id,
            )
            .expect("open");
        while let Ok(durable) = said.try_recv() {
            writeln!(out, "durable {}", durable.expect("disk")).expect("the parent reads");
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.sqlite");
    let mut next_id = 0;
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child_writes_until_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut acknowledged = 0;
        for line in lines.map_while(Result::ok) {
            if let Some(id) = line.strip_prefix("durable ") {
                acknowledged = id.parse().expect("a number");
            }
            if acknowledged >= 50 + 37 * round {
                break;
            }
        }
        child.kill().expect("it runs");
        child.wait().expect("it ran");
        // Opening checks every page.
        drop(start(&path, Options::default()).expect("the store is whole"));
        let reader = Reader::open(&path).expect("a store");
        next_id = reader.next_ids().expect("rows").0.0;
        assert!(next_id > acknowledged, "{acknowledged} was acknowledged, {next_id} is next");
        for id in [0, acknowledged] {
            let kept = reader.trajectory(EpisodeId(id)).expect("rows");
            assert_eq!(kept, Some(trajectory(id, 300)));
        }
    }
    assert!(next_id > 0);
}

/// One trajectory after the other, each acknowledged before the next, until the store is full.
fn fill(writer: &Writer<u64>, said: &Said) -> (u64, StoreError) {
    let mut durable = 0;
    for id in 0..10_000 {
        let ops =
            vec![Op::Episode(Box::new(row(id))), Op::Trajectory(Box::new(trajectory(id, 4000)))];
        writer.submit(ops, id).expect("it takes more until it says that it is full");
        match next(said) {
            Ok(id) => durable = id,
            Err(error) => return (durable, error),
        }
    }
    panic!("10,000 trajectories and still not full");
}

fn is_full_and_readable(path: &Path, durable: u64, error: &StoreError) {
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains("resume"), "no advice: {error}");
    let reader = Reader::open(path).expect("a store");
    assert_eq!(
        reader.trajectory(EpisodeId(durable)).expect("rows"),
        Some(trajectory(durable, 4000))
    );
}

#[test]
fn a_store_at_its_bound_says_so_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.sqlite");
    let options = Options { bytes_max: Some(1 << 20), ..Options::default() };
    let (writer, said) = start(&path, options).expect("a new store");
    let (durable, error) = fill(&writer, &said);
    is_full_and_readable(&path, durable, &error);
    // The writer says why a moment before it closes.
    until("an error for whoever writes more", || writer.submit(Vec::new(), 0).err());
}

#[test]
fn a_full_disk_says_so_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).expect("writable");
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(&disk)
        .stderr(Stdio::null())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        return skipped("a small disk cannot be mounted here (it takes root and mount)");
    }
    let path = disk.join("run.sqlite");
    let outcome = std::panic::catch_unwind(|| {
        let (writer, said) = start(&path, Options::default()).expect("a new store");
        let (durable, error) = fill(&writer, &said);
        drop(writer);
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert!(durable > 0);
    });
    let unmounted = Command::new("umount").arg("-l").arg(&disk).status();
    outcome.expect("the checks above");
    assert!(unmounted.is_ok_and(|status| status.success()));
}

#[test]
fn other_files_are_refused_by_what_they_are() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.sqlite");
    let refusal = |path: &Path| start(path, Options::default()).expect_err("refused").to_string();
    std::fs::write(&path, b"no database at all, but long enough to be one".repeat(40))
        .expect("writable");
    assert!(refusal(&path).contains("damaged"), "{}", refusal(&path));

    let foreign = folder.path().join("foreign.sqlite");
    let other = rusqlite::Connection::open(&foreign).expect("writable");
    other.execute_batch("CREATE TABLE t (x)").expect("writable");
    drop(other);
    assert!(refusal(&foreign).contains("not a run store"), "{}", refusal(&foreign));

    let newer = folder.path().join("newer.sqlite");
    drop(start(&newer, Options::default()).expect("a new store"));
    let other = rusqlite::Connection::open(&newer).expect("ours");
    other.execute_batch("PRAGMA user_version = 99").expect("writable");
    drop(other);
    assert!(refusal(&newer).contains("version 99"), "{}", refusal(&newer));

    let torn = folder.path().join("torn.sqlite");
    let (writer, said) = start(&torn, Options::default()).expect("a new store");
    for id in 0..100 {
        writer.submit(vec![Op::Trajectory(Box::new(trajectory(id, 500)))], id).expect("open");
        next(&said).expect("durable");
    }
    drop(writer);
    let mut bytes = std::fs::read(&torn).expect("a file");
    let half = bytes.len() / 2;
    bytes[half..half + 9000].fill(0xa5);
    std::fs::write(&torn, bytes).expect("writable");
    assert!(refusal(&torn).contains("damaged"), "{}", refusal(&torn));
}

#[test]
fn a_store_of_an_earlier_build_is_read_as_it_is_and_brought_up_by_whoever_writes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.sqlite");
    let (writer, said) = start(&path, Options::default()).expect("a new store");
    writer.submit(vec![Op::Trajectory(Box::new(trajectory(7, 9)))], 1).expect("open");
    next(&said).expect("durable");
    drop(writer);
    // As the build before left it.
    let old = rusqlite::Connection::open(&path).expect("a store");
    old.execute_batch("DROP TABLE timings; PRAGMA user_version = 2;").expect("writable");
    drop(old);
    let reader = Reader::open(&path).expect("an old store is read");
    assert_eq!(reader.timings(EpisodeId(7)).expect("no table is no timing"), []);
    let outcome = reader.outcome(EpisodeId(7)).expect("readable").expect("it came back");
    let whole = reader.trajectory(EpisodeId(7)).expect("readable").expect("it came back");
    assert_eq!((outcome.node, outcome.reward), (whole.node, whole.reward));
    drop(reader);

    let (writer, said) = start(&path, Options::default()).expect("it is brought up");
    let work = TimedWork { from_us: 3, took_us: 4, turn: 1, work: Work::Diff };
    let timing = Timing { began_ms: 1, took_us: 9, works: vec![work], left_out: 0 };
    let timed = |attempt, node: &str| Op::Timed {
        episode: EpisodeId(7),
        attempt,
        node: node.into(),
        timing: timing.clone(),
    };
    writer.submit(vec![timed(2, "b"), timed(1, "a"), timed(1, "a")], 2).expect("open");
    next(&said).expect("durable");
    let reader = Reader::open(&path).expect("a store");
    let told = reader.timings(EpisodeId(7)).expect("readable");
    let told: Vec<_> = told.iter().map(|t| (t.attempt, t.node.as_str(), &t.timing)).collect();
    assert_eq!(told, [(1, "a", &timing), (2, "b", &timing)]);
    assert_eq!(reader.trajectory(EpisodeId(7)).expect("readable"), Some(trajectory(7, 9)));
}

#[test]
fn a_torn_line_of_history_is_cut_off() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("events.jsonl");
    let event = |at_ms| Event {
        at_ms,
        node: "coordinator".into(),
        kind: EventKind::Trained { episode: EpisodeId(1), step: Step(2) },
    };
    let mut log = EventLog::open(&path, Duration::ZERO).expect("writable");
    log.append(&[event(1), event(2)]).expect("writable");
    drop(log);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("writable");
    file.write_all(br#"{"at_ms": 3, "no"#).expect("writable");
    drop(file);
    EventLog::open(&path, Duration::ZERO).expect("writable").append(&[event(4)]).expect("writable");
    let text = std::fs::read_to_string(&path).expect("a file");
    let events: Vec<Event> =
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(events, [event(1), event(2), event(4)]);
}

#[test]
fn a_full_disk_under_the_history_is_an_error() {
    if !Path::new("/dev/full").exists() {
        return skipped("no /dev/full here (Linux has it, and a container that is given /dev)");
    }
    let mut log = EventLog::open(Path::new("/dev/full"), Duration::ZERO).expect("it opens");
    let kind = EventKind::NodeDown { peer: "a".into(), reason: "gone".into() };
    let event = Event { at_ms: 0, node: "coordinator".into(), kind };
    let error = log.append(&[event]).expect_err("full");
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
}
