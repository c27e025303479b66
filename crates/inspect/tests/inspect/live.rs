//! The feed of a real coordinator.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crrl_cluster::{Mesh, RunDir, Snapshot, StatusBoard, order_log};
use crrl_inspect::desk::Desk;
use crrl_inspect::diagnose::Rule;
use crrl_inspect::feed::{self, Feed, Seen, Session};
use crrl_inspect::frame::Link;
use crrl_inspect::recording::{Recording, Written};
use crrl_inspect::scripts::query::{self, Query};
use crrl_inspect::scripts::watching;
use crrl_inspect::state::World;
use crrl_types::{Action, NodeName, Order, RoundTrip, Target, Vitals};
use tokio::runtime::Runtime;

use crate::{coordinator, scene};

const DEADLINE: Duration = Duration::from_secs(60);
/// How long a bad line loses all it is given; one that dials tries once more after a second.
const BAD_FOR: Duration = Duration::from_millis(400);

/// A coordinator on threads of its own, until this is dropped.
pub(crate) struct Live {
    _folder: tempfile::TempDir,
    pub(crate) run: RunDir,
    runtime: Runtime,
    mesh: Mesh,
    board: StatusBoard,
}

pub(crate) fn live() -> Live {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = coordinator::prepared(&folder.path().join("run"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads");
    let (mesh, board) = runtime.block_on(coordinator::start(&run));
    let live = Live { _folder: folder, run, runtime, mesh, board };
    live.put(150);
    live
}

impl Live {
    pub(crate) fn put(&self, s: u64) {
        self.board.update(|board| *board = scene::frame(s).snapshot);
    }

    pub(crate) fn leave(&self) {
        self.runtime.block_on(self.mesh.stop("the test is over"));
    }
}

/// Where the coordinator listens.
fn listens(run: &RunDir) -> SocketAddr {
    let addresses = run.dialled().expect("was prepared");
    let at = addresses.get(&NodeName::from("coordinator")).expect("it listens somewhere");
    at.socket_addr().expect("an address")
}

/// Where whoever dials reaches who listens, over a line that loses all for a while.
fn behind_a_bad_line(to: SocketAddr) -> SocketAddr {
    let socket = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (near, far) = (socket(), socket());
    let here = near.local_addr().expect("bound");
    std::thread::spawn(move || -> io::Result<()> {
        let mut bytes = vec![0; 1 << 16];
        let (_, dialler) = near.recv_from(&mut bytes)?;
        let began = Instant::now();
        let mut len = near.recv(&mut bytes)?;
        while began.elapsed() < BAD_FOR {
            len = near.recv(&mut bytes)?;
        }
        far.connect(to)?;
        let (back, answers) = (near.try_clone()?, far.try_clone()?);
        std::thread::spawn(move || -> io::Result<()> {
            let mut bytes = vec![0; 1 << 16];
            loop {
                let len = answers.recv(&mut bytes)?;
                back.send_to(&bytes[..len], dialler)?;
            }
        });
        loop {
            far.send(&bytes[..len])?;
            len = near.recv(&mut bytes)?;
        }
    });
    here
}

/// Whether both are of the same second, whenever they were seen.
fn is_of(seen: &Snapshot, wanted: &Snapshot) -> bool {
    seen.nodes == wanted.nodes && seen.progress == wanted.progress
}

fn until(feed: &mut Feed, wanted: impl Fn(&Seen) -> bool) -> Seen {
    crate::until::until("what the feed is to bring", || feed.take().filter(&wanted))
}

#[test]
fn the_feed_brings_the_newest_and_says_when_it_is_lost() {
    let live = live();
    let mut feed = Feed::attach(&live.run, None).expect("a run folder");
    until(&mut feed, |seen| seen.link == Link::Live);
    live.put(151);
    let newest = scene::frame(151).snapshot;
    until(&mut feed, |seen| seen.frame.as_ref().is_some_and(|f| is_of(&f.snapshot, &newest)));
    live.leave();
    let seen = until(&mut feed, |seen| matches!(seen.link, Link::Lost { .. }));
    assert!(seen.frame.is_some(), "what was seen last stays");
}

/// Leaves while a coordinator is dialled that hears what is asked, and never answers.
fn leaves_at_once<T>(dial: impl FnOnce(&RunDir) -> T) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = coordinator::prepared(&folder.path().join("run"));
    let silent = UdpSocket::bind(listens(&run)).expect("nobody is there");
    silent.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let dials = dial(&run);
    silent.recv_from(&mut [0; 4_096]).expect("it is dialled");
    let began = Instant::now();
    drop(dials);
    assert!(began.elapsed() < Duration::from_secs(2), "a dial takes three seconds at least");
}

#[test]
fn leaving_waits_for_no_answer_of_a_cluster_that_is_lost() {
    leaves_at_once(|run| Feed::attach(run, None).expect("a run folder"));
    leaves_at_once(|run| {
        let desk = Desk::open(run, None).expect("a thread");
        assert!(desk.snapshot(Target::actor("rollout-0", "engine")));
        desk
    });
}

#[test]
fn an_order_that_was_just_given_reaches_its_cluster_although_one_leaves() {
    let live = live();
    // Its line is bad for longer than anything else is waited for.
    let at = listens(&live.run);
    let path = live.run.addresses_path();
    let addresses = std::fs::read_to_string(&path).expect("was prepared");
    let line = behind_a_bad_line(at);
    std::fs::write(&path, addresses.replace(&format!("\"{at}\""), &format!("\"{line}\"")))
        .expect("writable");
    let desk = Desk::open(&live.run, None).expect("a thread");
    let given = ["rollout-0", "rollout-1"];
    for node in given {
        assert!(desk.order(Order { target: Target::node(node), action: Action::Suspend }));
    }
    drop(desk);
    let orders = order_log::read(&live.run).expect("readable");
    let answered = orders.iter().filter(|order| order.outcome.is_some());
    let answered: Vec<&str> = answered.map(|order| order.target.as_str()).collect();
    assert_eq!(answered, given);
}

#[test]
fn scripts_ask_a_cluster_and_say_when_there_is_none() {
    let live = live();
    let mut out = Vec::new();
    query::run(&live.run, None, &Query::Nodes, true, &mut out).expect("it answers");
    assert!(String::from_utf8_lossy(&out).contains("\"name\":\"rollout-1\""));
    let verdict = watching::diagnose(&live.run, None, Duration::ZERO).expect("it answers");
    assert!(verdict.healthy, "{verdict:?}");
    live.board.update(|board| {
        board.nodes[2].actors[2].handling = Some(("Generate".into(), 9_000));
    });
    let verdict = watching::diagnose(&live.run, None, DEADLINE).expect("it answers");
    assert_eq!(verdict.findings[0].rule, Rule::ActorBusy);
    live.leave();
    let error =
        query::run(&live.run, None, &Query::Nodes, true, &mut out).expect_err("nobody is there");
    assert_eq!(error.exit_code(), 6, "{error}");
    let error = watching::diagnose(&live.run, None, Duration::ZERO).expect_err("nobody is there");
    assert_eq!(error.exit_code(), 6, "{error}");
    let error = Feed::attach(&RunDir::new(live.run.tls()), None).expect_err("no run");
    assert!(error.to_string().contains("is not the folder of a run"), "{error}");
}

#[test]
fn whoever_attaches_late_is_told_the_ages_of_what_is_seen() {
    let live = live();
    live.board.progress(|progress| progress.phase = "training, waiting for a node".into());
    let vitals = Vitals {
        build: "0.1.0".into(),
        cpu_percent: Some(131.5),
        round_trip: Some(RoundTrip { p50_us: 310, p99_us: 1_200, samples: 60 }),
        ..Vitals::default()
    };
    let sent_us = (feed::now_ms() + 5_000) * 1_000;
    live.board.vitals(&"learner".into(), sent_us, 41_000, vitals);
    let begun = Instant::now();
    // Nobody looks for a while: ages go on all the same.
    while begun.elapsed() < Duration::from_millis(300) {
        std::thread::yield_now();
    }
    let seen = Runtime::new().expect("threads").block_on(async {
        let mut session = Session::open(&live.run, None).await.expect("it answers");
        let mut world = World::new();
        world.fold(session.next().await.expect("the board"));
        session.close().await;
        world
    });
    assert!(seen.tells_ages() && seen.phase_ms() >= 300, "{} ms", seen.phase_ms());
    let learner = seen.nodes().iter().find(|node| node.name == "learner").expect("it has reported");
    assert!((41_300..60_000).contains(&learner.activity_ms), "{} ms", learner.activity_ms);
    assert!(learner.age_ms.is_some_and(|age| age >= 300), "{:?}", learner.age_ms);
    assert_eq!((learner.cpu_percent, learner.build.as_deref()), (Some(131.5), Some("0.1.0")));
    assert_eq!((learner.rtt_p50_ms, learner.rtt_p99_ms), (Some(0.31), Some(1.2)));
    let skew_ms = learner.clock_skew_ms.expect("it has said what its clock says");
    assert!((4_000.0..5_100.0).contains(&skew_ms), "{skew_ms} ms");
    assert!(learner.gpus.is_empty());
}

#[test]
fn what_is_meant_does_not_end_the_look_for_what_is_worse() {
    let live = live();
    live.board.update(|board| board.nodes[3].faults[0].active = true);
    let (began, look_for) = (Instant::now(), Duration::from_millis(700));
    let verdict = watching::diagnose(&live.run, None, look_for).expect("it answers");
    assert!(began.elapsed() >= look_for, "it was not looked on");
    let rules: Vec<Rule> = verdict.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, [Rule::FaultActive]);
    live.board.update(|board| {
        board.nodes[2].actors[2].handling = Some(("Generate".into(), 9_000));
    });
    let verdict = watching::diagnose(&live.run, None, DEADLINE).expect("it answers");
    let rules: Vec<Rule> = verdict.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, [Rule::ActorBusy, Rule::FaultActive]);
    assert!(began.elapsed() < DEADLINE, "it was looked on");
}

#[test]
fn a_look_is_under_the_name_that_is_given_and_one_without_a_certificate_is_told() {
    let live = live();
    let mut out = Vec::new();
    query::run(&live.run, Some("operator"), &Query::Nodes, true, &mut out).expect("it answers");
    let errors = [
        query::run(&live.run, Some("bob"), &Query::Nodes, true, &mut out).expect_err("no bob"),
        watching::diagnose(&live.run, Some("bob"), DEADLINE).expect_err("no bob"),
        Feed::attach(&live.run, Some("bob")).expect_err("no bob"),
    ];
    for error in errors {
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("bob.pem; `crrl tls issue bob"), "{error}");
    }
}

/// A certificate of another run's authority, in the folder of this one.
fn foreign(live: &Live, folder: &std::path::Path) -> RunDir {
    let other = coordinator::prepared(&folder.join("other"));
    for entry in std::fs::read_dir(other.tls()).expect("certificates").flatten() {
        std::fs::copy(entry.path(), live.run.tls().join(entry.file_name())).expect("writable");
    }
    live.run.clone()
}

#[test]
fn a_wrong_certificate_is_told_and_not_taken_for_a_run_that_is_over() {
    let live = live();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = foreign(&live, folder.path());
    let mut out = Vec::new();
    let error =
        query::run(&run, None, &Query::Nodes, true, &mut out).expect_err("it is not let in");
    assert_eq!(error.exit_code(), 6);
    let says = error.to_string();
    assert!(says.contains("does not answer") && says.contains("certificate"), "{says}");
    let mut feed = Feed::attach(&run, None).expect("a run folder");
    let seen = until(&mut feed, |seen| matches!(seen.link, Link::Connecting { reason: Some(_) }));
    let Link::Connecting { reason: Some(reason) } = seen.link else { panic!("{seen:?}") };
    assert!(reason.contains("certificate"), "{reason}");
}

#[test]
fn a_recording_of_a_cluster_can_be_played() {
    let live = live();
    let path = live.run.path().join("a.rec");
    let told = std::cell::Cell::new(0);
    let tell = |written: Written| told.set(written.frames);
    let says = watching::record(&live.run, None, &path, Some(Duration::from_millis(300)), &tell);
    assert!(says.expect("recorded").starts_with("the time is over: 1 frames"));
    assert_eq!(told.get(), 1, "it is told while it goes on");
    let mut recording = Recording::open(&path).expect("a recording");
    assert_eq!(recording.run(), "run");
    let frame = recording.frame(0).expect("a frame");
    assert!(is_of(&frame.snapshot, &scene::frame(150).snapshot));
}

#[test]
fn a_viewer_that_does_not_look_delays_nobody() {
    let live = live();
    let runtime = Runtime::new().expect("threads");
    // More than may be unread: some 900 KB.
    let mut large = scene::frame(151).snapshot;
    let actors = &mut large.nodes[2].actors;
    let actor = actors[0].clone();
    actors.extend((0..10_000).map(|n| {
        let mut another = actor.clone();
        another.name = format!("{}-{n}", actor.name);
        another
    }));
    runtime.block_on(async {
        let stalled = Session::open(&live.run, None).await.expect("it answers");
        let mut session = Session::open(&live.run, None).await.expect("it answers");
        for wanted in std::iter::once(large).chain((152..156).map(|s| scene::frame(s).snapshot)) {
            live.board.update(|board| *board = wanted.clone());
            let seen = async {
                while !is_of(&session.next().await.expect("it goes on").snapshot, &wanted) {}
            };
            tokio::time::timeout(DEADLINE, seen).await.expect("the newest comes");
        }
        session.close().await;
        stalled.close().await;
    });
}

#[test]
fn four_viewers_are_served_and_a_fifth_is_told_so() {
    let live = live();
    let runtime = Runtime::new().expect("threads");
    runtime.block_on(async {
        let mut sessions = Vec::new();
        for _ in 0..4 {
            let mut session = Session::open(&live.run, None).await.expect("it is let in");
            session.next().await.expect("it is served");
            sessions.push(session);
        }
        let error = Session::open(&live.run, None).await.expect_err("there are four").to_string();
        assert!(error.contains("4 viewers watch this run already"), "{error}");
        sessions.pop().expect("there are four").close().await;
        // The coordinator hears of it a moment later.
        let deadline = Instant::now() + DEADLINE;
        while Session::open(&live.run, None).await.is_err() {
            assert!(Instant::now() < deadline, "the place stays taken");
        }
    });
}
