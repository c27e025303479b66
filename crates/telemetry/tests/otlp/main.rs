//! A run's history as traces: what is one tree, what lies in what, what it is called, and what
//! becomes of it at a collector.

mod collector;
mod proto;

use std::collections::{BTreeMap, BTreeSet};

use collector::Served;
use crrl_telemetry::otlp::episode::{self, Attempt, Outcome};
use crrl_telemetry::otlp::{Collector, History, PostError, RunFacts, RunId, Told, request, step};
use crrl_types::{
    AdapterVersion, Component, Digest, EpisodeId, Event, EventKind, Finish, GroupId, NodeName,
    Reward, Step, TimedWork, Timing, Work,
};
use proto::{AnyValue, ExportTraceServiceRequest, Span};

/// The clock of the rollout node is wrong by an hour.
const SKEW_MS: u64 = 3_600_000;
const BEGAN_MS: u64 = 1_790_000_000_000;

fn facts() -> RunFacts {
    RunFacts {
        id: RunId::of(b"{\"phases\": []}", b"{\"at_ms\": 1}"),
        name: "quickstart-0".into(),
        model: "small".into(),
        learner: "learner".into(),
        parameter_server: "coordinator".into(),
    }
}

fn lines(events: Vec<(u64, EventKind)>) -> Vec<Told> {
    let mut history = History::default();
    let mut told = Vec::new();
    for (ms, kind) in events {
        let event = Event { at_ms: BEGAN_MS + ms, node: "coordinator".into(), kind };
        told.extend(history.line(&event));
    }
    told.extend(history.rest());
    told
}

fn dispatched(episode: u64, to: &str, attempt: u32) -> EventKind {
    let (group, task) = (GroupId(1), "fix-pop".into());
    EventKind::Dispatched { episode: EpisodeId(episode), group, task, to: to.into(), attempt }
}

/// Episode 7 loses its first node, is gone on with on a second, and trained on; step 3 is undone and
/// made again; episode 8 never ends.
fn history() -> Vec<(u64, EventKind)> {
    let (episode, step) = (EpisodeId(7), Step(3));
    let (version, digest) = (AdapterVersion(4), Digest::of(b"adapter"));
    vec![
        (0, EventKind::Started),
        (100, dispatched(7, "rollout-0", 1)),
        (150, dispatched(8, "rollout-0", 1)),
        (900, EventKind::LeaseLost { episode, from: "rollout-0".into() }),
        (950, EventKind::Resumed { episode, entries: 2 }),
        (951, dispatched(7, "rollout-1", 2)),
        (2_000, EventKind::Finished { episode, reward: 0.75, success: true }),
        (2_400, EventKind::Trained { episode, step }),
        (2_401, EventKind::Stepped { step, version }),
        (2_450, EventKind::Published { version, digest }),
        (2_600, EventKind::Activated { peer: "rollout-1".into(), version, digest }),
        (3_000, EventKind::RolledBack { step }),
        (3_500, EventKind::Trained { episode, step }),
        (3_501, EventKind::Stepped { step, version }),
    ]
}

fn attempt(nth: u32, node: &str, began_ms: u64) -> Attempt {
    let generate = |tokens| Work::Generate { context: 120, tokens, version: AdapterVersion(3) };
    let call = Work::Call { tool: "shell".into(), ok: false };
    let works = [
        (0, Work::Places, 0, 50_000),
        (0, Work::Replay { entries: 2 }, 50_000, 100_000),
        (2, generate(40), 150_000, 400_000),
        (2, call, 550_000, 90_000),
        (3, generate(9), 640_000, 100_000),
        (3, Work::Diff, 740_000, 20_000),
        (0, Work::Reward, 760_000, 5_000),
    ];
    let works = works
        .map(|(turn, work, from_us, took_us)| TimedWork { from_us, took_us, turn, work })
        .to_vec();
    let timing = Timing { began_ms, took_us: 770_000, works, left_out: 0 };
    Attempt { attempt: nth, node: node.into(), timing }
}

fn outcome() -> Outcome {
    let line = Component { name: "line".into(), value: 0.75, weight: 1.0 };
    let reward = Reward { total: 0.75, success: true, components: vec![line] };
    let node = NodeName::from("rollout-1");
    Outcome { node, finish: Finish::Done, reward, temperature: 1.0, wall_ms: 770 }
}

/// Everything the history tells, as JSON.
fn exported() -> serde_json::Value {
    let run = facts();
    let mut spans = Vec::new();
    let attempts = [
        // Cut off when its node was lost: longer than its lease.
        attempt(1, "rollout-0", BEGAN_MS + 105),
        attempt(2, "rollout-1", BEGAN_MS + 960 + SKEW_MS),
    ];
    for told in lines(history()) {
        match told {
            Told::Episode(story) if story.episode == EpisodeId(7) => {
                spans.extend(episode::spans(&run, &story, &attempts, Some(&outcome())));
            }
            Told::Episode(story) => spans.extend(episode::spans(&run, &story, &[], None)),
            Told::Step(story) => {
                let metrics = ["score_s", "pass_s", "update_s"].map(|name| (name.to_owned(), 0.05));
                spans.extend(step::spans(&run, &story, &metrics));
            }
        }
    }
    request(&run, &spans)
}

fn read(request: &serde_json::Value) -> Vec<(String, Span)> {
    let parsed: ExportTraceServiceRequest =
        serde_json::from_value(request.clone()).expect("the names of opentelemetry-proto");
    let mut spans = Vec::new();
    for of_node in parsed.resource_spans {
        let said = |key: &str| {
            let found = of_node.resource.attributes.iter().find(|one| one.key == key);
            match &found.unwrap_or_else(|| panic!("no {key}")).value {
                AnyValue::Text(text) => text.clone(),
                other => panic!("{key}: {other:?}"),
            }
        };
        assert_eq!(
            (said("service.name"), said("crrl.run")),
            ("crrl".into(), "quickstart-0".into())
        );
        let node = said("service.instance.id");
        for scope in of_node.scope_spans {
            assert_eq!(
                (scope.scope.name.as_str(), scope.scope.version.is_empty()),
                ("crrl", false)
            );
            spans.extend(scope.spans.into_iter().map(|span| (node.clone(), span)));
        }
    }
    spans
}

#[test]
fn every_trace_is_one_tree_whose_spans_lie_in_each_other() {
    let spans = read(&exported());
    let mut traces: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for (_, span) in &spans {
        assert_eq!((span.trace_id.len(), span.span_id.len(), span.kind), (32, 16, 1), "{span:?}");
        let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        assert!(hex(&span.trace_id) && hex(&span.span_id));
        traces.entry(&span.trace_id).or_default().push(span);
    }
    // Episodes 7 and 8, and step 3 made twice: two roots in one trace.
    assert_eq!(traces.len(), 3);
    let mut roots = Vec::new();
    for spans in traces.values() {
        let by_id: BTreeMap<&str, &Span> =
            spans.iter().map(|span| (span.span_id.as_str(), *span)).collect();
        assert_eq!(by_id.len(), spans.len(), "an id twice");
        for span in spans {
            let (from, to) = span.interval();
            assert!(from <= to, "{span:?}");
            if span.parent_span_id.is_empty() {
                roots.push(span.name.as_str());
                continue;
            }
            let parent = by_id.get(span.parent_span_id.as_str());
            let parent = parent.unwrap_or_else(|| panic!("{} has no parent", span.name));
            let (begins, ends) = parent.interval();
            assert!(begins <= from && to <= ends, "{} is not in {}", span.name, parent.name);
        }
    }
    roots.sort_unstable();
    assert_eq!(roots, ["episode", "episode", "step", "step"]);
}

#[test]
fn an_episode_is_told_from_its_dispatch_to_its_step() {
    let all = read(&exported());
    let of = |name: &str| all.iter().filter(|(_, s)| s.name == name).collect::<Vec<_>>();
    let ms = |span: &Span| {
        let (from, to) = span.interval();
        let since = |ns: u64| (ns - BEGAN_MS * 1_000_000) as f64 / 1e6;
        (since(from), since(to))
    };
    let leases: Vec<_> = of("lease").iter().map(|(node, s)| (node.as_str(), ms(s))).collect();
    let at = "coordinator";
    assert_eq!(leases, [(at, (100.0, 900.0)), (at, (951.0, 2_000.0)), (at, (150.0, 150.0))]);
    assert_eq!(of("lease")[0].1.status.code, 2, "it was lost");
    assert!(of("lease")[0].1.status.message.contains("rollout-0"));
    // The second node's clock is an hour ahead: its work is moved into its lease, and keeps its length.
    let agents: Vec<_> =
        of("invoke_agent nano").iter().map(|(node, s)| (node.as_str(), ms(s))).collect();
    assert_eq!(agents, [("rollout-0", (105.0, 875.0)), ("rollout-1", (1_230.0, 2_000.0))]);
    let moved = of("invoke_agent nano")[1].1.get("crrl.clock.moved_ms");
    assert_eq!(moved, Some(&AnyValue::Double(-3_599_730.0)));
    assert_eq!(ms(&of("dispatch")[1].1), (951.0, 1_230.0));
    // A turn is from its first token to its last tool.
    let turns: Vec<_> = of("turn").iter().skip(2).map(|(_, s)| ms(s)).collect();
    assert_eq!(turns, [(1_380.0, 1_870.0), (1_870.0, 1_990.0)]);
    let chat = &of("chat small")[2].1;
    let int = |n: &str| AnyValue::Int(n.to_owned());
    for (key, value) in [
        ("gen_ai.operation.name", AnyValue::Text("chat".into())),
        ("gen_ai.request.model", AnyValue::Text("small".into())),
        ("gen_ai.usage.input_tokens", int("120")),
        ("gen_ai.usage.output_tokens", int("40")),
        ("crrl.adapter.version", int("3")),
    ] {
        assert_eq!(chat.get(key), Some(&value), "{key}");
    }
    let tool = &of("execute_tool shell")[1].1;
    assert_eq!(tool.get("gen_ai.tool.name"), Some(&AnyValue::Text("shell".into())));
    assert_eq!(tool.get("crrl.tool.ok"), Some(&AnyValue::Bool(false)));
    let root = &of("episode")[0].1;
    assert_eq!(root.get("crrl.reward.line"), Some(&AnyValue::Double(0.75)));
    assert_eq!(root.get("crrl.step"), Some(&int("3")));
    let open = &of("episode")[1].1;
    assert_eq!(open.get("crrl.end"), Some(&AnyValue::Text("under way".into())));

    // Both ways: from the wait to the step that ended it, from the steps to what they consumed.
    let wait = &of("wait for step")[0].1;
    assert_eq!(ms(wait), (2_000.0, 2_400.0));
    let steps = of("step");
    assert_eq!(wait.links[0].span_id, steps[0].1.span_id);
    for (_, step) in &steps {
        assert_eq!((step.links.len(), step.dropped_links_count), (1, 0));
        assert_eq!(step.links[0].trace_id, root.trace_id);
        assert_eq!(step.links[0].span_id, root.span_id);
    }
    assert_eq!(steps[1].1.get("crrl.step.undone"), Some(&int("1")));
    let optimize = &of("optimize")[0];
    assert_eq!((optimize.0.as_str(), ms(&optimize.1)), ("learner", (2_251.0, 2_401.0)));
    let activate = &of("activate")[0];
    assert_eq!((activate.0.as_str(), ms(&activate.1)), ("rollout-1", (2_450.0, 2_600.0)));
}

#[test]
fn ids_are_the_same_whenever_they_are_made_and_of_no_other_run() {
    assert_eq!(exported(), exported());
    let mine = facts().id;
    let ids = |run: RunId| {
        let trace = run.episode(EpisodeId(7));
        (trace.to_string(), run.span(trace, "lease 0").to_string())
    };
    assert_eq!(ids(mine), ids(facts().id));
    let others = [
        RunId::of(b"{\"phases\": []}", b"{\"at_ms\": 2}"),
        RunId::of(b"{\"phases\": [1]}", b"{\"at_ms\": 1}"),
    ];
    let all: BTreeSet<_> = others.into_iter().chain([mine]).map(ids).collect();
    assert_eq!(all.len(), 3);
    // Written down: an id that changes with the program makes one run two.
    assert_eq!(ids(mine).0, "3e14006fe9c288fc3bcb04f5376a00b1");
}

#[tokio::test]
async fn a_collector_gets_them_and_says_what_it_thinks_of_them() {
    let partial = r#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}"#;
    let served = Served::answering(vec![
        ("200 OK", "{}"),
        ("200 OK", partial),
        ("400 Bad Request", r#"{"code":3,"message":"no resourceSpans"}"#),
        ("503 Service Unavailable", "busy"),
    ]);
    let collector: Collector = served.address.parse().expect("an address");
    let sent = exported();
    assert_eq!(collector.post(&sent).await.expect("taken"), 0);
    let (head, got) = served.next();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/json\r\n"), "{head}");
    assert_eq!(got, sent);
    assert_eq!(collector.post(&sent).await.expect("taken in part"), 2);
    let refused = collector.post(&sent).await.expect_err("refused");
    assert!(!refused.may_pass() && refused.to_string().contains("400"), "{refused}");
    assert!(refused.to_string().contains("no resourceSpans"), "{refused}");
    let busy = collector.post(&sent).await.expect_err("busy");
    assert!(busy.may_pass(), "{busy}");
    served.gone();
    let gone = collector.post(&sent).await.expect_err("nobody is there");
    assert!(gone.may_pass() && gone.to_string().contains("is it running"), "{gone}");
}

#[tokio::test]
async fn what_is_no_collector_is_said_to_be_none() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().expect("somebody comes");
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n");
    });
    let collector: Collector = address.parse().expect("an address");
    let error = collector.post(&exported()).await.expect_err("no HTTP");
    assert!(matches!(error, PostError::Foreign(..)), "{error}");
    assert!(error.to_string().contains("no OTLP receiver"), "{error}");
}
