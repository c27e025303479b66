//! Who may do what, over real connections: every operation against every kind of certificate; and what
//! is written down of it.

mod world;

use std::time::Duration;

use crrl_cluster::{OperatorClient, OperatorError, order_log};
use crrl_types::fault::{Fault, Injection};
use crrl_types::{
    Action, Order, OrderAnswer, Outcome, Target, TraceEnd, TraceRequest, TraceStop, Traced,
};
use world::World;

/// Whatever a tool can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Status,
    Subscribe,
    Trace,
    Show,
    Order,
    Drain,
    Release,
    Stop,
    Inject,
    Lift,
}

use Operation::{
    Drain, Inject, Lift, Order as Give, Release, Show, Status, Stop, Subscribe, Trace,
};

const ALL: [Operation; 10] =
    [Status, Subscribe, Trace, Show, Give, Drain, Release, Stop, Inject, Lift];

/// A certificate that was revoked is noticed within seconds.
const CUT_WITHIN: Duration = Duration::from_secs(40);

/// What each certificate allows, and nothing else.
const ALLOWED: [(&str, &[Operation]); 3] = [
    ("viewer", &[Status, Subscribe, Trace, Show]),
    ("operator", &[Status, Subscribe, Trace, Show, Give, Drain, Release, Stop]),
    ("chaos", &[Status, Subscribe, Show, Inject, Lift]),
];

/// What is asked for where it does not matter what.
fn drain(world: &World) -> Order {
    Order { target: Target::node(world.rollout()), action: Action::Drain }
}

fn bounded(world: &World) -> TraceRequest {
    TraceRequest { ttl_ms: 2_000, ..TraceRequest::of(Target::node(world.rollout())) }
}

fn answered(answer: &OrderAnswer) -> Result<(), String> {
    match answer.outcome {
        Outcome::Done => Ok(()),
        other => Err(format!("{}: {}", other.word(), answer.says)),
    }
}

async fn attempt(world: &World, tool: &OperatorClient, what: Operation) -> Result<(), String> {
    let text = |error: OperatorError| error.to_string();
    match what {
        Status => tool.status().await.map(drop).map_err(text),
        Subscribe => tool.subscribe().await.map(drop).map_err(text),
        Trace => answered(tool.trace(&bounded(world)).await.map_err(text)?.answer()),
        Show => {
            let target = Target::actor(world.rollout(), "rollout");
            answered(&tool.snapshot(&target).await.map_err(text)?.answer)
        }
        Give => answered(&tool.order(&drain(world)).await.map_err(text)?),
        Drain => tool.drain(&world.rollout()).await.map_err(text),
        Release => tool.release(&"task".into()).await.map_err(text),
        Stop => tool.stop("enough").await.map_err(text),
        Inject => {
            let injection = Injection { id: 1, fault: Fault::Hang, duration_ms: 1, seed: 0 };
            tool.inject(&world.rollout(), injection).await.map_err(text)
        }
        Lift => {
            let fault = Fault::SlowTools { ms: 1 };
            let injection = Injection { id: 1, fault, duration_ms: 60_000, seed: 0 };
            tool.lift(&world.rollout(), injection).await.map_err(text)
        }
    }
}

/// The message that carries an operation to whoever does it.
fn carried(what: Operation) -> Option<(&'static str, &'static str)> {
    match what {
        Status | Subscribe => None,
        Trace => Some(("node", "Trace")),
        Show => Some(("node", "SnapshotWanted")),
        Give | Drain => Some(("node", "Order")),
        Release => Some(("coordinator", "Release")),
        Stop => Some(("coordinator", "Stop")),
        Inject => Some(("node", "Inject")),
        Lift => Some(("node", "Lift")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_revoked_while_it_watches_sees_no_more() {
    let world = World::new().await;
    let (viewer, operator) = (world.tool("viewer").await, world.tool("operator").await);
    let mut watching = viewer.subscribe().await.expect("may watch");
    let endless = Target::actor(world.rollout(), "endless");
    let endless = TraceRequest { ttl_ms: 600_000, ..TraceRequest::of(endless) };
    let mut tracing = viewer.trace(&endless).await.expect("may trace");
    assert!(tracing.answer().outcome.is_done(), "{:?}", tracing.answer());
    let mut other = operator.subscribe().await.expect("may watch");
    crrl_transport::revoke_all(&world.run.tls(), &"viewer".into(), 0).expect("writable");
    // It asks for nothing more: what it looks at comes by itself.
    let seen = async { while watching.next().await.is_ok() {} };
    tokio::time::timeout(CUT_WITHIN, seen).await.expect("it watches on");
    let traced = async { while let Ok(Some(_)) = tracing.next().await {} };
    tokio::time::timeout(CUT_WITHIN, traced).await.expect("it traces on");
    viewer.status().await.expect_err("its connection is closed");
    // Others watch on.
    other.next().await.expect("was not revoked");
    operator.status().await.expect("was not revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_allows_what_its_role_says_and_nothing_else() {
    let world = World::new().await;
    for (who, allowed) in ALLOWED {
        let tool = world.tool(who).await;
        for what in ALL {
            let tried = attempt(&world, &tool, what).await;
            if allowed.contains(&what) {
                assert_eq!(tried, Ok(()), "{who}: {what:?}");
                if let Some((to, message)) = carried(what) {
                    let arrived = || world.got().contains(&(to, message.to_owned()));
                    world.until(arrived).await;
                }
            } else {
                let refused = tried.expect_err("may not");
                assert!(refused.contains(&format!("the certificate of {who} is for")), "{refused}");
                // Whoever would do it never hears of it.
                let reached = world.got().into_iter().find(|(_, kind)| kind != "TraceOff");
                assert_eq!(reached, None, "{who}: {what:?}");
            }
        }
        tool.close().await;
    }
    let records = order_log::read(&world.run).expect("readable");
    for (who, allowed) in ALLOWED {
        for (what, word) in
            [(Give, "drain"), (Release, "release"), (Stop, "stop-run"), (Inject, "fault")]
        {
            let outcomes: Vec<_> = records
                .iter()
                .filter(|r| r.who == who && r.operation == word && r.roles == [who])
                .filter_map(|r| r.outcome)
                .collect();
            let expected = match allowed.contains(&what) {
                true => Outcome::Done,
                false => Outcome::Denied,
            };
            // Draining can be asked for in two ways, and a fault be begun and lifted.
            let times = if matches!(what, Give | Inject) { 2 } else { 1 };
            assert_eq!(outcomes, vec![expected; times], "{who}: {what:?}");
        }
    }
    let words = ["drain", "release", "stop-run", "fault"];
    assert!(records.iter().all(|r| words.contains(&r.operation.as_str())), "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_certificate_of_ours_can_do_nothing() {
    let world = World::new().await;
    let requests = [
        "\"status\"".to_owned(),
        "\"subscribe\"".to_owned(),
        serde_json::json!({ "trace": bounded(&world) }).to_string(),
        serde_json::json!({ "snapshot": { "target": Target::actor(world.rollout(), "rollout") } })
            .to_string(),
        serde_json::json!({ "order": drain(&world) }).to_string(),
        serde_json::json!({ "drain": { "node": world.rollout() } }).to_string(),
        "{\"release\":{\"task\":\"t\"}}".to_owned(),
        "{\"stop\":{\"reason\":\"enough\"}}".to_owned(),
        serde_json::json!({ "inject": {
            "node": world.rollout(),
            "injection": Injection { id: 1, fault: Fault::Kill, duration_ms: 1, seed: 0 },
        }})
        .to_string(),
        serde_json::json!({ "inject": {
            "node": world.rollout(),
            "injection": Injection { id: 1, fault: Fault::FullDisk, duration_ms: 0, seed: 0 },
        }})
        .to_string(),
    ];
    assert_eq!(requests.len(), ALL.len());
    for request in requests {
        let answer = world.nobody(&request).await;
        assert!(answer.is_err(), "{request}: {:?}", answer.map(String::from_utf8));
    }
    // One who does not know our authority finds that it is not whom it dialled; one who does learns of
    // its refusal no later than with its first request.
    assert!(world.foreigner(false).await.is_err());
    if let Ok(tool) = world.foreigner(true).await {
        for what in ALL {
            assert!(attempt(&world, &tool, what).await.is_err(), "{what:?}");
        }
    }
    assert_eq!(world.got(), []);
    assert_eq!(order_log::read(&world.run).expect("readable"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_told_apart() {
    let world = World::new().await;
    let tool = world.tool("operator").await;
    let ask = async |target: Target, action: Action| {
        tool.order(&Order { target, action }).await.expect("it answers")
    };
    let absent = ask(Target::node("rollout-x"), Action::Kill).await;
    assert_eq!(absent.outcome, Outcome::Absent);
    assert!(absent.says.contains(world.rollout().as_str()), "{}", absent.says);
    // No host watches the nodes of a test.
    let unsupported = ask(Target::node(world.rollout()), Action::Restart).await;
    assert_eq!(unsupported.outcome, Outcome::Unsupported, "{unsupported:?}");
    let unsupported = ask(Target::node(world.coordinator.name().clone()), Action::Stop).await;
    assert_eq!(unsupported.outcome, Outcome::Unsupported, "{unsupported:?}");
    let done = ask(Target::actor(world.rollout(), "rollout"), Action::Kill).await;
    let says = format!("kill {}/rollout", world.rollout());
    assert_eq!(done, OrderAnswer::new(Outcome::Done, says));
    let long = TraceRequest { ttl_ms: u64::MAX, ..bounded(&world) };
    let truncated = tool.trace(&long).await.expect("it answers").answer().clone();
    assert_eq!(truncated.outcome, Outcome::Truncated, "{truncated:?}");
    let senseless = TraceRequest { filter: "over:".into(), ..bounded(&world) };
    let answer = tool.trace(&senseless).await.expect("it answers").answer().clone();
    assert_eq!(answer.outcome, Outcome::Unsupported, "{answer:?}");
    // What cannot be written down is not done.
    let other = World::new().await;
    std::fs::create_dir(other.run.orders()).expect("can be made");
    let tool = other.tool("operator").await;
    let busy = tool.order(&drain(&other)).await.expect("it answers");
    assert_eq!(busy.outcome, Outcome::Busy);
    assert!(busy.says.contains("orders.jsonl"), "{}", busy.says);
    assert_eq!(other.got(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_shown_or_it_is_told_apart_why_it_is_not() {
    let world = World::new().await;
    let tool = world.tool("viewer").await;
    let show = async |target: Target| tool.snapshot(&target).await.expect("it answers");
    let of = |actor: &str| Target::actor(world.rollout(), actor);
    let shown = show(of("rollout")).await;
    assert_eq!(shown.answer.outcome, Outcome::Done);
    let snapshot = shown.snapshot.expect("was published");
    assert_eq!((snapshot.json.as_str(), snapshot.age_ms), (r#"{"stance":"open"}"#, 40));
    for (actor, outcome) in [
        ("cut", Outcome::Truncated),
        ("thread", Outcome::Unsupported),
        ("young", Outcome::Busy),
        ("nobody", Outcome::Absent),
        // More than a node may send is not passed on.
        ("endless", Outcome::Unsupported),
    ] {
        let shown = show(of(actor)).await;
        assert_eq!(shown.answer.outcome, outcome, "{actor}: {shown:?}");
        assert_eq!(shown.snapshot.is_some(), outcome.is_done(), "{actor}");
    }
    let node = show(Target::node(world.rollout())).await;
    assert_eq!(node.answer.outcome, Outcome::Unsupported, "{node:?}");
    let absent = show(Target::actor("rollout-x", "rollout")).await;
    assert_eq!(absent.answer.outcome, Outcome::Absent, "{absent:?}");
    // To look changes nothing, and is written down nowhere.
    assert_eq!(order_log::read(&world.run).expect("readable"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_ends_with_its_session_and_with_its_node() {
    let world = World::new().await;
    let endless = TraceRequest::of(Target::actor(world.rollout(), "endless"));
    let tool = world.tool("viewer").await;
    let trace = tool.trace(&endless).await.expect("it answers");
    assert!(trace.answer().outcome.is_done());
    drop(trace);
    world.until(|| world.got().contains(&("node", "TraceOff".to_owned()))).await;
    // Killed: nobody says that it is over.
    let mut trace = tool.trace(&endless).await.expect("it answers");
    let leaving = world.tool("viewer").await;
    let mut other = leaving.trace(&endless).await.expect("it answers");
    leaving.close().await;
    world.until(|| world.got().contains(&("node", "TraceOff".to_owned()))).await;
    assert!(other.next().await.is_err());
    world.node.stop("the node leaves").await;
    let end = tokio::time::timeout(Duration::from_secs(20), trace.next()).await;
    let gone = TraceEnd { why: TraceStop::Gone, events: 0 };
    assert_eq!(end.expect("in time").expect("said"), Some(Traced::End(gone)));
    assert_eq!(trace.next().await.expect("is over"), None);
}
