//! Recordings: made, read, played, refused.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crossterm::event::KeyCode;
use crrl_cluster::RunDir;
use crrl_inspect::InspectError;
use crrl_inspect::collector::Collector;
use crrl_inspect::frame::{Frame, Link};
use crrl_inspect::kept::{Kept, Transcript};
use crrl_inspect::pieces::Pieces;
use crrl_inspect::player::Player;
use crrl_inspect::recording::{Recorder, Recording, What};
use crrl_inspect::state::app::Opened;
use crrl_inspect::state::transcript::{Entry, Journal};
use crrl_inspect::state::{App, Screen, World};
use crrl_store::{Op, Options, Writer};
use crrl_types::{AdapterVersion, Digest, EpisodeId, JournalEntry, Sampled, Stop};
use tempfile::TempDir;

use crate::keys::{press, tap};
use crate::leftovers::{left, over, step, trajectory};
use crate::scene;
use crate::screens::{seen_as, shows};

const DEADLINE: Duration = Duration::from_secs(60);

fn recorded(seconds: std::ops::Range<u64>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.rec");
    let mut recorder = Recorder::create(&path, "quickstart").expect("writable");
    for s in seconds {
        assert!(recorder.push(&scene::frame(s)).expect("writable"));
        assert!(recorder.push(&scene::frame(s)).expect("writable"), "the same again is no line");
    }
    (folder, path)
}

#[test]
fn what_is_recorded_is_what_is_read() {
    let (_folder, path) = recorded(150..160);
    let mut recording = Recording::open(&path).expect("a recording");
    assert_eq!((recording.run(), recording.times().len()), ("quickstart", 10));
    for (at, s) in (150..160).enumerate() {
        assert!(recording.frame(at).expect("readable") == scene::frame(s), "second {s}");
    }
}

#[test]
fn a_newer_version_is_a_clear_error() {
    let (_folder, path) = recorded(150..152);
    let text = std::fs::read_to_string(&path).expect("readable");
    for (version, says) in [(3, "version 3, of a newer build,"), (0, "version 0, and this build")] {
        let other = text.replacen("\"version\":2", &format!("\"version\":{version}"), 1);
        std::fs::write(&path, other).expect("writable");
        let error = Recording::open(&path).expect_err("refused");
        assert_eq!(error.exit_code(), 2);
        let error = error.to_string();
        assert!(error.contains(says) && error.contains("reads versions 1 to 2"), "{error}");
    }
}

/// Two frames as the build before wrote them.
const VERSION_1: &str = r#"{"format":"crrl-inspect-recording","version":1,"run":"old"}
{"at_ms":1700000000000,"snapshot":{"nodes":[{"node":"rollout-0","roles":["rollout"],"pid":7,"incarnation":1,"state":"ready","adapter_version":3,"adapter_digest":"0000000000000000000000000000000000000000000000000000000000000000","tokens_per_s":120.5,"episodes":1,"rss_bytes":1048576,"activity":"1 episode","faults":[],"actors":[{"name":"engine","kind":"Engine","parent":"rollout","state":"busy","waiting":2,"waiting_max":7,"oldest_ms":4,"handled":90,"busy_ms":80,"handling":["Generate",30],"restarts":0,"last_failure":null,"up_ms":900}],"live":[{"episode":9,"group":1,"task":"t","turns":2,"calls":1,"doing":"thinking","age_ms":80,"idle_ms":9,"version":3}]}],"progress":{"phase":"training","step":3,"steps":40,"adapter_version":3,"history":[{"step":3,"reward":0.5,"success":0.25,"attempts":8}],"episodes":{"dispatched":9,"in_flight":1,"finished":8,"trained":8,"dropped":0,"failed":0},"metrics":[["loss",0.5]],"lines":[]}},"processes":[]}
{"at_ms":1700000001000,"snapshot":{"nodes":[],"progress":{"phase":"done","step":4,"steps":40,"adapter_version":4,"history":[],"episodes":{"dispatched":9,"in_flight":0,"finished":9,"trained":9,"dropped":0,"failed":0},"metrics":[],"lines":[]}},"processes":[]}
"#;

#[test]
fn a_recording_of_the_version_before_is_played() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("old.rec");
    std::fs::write(&path, VERSION_1).expect("writable");
    let mut replay = Replay::open(&path);
    let screen = replay.at(0, "6");
    shows(&screen, &["live", "rollout-0", "thinking"]);
    tap(&mut replay.app, &replay.world, KeyCode::Enter);
    shows(&replay.screen(), &["episode 9", "The recording holds no turn of it up to now"]);
    shows(&replay.at(1_000, "1"), &["done", "step 4/40"]);
    shows(&replay.screen_of("9"), &["The recording holds nothing of the run's history"]);
}

/// A recording being watched, without a terminal.
struct Replay {
    player: Player,
    world: World,
    app: App,
}

impl Replay {
    fn open(path: &Path) -> Self {
        let mut player = Player::new(Recording::open(path).expect("a recording"));
        let (mut world, mut app) = (World::new(), App::new("replay"));
        app.is_replay = true;
        player.pass(0, &mut world).expect("readable");
        Self { player, world, app }
    }

    /// So many milliseconds later, or earlier.
    fn go(&mut self, by_ms: i64) {
        self.player.seek(by_ms, &mut self.world).expect("readable");
    }

    fn screen(&mut self) -> String {
        self.player.tell(&mut self.app);
        seen_as(&mut self.app, &self.world, &self.player.link(), (120, 40))
    }

    fn screen_of(&mut self, key: &str) -> String {
        press(&mut self.app, &self.world, key);
        self.screen()
    }

    fn at(&mut self, by_ms: i64, key: &str) -> String {
        self.go(by_ms);
        self.screen_of(key)
    }
}

const AT_MS: u64 = scene::BEGIN_MS + 150_000;

fn wrote(text: &str) -> Entry {
    let tokens = Pieces { pieces: Vec::new(), left_out: 0, note: Some("no tokenizer".into()) };
    Entry::Wrote { text: text.into(), tokens, stop: Stop::EndOfTurn }
}

/// Half a minute: an episode is under way from second 155, goes on at 160 and is over at 170.
fn with_an_episode() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.rec");
    let mut recorder = Recorder::create(&path, "quickstart").expect("writable");
    let keep = |recorder: &mut Recorder, kept: Kept| {
        assert!(recorder.keep(&kept).expect("writable"));
    };
    let before = (1..=14).map(step).collect();
    keep(&mut recorder, Kept::Steps { at_ms: AT_MS - 1, steps: before });
    let rows = vec![over(3), over(4)];
    keep(&mut recorder, Kept::Over { at_ms: AT_MS - 1, is_all: true, rows });
    let journal = |at_ms, first, text: &str| {
        let entries = vec![wrote(text)];
        Kept::Journal { at_ms, episode: 7, attempt: 1, first, entries }
    };
    for s in 150..180 {
        recorder.push(&scene::frame(s)).expect("writable");
        let at_ms = scene::BEGIN_MS + s * 1_000;
        keep(&mut recorder, Kept::Events { at_ms, events: scene::events(s) });
        match s {
            155 => keep(&mut recorder, journal(at_ms, 0, "So far.")),
            160 => {
                keep(&mut recorder, journal(at_ms, 1, "And on."));
                keep(&mut recorder, Kept::Steps { at_ms, steps: vec![step(15), step(16)] });
            }
            170 => {
                let left = Box::new(Transcript::of(left()));
                keep(&mut recorder, Kept::Left { at_ms, episode: 7, left });
                keep(&mut recorder, Kept::Over { at_ms, is_all: false, rows: vec![over(7)] });
            }
            _ => {}
        }
    }
    assert_eq!(recorder.written().transcripts, 1);
    (folder, path)
}

#[test]
fn an_episode_is_replayed_as_it_went_and_back() {
    let (_folder, path) = with_an_episode();
    let mut replay = Replay::open(&path);
    replay.app.opened = Some(Opened { episode: 7, ..Opened::default() });
    replay.app.screen = Screen::Episode;
    shows(&replay.screen(), &["The recording holds no turn of it up to now"]);
    replay.go(6_000);
    let screen = replay.screen();
    shows(&screen, &["TURN 1", "So far."]);
    assert!(!screen.contains("And on."), "{screen}");
    replay.go(6_000);
    shows(&replay.screen(), &["TURN 1", "TURN 2", "So far.", "And on."]);
    replay.go(10_000);
    let screen = replay.screen();
    shows(&screen, &["reward 0.875", "advantage +1.250 among 8 attempts", "I look at whoami"]);
    assert!(!screen.contains("So far."), "{screen}");
    replay.go(-16_000);
    let screen = replay.screen();
    shows(&screen, &["So far."]);
    assert!(!screen.contains("And on.") && !screen.contains("reward"), "{screen}");
    // The same as time goes by by itself.
    replay.player.toggle(&mut replay.world);
    replay.player.pass(60_000, &mut replay.world).expect("readable");
    shows(&replay.screen(), &["reward 0.875"]);
}

#[test]
fn curves_history_and_lists_are_those_of_the_moment() {
    let (_folder, path) = with_an_episode();
    let mut replay = Replay::open(&path);
    let steps = |replay: &Replay| replay.app.archive.steps.len();
    let over = |replay: &Replay| -> Vec<u64> {
        replay.app.archive.over.iter().map(|row| row.episode.0).collect()
    };
    shows(&replay.screen_of("7"), &["loss", "gradient norm"]);
    assert_eq!((steps(&replay), over(&replay)), (14, vec![4, 3]), "from before it began");
    replay.go(25_000);
    replay.screen();
    assert_eq!((steps(&replay), over(&replay)), (16, vec![7, 4, 3]));
    let (newest, events) =
        (replay.world.history.rows().next_back().cloned(), replay.world.history.len());
    assert!(newest.is_some_and(|row| row.at_ms <= scene::BEGIN_MS + 175_000));
    replay.go(-20_000);
    replay.screen();
    assert_eq!(
        (steps(&replay), over(&replay)),
        (14, vec![4, 3]),
        "what came later is not known yet"
    );
    assert!(replay.world.history.len() < events && !replay.world.history.is_empty());
}

#[test]
fn what_an_episode_left_behind_is_the_same_after_it_was_kept() {
    let mut before = left();
    before.trajectory.turns[0].tools[0].output = "short".into();
    let kept = serde_json::to_string(&Transcript::of(before.clone())).expect("JSON");
    let read: Transcript = serde_json::from_str(&kept).expect("read");
    assert!(read.restore() == before);
    // Others of its group are still out.
    before.is_final = false;
    let kept = serde_json::to_string(&Transcript::of(before.clone())).expect("JSON");
    let read: Transcript = serde_json::from_str(&kept).expect("read");
    assert!(read.restore() == before);
    // A build that did not tell whether they are.
    let old = kept.replace(",\"is_final\":false", "");
    assert_ne!(old, kept);
    let read: Transcript = serde_json::from_str(&old).expect("read");
    assert!(read.restore().is_final);
    // No number is kept as none, and a long output is cut.
    before.trajectory.logprobs[3] = f32::NAN;
    before.trajectory.turns[0].tools[0].output = "é".repeat(1 << 20);
    let kept = serde_json::to_string(&Transcript::of(before.clone())).expect("JSON");
    let read: Transcript = serde_json::from_str(&kept).expect("read");
    let after = read.restore();
    assert!(after.trajectory.logprobs[3].is_nan());
    assert_eq!(after.trajectory.logprobs[4], before.trajectory.logprobs[4]);
    let output = &after.trajectory.turns[0].tools[0].output;
    assert!(output.len() < 64 << 10 && output.ends_with("more bytes are not in the recording"));
}

#[test]
fn a_line_that_is_too_long_is_left_out_and_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.rec");
    let mut recorder = Recorder::create(&path, "x").expect("writable");
    recorder.push(&scene::frame(150)).expect("writable");
    let entries = vec![wrote(&"x".repeat(5 << 20))];
    let long = Kept::Journal { at_ms: AT_MS, episode: 7, attempt: 1, first: 0, entries };
    assert!(!recorder.keep(&long).expect("writable"));
    assert_eq!(recorder.written().left_out, 1);
    assert_eq!(Recording::open(&path).expect("a recording").kept_until(u64::MAX), 0);
}

#[test]
fn a_frame_that_is_too_long_for_a_line_is_left_out_counted_and_passed_over() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.rec");
    let mut recorder = Recorder::create(&path, "x").expect("writable");
    let mut long = scene::frame(151);
    long.snapshot.nodes[0].activity = "x".repeat(9 << 20);
    for frame in [&scene::frame(150), &long, &long, &scene::frame(152)] {
        assert!(recorder.push(frame).expect("writable"), "it goes on");
    }
    let written = recorder.written();
    assert_eq!((written.frames, written.frames_left_out), (2, 1));
    let recording = Recording::open(&path).expect("a recording");
    assert_eq!((recording.times().len(), recording.left_out()), (2, None));
    // As a build that wrote such a frame left it.
    let line = |frame: &Frame| serde_json::to_string(frame).expect("JSON") + "\n";
    let text = std::fs::read_to_string(&path).expect("readable");
    std::fs::write(&path, text + &line(&long) + &line(&scene::frame(153))).expect("writable");
    let mut recording = Recording::open(&path).expect("a recording");
    assert_eq!(recording.times().len(), 3);
    assert!(recording.frame(2).expect("readable") == scene::frame(153));
    let says = recording.left_out().expect("it says so");
    assert!(says.ends_with("left out: lines of 8 MiB or more (1)"), "{says}");
}

#[test]
fn episodes_steps_and_history_are_gathered_from_the_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = RunDir::new(folder.path());
    let (say, said) = channel();
    let writer = Writer::<u64>::start(&run.store(), Options::default(), move |words| {
        let _ = say.send(words);
    })
    .expect("a new store");
    let write = |ops: Vec<Op>| {
        writer.submit(ops, 1).expect("open");
        assert!(said.recv_timeout(DEADLINE).expect("durable").is_ok());
    };
    let sampled =
        |id| Sampled { id, logprob: -0.5, version: AdapterVersion(3), digest: Digest::default() };
    let turn = |id| JournalEntry::Generated { tokens: vec![sampled(id)], stop: Stop::EndOfTurn };
    let episode = EpisodeId(40 * 150);
    let turns = |first, entries| Op::Turns { episode, attempt: 1, first, entries };
    let mut ops: Vec<Op> = (1..=3).map(|at| Op::Step(step(at))).collect();
    ops.push(Op::Episode(Box::new(over(7))));
    ops.push(Op::Trajectory(Box::new(trajectory())));
    ops.push(turns(0, vec![turn(1)]));
    write(ops);
    let line = serde_json::to_string(&scene::events(1)[0]).expect("JSON");
    std::fs::write(run.events(), line + "\n").expect("writable");

    let path = folder.path().join("run.rec");
    let mut recorder = Recorder::create(&path, "x").expect("writable");
    let mut collector = Collector::open(&run).expect("a thread");
    // The board has episode 6000 under way.
    collector.see(&scene::frame(150));
    recorder.push(&scene::frame(150)).expect("writable");
    let found = |path: &Path| -> Vec<What> {
        let recording = Recording::open(path).expect("a recording");
        (0..recording.kept_until(u64::MAX)).filter_map(|at| recording.what(at)).collect()
    };
    let mut until = |wanted: &[What], ahead: Duration| {
        let began = Instant::now();
        loop {
            collector.pump(Instant::now() + ahead, &mut recorder).expect("writable");
            let found = found(&path);
            if wanted.iter().all(|what| found.contains(what)) {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "{wanted:?}: {found:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let (journal, left) = (What::Journal(episode.0), What::Left(7));
    let all = [What::Events, What::Steps, What::Over { is_all: true }, journal, left];
    until(&all, Duration::ZERO);
    write(vec![turns(1, vec![turn(2)]), Op::Episode(Box::new(over(8)))]);
    // Later, so that it is time to look again.
    let ahead = Duration::from_secs(3);
    until(&[What::Over { is_all: false }], ahead);
    // Both pieces of the journal are there, each once.
    let began = Instant::now();
    let mut entries = 0;
    while entries < 2 {
        collector.pump(Instant::now() + 2 * ahead, &mut recorder).expect("writable");
        let mut recording = Recording::open(&path).expect("a recording");
        let mut read = Journal::default();
        for at in 0..recording.kept_until(u64::MAX) {
            if let Ok(Kept::Journal { attempt, first, entries, .. }) = recording.kept(at) {
                assert_eq!(first, read.entries, "nothing is kept twice");
                read.add(attempt, first, entries);
            }
        }
        entries = read.entries;
        assert!(began.elapsed() < DEADLINE, "{entries} entries");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(found(&path).iter().filter(|what| **what == left).count(), 1);
    assert_eq!(collector.problem(), None);
}

#[test]
fn a_run_whose_store_comes_later_is_gathered_all_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = RunDir::new(folder.path());
    let path = folder.path().join("run.rec");
    let mut recorder = Recorder::create(&path, "x").expect("writable");
    recorder.push(&scene::frame(150)).expect("writable");
    let mut collector = Collector::open(&run).expect("a thread");
    let began = Instant::now();
    while collector.problem().is_none() {
        collector.pump(began, &mut recorder).expect("writable");
        assert!(began.elapsed() < DEADLINE, "a store that is not there is read");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (say, said) = channel();
    let writer = Writer::<u64>::start(&run.store(), Options::default(), move |words| {
        let _ = say.send(words);
    })
    .expect("a new store");
    writer.submit(vec![Op::Step(step(1)), Op::Episode(Box::new(over(7)))], 1).expect("open");
    assert!(said.recv_timeout(DEADLINE).expect("durable").is_ok());
    // Later each time, so that it is time to ask again.
    let mut ahead = Duration::ZERO;
    loop {
        ahead += Duration::from_secs(20);
        collector.pump(began + ahead, &mut recorder).expect("writable");
        let recording = Recording::open(&path).expect("a recording");
        let found: Vec<What> =
            (0..recording.kept_until(u64::MAX)).filter_map(|at| recording.what(at)).collect();
        if found.contains(&What::Steps) && collector.problem().is_none() {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "{found:?}, {:?}", collector.problem());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_no_recording_is_refused_and_nothing_is_overwritten() {
    let (folder, path) = recorded(150..152);
    let other = folder.path().join("events.jsonl");
    for text in ["", "{\"at_ms\":1}\n", "hello"] {
        std::fs::write(&other, text).expect("writable");
        let error = Recording::open(&other).expect_err("refused").to_string();
        assert!(error.contains("is not a recording"), "{error}");
    }
    assert!(matches!(Recorder::create(&path, "x"), Err(InspectError::Recording { .. })));
    assert_eq!(Recording::open(&path).expect("untouched").times().len(), 2);
}

#[test]
fn a_recording_that_was_interrupted_ends_at_its_last_whole_line() {
    let (_folder, path) = recorded(150..155);
    let text = std::fs::read(&path).expect("readable");
    std::fs::write(&path, &text[..text.len() - 40]).expect("writable");
    assert_eq!(Recording::open(&path).expect("a recording").times().len(), 4);
    let text = String::from_utf8(text).expect("UTF-8").replacen("\"snapshot\"", "#", 2);
    std::fs::write(&path, text.replacen("{\"at_ms\"", "?", 1)).expect("writable");
    let error = Recording::open(&path).expect_err("damaged in the middle").to_string();
    assert!(error.contains("line 2 is damaged"), "{error}");
}

#[test]
fn time_passes_halts_and_goes_back() {
    let (_folder, path) = recorded(150..190);
    let mut player = Player::new(Recording::open(&path).expect("a recording"));
    let mut world = World::new();
    player.pass(0, &mut world).expect("readable");
    assert_eq!(world.now_ms(), scene::BEGIN_MS + 150_000);
    player.pass(20_500, &mut world).expect("readable");
    assert_eq!(player.link(), Link::Replay { at: 21, of: 40, halted: false });
    assert!(world.actors().iter().all(|actor| actor.rate.is_some()));
    player.seek(-15_000, &mut world).expect("readable");
    assert_eq!(player.link(), Link::Replay { at: 6, of: 40, halted: true });
    assert_eq!(world.now_ms(), scene::BEGIN_MS + 155_500);
    player.pass(99_000, &mut world).expect("readable");
    assert_eq!(player.link(), Link::Replay { at: 6, of: 40, halted: true });
    player.toggle(&mut world);
    player.pass(99_000, &mut world).expect("readable");
    assert!(world.frame() == Some(&scene::frame(189)));
    player.seek(i64::MIN, &mut world).expect("readable");
    assert!(world.frame() == Some(&scene::frame(150)));
    player.seek(i64::MAX, &mut world).expect("readable");
    player.pass(1, &mut world).expect("readable");
    player.toggle(&mut world);
    assert_eq!(player.link(), Link::Replay { at: 0, of: 40, halted: false });
}
