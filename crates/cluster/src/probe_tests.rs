use std::sync::Arc;

use tokio::sync::Notify;

use super::*;
use crate::router::{Inbound, Receipt, Routed, Router};
use crrl_control::trace::TraceFilter;
use crrl_control::wire::{NodeRole, Wire};
use crrl_types::{Target, TraceRequest, Traced};

struct Worker(Arc<Notify>);

#[derive(Debug)]
enum Msg {
    Inbound,
    Fail,
    Panic,
}
impl Message for Msg {}

impl Actor for Worker {
    type Msg = Msg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Inbound => {
                self.0.notified().await;
                Ok(())
            }
            Msg::Fail => Err("told to fail".into()),
            Msg::Panic => panic!("told to panic"),
        }
    }
}

fn a_letter() -> Letter {
    Letter { message: "Assign".into(), from: Some("coordinator".into()) }
}

async fn until(probes: &Probes, what: impl Fn(&ActorReport) -> bool) -> ActorReport {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let report = probes.report().remove(0);
        if what(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "did not come about: {report:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn an_actor_that_hangs_is_seen_with_its_message_and_what_waits_behind_it() {
    let (probes, go) = (Probes::default(), Arc::new(Notify::new()));
    let watched = probes.starting("worker", "Worker", Some("node"));
    let probe = Probe::new(Worker(Arc::clone(&go)), watched.clone());
    let (actor, _) = Actor::spawn(None, probe, ()).await.expect("starts");
    for _ in 0..3 {
        watched.sent(a_letter);
        actor.cast(Msg::Inbound).expect("runs");
    }
    let seen = until(&probes, |seen| seen.state == ActorState::Busy).await;
    assert_eq!(seen.handling.as_ref().map(|(kind, _)| kind.as_str()), Some("Inbound"));
    assert_eq!((seen.waiting, seen.waiting_max, seen.handled), (2, 3, 0));
    assert_eq!(seen.parent.as_deref(), Some("node"));
    until(&probes, |seen| seen.oldest_ms > 20 && seen.handling.as_ref().unwrap().1 > 20).await;
    for done in 1..=3 {
        go.notify_one();
        until(&probes, |seen| seen.handled == done).await;
    }
    let seen = until(&probes, |seen| seen.state == ActorState::Idle).await;
    assert_eq!((seen.waiting, seen.oldest_ms), (0, 0));
    assert!(seen.busy_ms > 0 && seen.handling.is_none());
}

#[test]
fn messages_that_were_not_timed_one_by_one_have_waited_as_long() {
    const MESSAGES: u32 = 20_000;
    let probes = Probes::default();
    let watched = probes.starting("worker", "Worker", Some("node"));
    (0..MESSAGES).for_each(|_| watched.sent(a_letter));
    let sent = Instant::now();
    while sent.elapsed() < Duration::from_millis(30) {
        std::thread::yield_now();
    }
    for left in (0..MESSAGES).rev() {
        drop(watched.begin("Inbound".into(), true));
        if !left.is_multiple_of(500) {
            continue;
        }
        let seen = watched.report();
        assert_eq!((seen.waiting, seen.waiting_max), (left, MESSAGES));
        assert!(left == 0 || seen.oldest_ms >= 30, "{left}: {} ms", seen.oldest_ms);
    }
    assert_eq!(watched.report().oldest_ms, 0);
}

/// Whoever looks at an actor pays for what is told of it, not for what waits for it.
#[tokio::test]
async fn a_million_messages_wait_and_are_told_of_in_a_word() {
    const MESSAGES: u32 = 1_000_000;
    let (probes, go) = (Probes::default(), Arc::new(Notify::new()));
    let watched = probes.starting("worker", "Worker", Some("node"));
    let probe = Probe::new(Worker(Arc::clone(&go)), watched.clone());
    let (actor, _) = Actor::spawn(None, probe, ()).await.expect("starts");
    for _ in 0..MESSAGES {
        watched.sent(a_letter);
        actor.cast(Msg::Inbound).expect("runs");
    }
    let seen = until(&probes, |seen| seen.handling.is_some() && seen.oldest_ms > 20).await;
    assert_eq!((seen.waiting, seen.waiting_max), (MESSAGES - 1, MESSAGES));
    let told = crrl_transport::encode(&seen).expect("plain data");
    assert!(told.len() < 200, "{seen:?}");
    actor.kill();
}

#[tokio::test]
async fn an_actor_that_is_to_hang_does_for_a_time_and_loses_nothing() {
    let (probes, go) = (Probes::default(), Arc::new(Notify::new()));
    let watched = probes.starting("worker", "Worker", Some("node"));
    let probe = Probe::new(Worker(Arc::clone(&go)), watched.clone());
    let (actor, _) = Actor::spawn(None, probe, ()).await.expect("starts");
    probes.hang().begin(Duration::from_secs(3600));
    go.notify_one();
    watched.sent(a_letter);
    actor.cast(Msg::Inbound).expect("runs");
    let seen = until(&probes, |seen| seen.state == ActorState::Busy).await;
    assert_eq!(seen.handled, 0);
    let end = Instant::now() + Duration::from_millis(80);
    probes.hang().hold_until(end);
    until(&probes, |seen| seen.handled == 1).await;
    assert!(Instant::now() >= end);
    assert!(probes.hang().held() == 1 && !probes.hang().goes_on());
}

#[tokio::test]
async fn an_actor_that_is_held_up_goes_on_when_the_end_is_brought_forward() {
    let (probes, go) = (Probes::default(), Arc::new(Notify::new()));
    let watched = probes.starting("worker", "Worker", Some("node"));
    let probe = Probe::new(Worker(Arc::clone(&go)), watched.clone());
    let (actor, _) = Actor::spawn(None, probe, ()).await.expect("starts");
    probes.hang().begin(Duration::from_secs(3600));
    go.notify_one();
    watched.sent(a_letter);
    actor.cast(Msg::Inbound).expect("runs");
    until(&probes, |seen| seen.state == ActorState::Busy).await;
    probes.hang().hold_until(Instant::now());
    until(&probes, |seen| seen.handled == 1).await;
    assert!(probes.hang().held() == 1 && !probes.hang().goes_on());
}

#[tokio::test]
async fn a_suspended_actor_takes_no_message_until_it_is_told_to() {
    let (probes, go) = (Probes::default(), Arc::new(Notify::new()));
    let watched = probes.starting("worker", "Worker", Some("node"));
    let probe = Probe::new(Worker(Arc::clone(&go)), watched.clone());
    let (actor, _) = Actor::spawn(None, probe, ()).await.expect("starts");
    until(&probes, |seen| seen.state == ActorState::Idle).await;
    watched.suspend(Duration::from_secs(3600));
    go.notify_one();
    watched.sent(a_letter);
    actor.cast(Msg::Inbound).expect("runs");
    let seen = until(&probes, |seen| seen.oldest_ms > 20).await;
    assert_eq!((seen.state, seen.handled), (ActorState::Suspended, 0));
    assert!(watched.resume() && !watched.resume());
    until(&probes, |seen| seen.handled == 1 && seen.state == ActorState::Idle).await;
    // It goes on by itself when its time is over.
    watched.suspend(Duration::from_millis(30));
    go.notify_one();
    actor.cast(Msg::Inbound).expect("runs");
    until(&probes, |seen| seen.handled == 2 && seen.state == ActorState::Idle).await;
}

#[tokio::test]
async fn a_trace_sees_a_message_come_and_how_long_it_was_handled() {
    let (probes, go) = (Probes::default(), Arc::new(Notify::new()));
    let watched = probes.starting("worker", "Worker", Some("node"));
    let probe = Probe::new(Worker(Arc::clone(&go)), watched.clone());
    let (actor, _) = Actor::spawn(None, probe, ()).await.expect("starts");
    let request = TraceRequest::of(Target::actor("rollout-0", "worker"));
    let filter = TraceFilter::default();
    let mut trace = probes.taps().open("rollout-0".into(), &request, filter).expect("room");
    watched.sent(a_letter);
    actor.cast(Msg::Inbound).expect("runs");
    until(&probes, |seen| seen.handling.as_ref().is_some_and(|(_, ms)| *ms >= 5)).await;
    go.notify_one();
    let mut events = Vec::new();
    while events.len() < 2 {
        match trace.next().await {
            Some(Traced::Events(more)) => events.extend(more),
            other => panic!("{other:?}"),
        }
    }
    assert!(events.iter().all(|event| event.message == "Assign"), "{events:?}");
    assert!(events.iter().all(|event| event.from == Some("coordinator".into())));
    assert_eq!(events[0].handled_us, None);
    assert!(events[1].handled_us.is_some_and(|us| us >= 5_000), "{events:?}");
}

#[tokio::test]
async fn a_failure_is_kept_over_the_restart() {
    let (probes, go) = (Probes::default(), Arc::new(Notify::new()));
    for restarts in 0..2 {
        let watched = probes.starting("worker", "Worker", None);
        let probe = Probe::new(Worker(Arc::clone(&go)), watched);
        let (actor, ended) = Actor::spawn(None, probe, ()).await.expect("starts");
        let seen = until(&probes, |seen| seen.state == ActorState::Idle).await;
        assert_eq!(seen.restarts, restarts);
        actor.cast(Msg::Fail).expect("runs");
        ended.await.expect("no panic");
    }
    let seen = until(&probes, |seen| seen.state != ActorState::Idle).await;
    assert_eq!(seen.last_failure.as_deref(), Some("told to fail"));
}

#[tokio::test]
async fn a_panic_is_a_failure_with_its_words_until_the_restart_and_after_it() {
    let (probes, go) = (Probes::default(), Arc::new(Notify::new()));
    let watched = probes.starting("worker", "Worker", Some("node"));
    let probe = Probe::new(Worker(Arc::clone(&go)), watched);
    let (actor, ended) = Actor::spawn(None, probe, ()).await.expect("starts");
    actor.cast(Msg::Panic).expect("runs");
    ended.await.expect("the panic ends with the actor");
    let seen = probes.report().remove(0);
    assert_eq!((seen.state, seen.handled), (ActorState::Failed, 1));
    assert_eq!(seen.last_failure.as_deref(), Some("panicked: told to panic"));
    assert_eq!(seen.handling, None);
    let watched = probes.starting("worker", "Worker", Some("node"));
    let probe = Probe::new(Worker(Arc::clone(&go)), watched);
    let (_actor, _) = Actor::spawn(None, probe, ()).await.expect("starts");
    let seen = until(&probes, |seen| seen.state == ActorState::Idle).await;
    assert_eq!(seen.restarts, 1);
    assert_eq!(seen.last_failure.as_deref(), Some("panicked: told to panic"));
}

/// As what peers send and what becomes of them is passed on.
fn pass(watched: &Watched, to: &ActorRef<Msg>) -> Result<(), String> {
    watched.pass(to, (), |_| a_letter(), |()| Msg::Inbound)
}

#[tokio::test]
async fn what_is_passed_to_the_life_before_waits_for_nobody() {
    let (probes, go) = (Probes::default(), Arc::new(Notify::new()));
    let old = probes.starting("worker", "Worker", Some("node"));
    let probe = Probe::new(Worker(Arc::clone(&go)), old.clone());
    let (gone, ended) = Actor::spawn(None, probe, ()).await.expect("starts");
    gone.cast(Msg::Fail).expect("runs");
    ended.await.expect("no panic");
    assert!(pass(&old, &gone).is_err());
    let failed = probes.report().remove(0);
    assert_eq!((failed.state, failed.waiting), (ActorState::Failed, 0));
    // While another is being started, and once it was: a watcher of the mesh stays until the next event.
    let watched = probes.starting("worker", "Worker", Some("node"));
    assert!(pass(&old, &gone).is_err());
    let probe = Probe::new(Worker(Arc::clone(&go)), watched.clone());
    let (actor, _) = Actor::spawn(None, probe, ()).await.expect("starts");
    assert!(pass(&old, &gone).is_err());
    pass(&watched, &actor).expect("runs");
    go.notify_one();
    let seen = until(&probes, |seen| seen.handled == 2 && seen.state == ActorState::Idle).await;
    assert_eq!((seen.waiting, seen.oldest_ms, seen.restarts), (0, 0, 1));
}

#[tokio::test]
async fn nothing_waits_for_an_actor_that_was_stopped() {
    let (probes, go, router) = (Probes::default(), Arc::new(Notify::new()), Router::new());
    let watched = probes.starting("worker", "Worker", Some("node"));
    let probe = Probe::new(Worker(Arc::clone(&go)), watched.clone());
    let (actor, ended) = Actor::spawn(None, probe, ()).await.expect("starts");
    let (by_peers, to) = (watched.clone(), actor.clone());
    router.register_fn("worker", |_| true, move |_| pass(&by_peers, &to));
    let route = || {
        let (wire, receipt) = (Wire::Credit { episodes: 1 }, Receipt::none());
        let roles = vec![NodeRole::Rollout];
        router.route(Inbound { from: "rollout-0".into(), roles, wire, receipt })
    };
    assert_eq!([route(), route()], [Routed::Delivered(1), Routed::Delivered(1)]);
    until(&probes, |seen| seen.state == ActorState::Busy && seen.waiting == 1).await;
    actor.stop(None);
    go.notify_one();
    ended.await.expect("no panic");
    // The route is there still, and nobody takes what comes.
    assert_eq!([route(), route()], [Routed::Unrouted, Routed::Unrouted]);
    watched.stopped("stopped by an order of anna");
    let seen = probes.report().remove(0);
    assert_eq!((seen.state, seen.waiting, seen.oldest_ms), (ActorState::Stopped, 0, 0));
    assert_eq!(seen.last_failure.as_deref(), Some("stopped by an order of anna"));
}

#[test]
fn an_end_that_did_not_come_about_leaves_what_was_told_before() {
    let probes = Probes::default();
    let watched = probes.starting("worker", "Worker", Some("node"));
    let told = || probes.report().remove(0).last_failure;
    watched.failed("no space");
    let before = watched.ended("restarted by an order of anna");
    assert_eq!(told().as_deref(), Some("restarted by an order of anna"));
    watched.not_ended("restarted by an order of anna", before);
    assert_eq!(told().as_deref(), Some("no space"));
    // What has come about since is told.
    let before = watched.ended("killed by an order of anna");
    watched.failed("out of memory");
    watched.not_ended("killed by an order of anna", before);
    assert_eq!(told().as_deref(), Some("out of memory"));
}

#[test]
fn what_the_life_before_still_does_is_not_told_of_the_one_in_its_place() {
    let probes = Probes::default();
    let old = probes.starting("worker", "Worker", Some("node"));
    let at = old.begin("Inbound".into(), true);
    let new = probes.starting("worker", "Worker", Some("node"));
    new.sent(a_letter);
    drop(at);
    drop(old.begin("Inbound".into(), true));
    old.failed("too late");
    old.stopped("too late");
    let seen = probes.report().remove(0);
    assert_eq!((seen.state, seen.waiting, seen.handled), (ActorState::Starting, 1, 0));
    assert_eq!((seen.handling, seen.last_failure), (None, None));
}

struct StartsLong(Arc<Notify>);

impl Actor for StartsLong {
    type Msg = Msg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_start(&self, _: ActorRef<Msg>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.0.notified().await;
        Ok(())
    }
}

#[tokio::test]
async fn an_actor_is_starting_until_it_takes_messages() {
    let (probes, go) = (Probes::default(), Arc::new(Notify::new()));
    let watched = probes.starting("worker", "Worker", Some("node"));
    let probe = Probe::new(StartsLong(Arc::clone(&go)), watched);
    let (_actor, _) = Actor::spawn(None, probe, ()).await.expect("starts");
    let seen = until(&probes, |seen| seen.up_ms > 20).await;
    assert_eq!(seen.state, ActorState::Starting);
    go.notify_one();
    until(&probes, |seen| seen.state == ActorState::Idle).await;
}
