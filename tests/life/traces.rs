//! A run's traces: sent while it trains, exported afterwards, the same both times; one tree for each
//! episode, from its dispatch to its step.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crrl_store::Reader;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{World, end};

const STEPS: u64 = 5;

/// A collector: an address, and what came to it.
struct Collector {
    address: String,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let requests = Arc::<Mutex<Vec<Value>>>::default();
        let taken = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if reader.read_line(&mut head).is_ok_and(|n| n > 0) {
                        continue;
                    }
                    break;
                }
                let length = head.lines().find_map(|line| {
                    line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()
                });
                let mut body = vec![0; length.unwrap_or(0)];
                reader.read_exact(&mut body).expect("a body");
                let request = serde_json::from_slice(&body).expect("JSON");
                taken.lock().expect("no panic").push(request);
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                let _ = reader.into_inner().write_all(answer.as_bytes());
            }
        });
        Self { address, requests }
    }

    fn spans(&self) -> Vec<Span> {
        spans(&self.requests.lock().expect("no panic"))
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Span {
    node: String,
    trace: String,
    id: String,
    parent: Option<String>,
    name: String,
    from: u64,
    to: u64,
    links: Vec<(String, String)>,
    attributes: BTreeMap<String, Value>,
}

fn spans(requests: &[Value]) -> Vec<Span> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for resource in requests.iter().flat_map(|request| list(&request["resourceSpans"])) {
        let attributes = list(&resource["resource"]["attributes"]);
        let instance = attributes.iter().find(|one| one["key"] == "service.instance.id");
        let node = text(&instance.expect("a node")["value"]["stringValue"]);
        for span in list(&resource["scopeSpans"]).iter().flat_map(|scope| list(&scope["spans"])) {
            let links = list(&span["links"]);
            let links = links.iter().map(|link| (text(&link["traceId"]), text(&link["spanId"])));
            let attributes = list(&span["attributes"]);
            let attributes = attributes.iter().map(|one| {
                let value = one["value"].as_object().and_then(|value| value.values().next());
                (text(&one["key"]), value.cloned().unwrap_or_default())
            });
            all.push(Span {
                node: node.clone(),
                trace: text(&span["traceId"]),
                id: text(&span["spanId"]),
                parent: span["parentSpanId"].as_str().map(str::to_owned),
                name: text(&span["name"]),
                from: text(&span["startTimeUnixNano"]).parse().expect("nanoseconds"),
                to: text(&span["endTimeUnixNano"]).parse().expect("nanoseconds"),
                links: links.collect(),
                attributes: attributes.collect(),
            });
        }
    }
    all
}

/// The traces, each of which is one tree whose spans lie in each other.
fn trees(spans: &[Span]) -> BTreeMap<&str, Vec<&Span>> {
    let mut traces: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        traces.entry(&span.trace).or_default().push(span);
    }
    for spans in traces.values() {
        let by_id: BTreeMap<&str, &Span> =
            spans.iter().map(|span| (span.id.as_str(), *span)).collect();
        assert_eq!(by_id.len(), spans.len(), "an id twice: {spans:#?}");
        let roots = spans.iter().filter(|span| span.parent.is_none()).count();
        assert_eq!(roots, 1, "{spans:#?}");
        for span in spans {
            assert!(span.from <= span.to, "{span:?}");
            let Some(parent) = &span.parent else { continue };
            let parent = by_id.get(parent.as_str()).expect("its parent is of its trace");
            assert!(parent.from <= span.from && span.to <= parent.to, "{span:?} in {parent:?}");
        }
    }
    traces
}

#[test]
fn every_episode_is_one_tree_live_and_afterwards() {
    let collector = Collector::start();
    let world = World::new();
    let telemetry = format!("[telemetry]\notlp = \"{}\"\n[cluster]", collector.address);
    world.configure("[cluster]", &telemetry);
    world.configure("steps = 20", &format!("steps = {STEPS}"));
    let mut training = world.train(&[]);
    training.until_step(1);
    end(world.pid("rollout-1").expect("runs"), Signal::SIGKILL);
    training.completes();

    let file = world.folder.path().join("traces.jsonl");
    world.succeeds(&["export", "run", "--otlp", "traces.jsonl"]);
    let text = std::fs::read_to_string(&file).expect("was written");
    let requests: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a request a line")).collect();
    let all = spans(&requests);
    let traces = trees(&all);

    let reader = Reader::open(&world.run.store()).expect("a store");
    let episodes = reader.episodes().expect("readable");
    let mut trained = 0;
    let handed_out = episodes.iter().filter(|row| row.attempt > 0);
    for row in handed_out {
        let is_it = |span: &&Span| {
            span.parent.is_none()
                && span.attributes.get("crrl.episode") == Some(&row.episode.0.to_string().into())
        };
        let root = all.iter().find(is_it).unwrap_or_else(|| panic!("no trace of {row:?}"));
        let spans = &traces[root.trace.as_str()];
        let leases = spans.iter().filter(|span| span.name == "lease").count();
        assert_eq!(leases, row.attempt as usize, "a lease is a span: {row:?}");
        if row.state != "trained" {
            continue;
        }
        trained += 1;
        for name in ["dispatch", "invoke_agent nano", "places", "turn", "diff", "reward"] {
            assert!(spans.iter().any(|span| span.name == name), "{name}: {spans:#?}");
        }
        let chat = spans.iter().find(|span| span.name.starts_with("chat ")).expect("generation");
        assert_eq!(Some(chat.node.as_str()), row.node.as_ref().map(|node| node.as_str()));
        let wait = spans.iter().find(|span| span.name == "wait for step").expect("a step");
        assert_eq!(wait.node, "coordinator");
        let (step, root_of_step) = &wait.links[0];
        let step = traces[step.as_str()].iter().find(|span| span.id == *root_of_step);
        let consumed = &step.expect("the step is exported").links;
        assert!(consumed.contains(&(root.trace.clone(), root.id.clone())), "{consumed:?}");
    }
    assert_eq!(trained, STEPS * 4, "4 attempts a step");
    assert!(all.iter().any(|span| span.name.starts_with("execute_tool ")) || no_tools(&reader));

    // What went to the collector while it trained is the same, but for what was measured last.
    let live = collector.spans();
    trees(&live);
    let ids = |spans: &[Span]| -> BTreeSet<String> {
        spans.iter().map(|span| format!("{} {}", span.trace, span.id)).collect()
    };
    let (live, all) = (ids(&live), ids(&all));
    let missing: Vec<_> = all.difference(&live).collect();
    assert!(missing.is_empty() && live.is_subset(&all), "{missing:?}");

    // And once more, by hand.
    let again = Collector::start();
    let said = world.succeeds(&["export", "run", "--otlp-endpoint", &again.address]);
    assert!(said.contains(&format!("{} spans to {}", all.len(), again.address)), "{said}");
    assert_eq!(ids(&again.spans()), all);
    let nobody = world.refused(&["export", "run", "--otlp-endpoint", "http://127.0.0.1:1"]);
    assert_eq!(nobody.0, 6, "{}", nobody.1);
    assert!(nobody.1.contains("no collector at http://127.0.0.1:1"), "{}", nobody.1);

    let curves = ["export", "run", "--tensorboard", "curves", "--csv", "steps.csv"];
    let said = world.succeeds(&curves);
    assert!(said.contains(&format!("{} steps", world.steps())), "{said}");
    assert_eq!(world.succeeds(&[&curves[..], &["--quiet"]].concat()), "");
}

/// Whether a policy that is good for nothing called no tool in the whole run.
fn no_tools(reader: &Reader) -> bool {
    let episodes = reader.episodes().expect("readable");
    episodes.iter().all(|row| {
        let turns = reader.turns(row.episode).expect("readable");
        turns.iter().all(|turn| turn.tools.iter().all(|tool| tool.wall_ms == 0))
    })
}

#[test]
fn a_collector_that_is_away_holds_nothing_up() {
    let world = World::new();
    // Somebody who takes connections and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = mute.local_addr().expect("bound");
    let telemetry = format!("[telemetry]\notlp = \"http://{address}\"\n[cluster]");
    world.configure("[cluster]", &telemetry);
    world.configure("steps = 20", "steps = 3");
    let began = Instant::now();
    world.train(&[]).completes();
    assert!(began.elapsed() < Duration::from_secs(120));
    let log = std::fs::read_to_string(world.run.log("coordinator")).expect("a log");
    assert!(log.contains("traces are sent"), "{log}");
    drop(mute);
}
