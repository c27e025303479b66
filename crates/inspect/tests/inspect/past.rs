//! A run that is not up, read from its folder.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use crrl_cluster::RunDir;
use crrl_inspect::frame::Link;
use crrl_inspect::source::Source;
use crrl_inspect::state::keys::Effect;
use crrl_inspect::state::{App, World};
use crrl_store::{BatchRow, EpisodeRow, Op, Options, Writer};
use crrl_types::event::EventKind;
use crrl_types::fault::{Fault, Injection};
use crrl_types::{AdapterVersion, Digest, Event, OrderRecord, Outcome, Step, deed};

use crate::leftovers::{over, step, trajectory};
use crate::screens::{seen_as, shows};
use crate::{coordinator, scene};

const DEADLINE: Duration = Duration::from_secs(60);

/// A run of three steps that is over: two episodes were trained on, one failed.
pub(crate) fn folder() -> (tempfile::TempDir, RunDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = coordinator::prepared(&folder.path().join("run"));
    let config = std::fs::read_to_string(run.config_path()).expect("was written");
    let config = config.replace("[run]\n", "[run]\nsteps = 3\n");
    std::fs::write(run.config_path(), config).expect("writable");
    let (say, said) = channel();
    let writer = Writer::<u64>::start(&run.store(), Options::default(), move |words| {
        let _ = say.send(words);
    })
    .expect("a new store");
    let failed = EpisodeRow {
        state: "failed".into(),
        reason: Some("the sandbox died".into()),
        reward: None,
        ..over(9)
    };
    let trained = |id| EpisodeRow { step: Some(Step(3)), ..over(id) };
    let mut ops: Vec<Op> =
        [trained(7), trained(8), failed].map(|row| Op::Episode(Box::new(row))).into();
    ops.push(Op::Trajectory(Box::new(trajectory())));
    ops.extend((1..=3).map(|at| Op::Step(step(at))));
    ops.push(Op::Batch(BatchRow {
        step: Step(3),
        phase: 0,
        version: AdapterVersion(2),
        committed: true,
        episodes: vec![over(7).episode],
    }));
    ops.push(Op::Published(AdapterVersion(3), Digest::default()));
    writer.submit(ops, 1).expect("open");
    assert!(said.recv_timeout(DEADLINE).expect("durable").is_ok());
    let failed = EventKind::Failed { episode: over(9).episode, reason: "the sandbox died".into() };
    let first = Event { at_ms: scene::BEGIN_MS, node: "coordinator".into(), kind: failed };
    let lines: String = std::iter::once(first)
        .chain((0..1_500).flat_map(scene::events))
        .map(|event| serde_json::to_string(&event).expect("JSON") + "\n")
        .collect();
    std::fs::write(run.events(), lines).expect("writable");
    let pause = Injection { id: 1, fault: Fault::Pause, duration_ms: 30_000, seed: 1 };
    let order = OrderRecord {
        id: 1,
        at_ms: scene::BEGIN_MS + 1,
        who: "anna".into(),
        roles: vec!["chaos".into()],
        operation: deed::FAULT.into(),
        target: "rollout-0".into(),
        detail: pause.to_string(),
        outcome: Some(Outcome::Done),
        says: String::new(),
    };
    let to_an_actor = OrderRecord {
        id: 2,
        operation: "kill".into(),
        target: "rollout-0/rollout".into(),
        detail: String::new(),
        ..order.clone()
    };
    let line = |order: &OrderRecord| serde_json::to_string(order).expect("JSON") + "\n";
    std::fs::write(run.orders(), line(&order) + &line(&to_an_actor)).expect("writable");
    (folder, run)
}

/// The viewer's insides, without a terminal.
struct Viewer {
    source: Source,
    world: World,
    app: App,
    link: Link,
}

impl Viewer {
    fn new(run: &RunDir) -> Self {
        let source = Source::past(run).expect("a folder");
        let (mut world, mut app) = (World::new(), App::new("run"));
        let link = source.begin(Some(run), &mut world, &mut app);
        Self { source, world, app, link }
    }

    fn press(&mut self, keys: &str) -> Effect {
        let key = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE);
        keys.chars().map(|c| self.app.key(key(c), &self.world)).last().expect("a key")
    }

    fn enter(&mut self) {
        self.app.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE), &self.world);
    }

    /// Waits until all of this is seen.
    fn until(&mut self, wanted: &[&str]) -> String {
        let late = Instant::now() + DEADLINE;
        loop {
            self.source.pump(&mut self.world, &mut self.app, &mut self.link).expect("readable");
            self.source.tick(&mut self.world, &self.app);
            let screen = seen_as(&mut self.app, &self.world, &self.link, (120, 40));
            if wanted.iter().all(|text| screen.contains(text)) {
                return screen;
            }
            assert!(Instant::now() < late, "{wanted:?} did not come:\n{screen}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn it_says_that_it_is_over_and_shows_what_there_is() {
    let (_folder, run) = folder();
    let mut viewer = Viewer::new(&run);
    viewer.until(&[
        "the run is over: 3 steps",
        "■ read from its folder",
        "2 trained   1 failed",
        "v3",
    ]);
    viewer.press("2");
    viewer.until(&["it has no nodes and no actors"]);
    viewer.press("3");
    viewer.until(&["it has no nodes and no actors"]);
    viewer.press("6");
    let list = viewer.until(&["trained", "failed", "the sandbox", "0.875"]);
    assert!(!list.contains(" live "), "{list}");
    viewer.press("7");
    viewer.until(&["loss", "gradient norm", "step 3"]);
    viewer.press("8");
    viewer.until(&["failed", "the sandbox died", "node down", "rollout-1"]);
    viewer.until(&["injected", "stands still for 30 s by=anna outcome=done"]);
    viewer.until(&["rollout-0/rollout"]);
    viewer.press("9g");
    viewer.until(&["14:00:00", "finished"]);
    assert!(viewer.world.history.len() > 3_000, "all of it is there");
}

#[test]
fn an_episode_is_read_from_its_store() {
    let (_folder, run) = folder();
    let mut viewer = Viewer::new(&run);
    viewer.press("6");
    viewer.until(&["0.875"]);
    // The newest comes first; the one that left a transcript is the last.
    viewer.press("G");
    viewer.enter();
    viewer.until(&["episode 7", "TURN 1", "trained on by v2", "advantage +0.000 among 2 attempts"]);
}

#[test]
fn what_an_episode_earned_is_read_again_until_it_is_final() {
    let (_folder, run) = folder();
    let (say, said) = channel();
    let writer = Writer::<u64>::start(&run.store(), Options::default(), move |words| {
        let _ = say.send(words);
    })
    .expect("a store nobody else writes");
    let put = |row: EpisodeRow| {
        writer.submit(vec![Op::Episode(Box::new(row))], 1).expect("open");
        assert!(said.recv_timeout(DEADLINE).expect("durable").is_ok());
    };
    put(EpisodeRow { state: "finished".into(), step: None, ..over(7) });
    let mut viewer = Viewer::new(&run);
    viewer.press("6");
    viewer.until(&["0.875"]);
    viewer.press("G");
    viewer.enter();
    let early = viewer.until(&["TURN 1", "advantage +0.000 among 2 attempts so far"]);
    assert!(!early.contains("trained on by"), "{early}");
    put(EpisodeRow { reward: Some(0.0), ..over(10) });
    put(EpisodeRow { step: Some(Step(3)), ..over(7) });
    let late = viewer.until(&["among 3 attempts", "trained on by v2"]);
    assert!(!late.contains("so far") && !late.contains("+0.000"), "{late}");
}

#[test]
fn nothing_of_it_can_be_changed() {
    let (_folder, run) = folder();
    let before = std::fs::read(run.store()).expect("a store");
    let mut viewer = Viewer::new(&run);
    viewer.until(&["the run is over"]);
    for key in ["S", "K", "R", "P", "C", "D", "t"] {
        assert_eq!(viewer.press(key), Effect::None);
        assert!(viewer.app.asking.is_none());
        let screen = viewer.until(&["the run is not up: nothing of it can be traced or changed"]);
        assert!(!screen.contains("order"), "{screen}");
    }
    assert_eq!(before, std::fs::read(run.store()).expect("a store"));
}

#[test]
fn one_that_was_stopped_is_not_said_to_be_over() {
    let (_folder, run) = folder();
    let config = std::fs::read_to_string(run.config_path()).expect("was written");
    std::fs::write(run.config_path(), config.replace("steps = 3", "steps = 40")).expect("writable");
    let mut viewer = Viewer::new(&run);
    let screen = viewer.until(&["the run is not up: step 3 of 40"]);
    assert!(!screen.contains("is over"), "{screen}");
}

#[test]
fn a_folder_without_a_store_says_so() {
    let (_folder, run) = folder();
    std::fs::remove_file(run.store()).expect("was there");
    let mut viewer = Viewer::new(&run);
    shows(&viewer.until(&["run.sqlite"]), &["step 0 of 3"]);
    viewer.press("6");
    viewer.until(&["the run store cannot be read"]);
}
