//! An episode under way, followed over a socket.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Client, head};
use crate::under_way::{self, EPISODE, Script};
use crate::{DEADLINE, Served, coordinator, made_up, serve, world};

const HOSTILE: &str = "</script><img src=x onerror=alert(1)>\u{202e}\u{1b}[31m";

/// The next event that is not only about how long things take.
async fn event(stream: &mut BufReader<TcpStream>) -> (String, Value) {
    let next = async {
        let (mut line, mut name) = (String::new(), String::new());
        loop {
            line.clear();
            assert!(stream.read_line(&mut line).await.expect("a line") > 0, "the stream ended");
            if let Some(told) = line.strip_prefix("event: ") {
                name = told.trim_end().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ")
                && name != "now"
            {
                return (name, serde_json::from_str(data).expect("JSON"));
            }
        }
    };
    timeout(DEADLINE, next).await.expect("an event in time")
}

async fn turn(stream: &mut BufReader<TcpStream>) -> Value {
    let (name, value) = event(stream).await;
    assert_eq!(name, "turn", "{value}");
    value
}

/// Waits until the cluster of the run is looked at.
async fn watched(client: &Client) {
    let began = Instant::now();
    while client.json("/api/runs/0/now").await["link"]["state"] == "off" {
        assert!(began.elapsed() < DEADLINE, "nobody looks at the cluster");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn follow(served: &Served) -> BufReader<TcpStream> {
    let path = format!("/api/runs/0/episodes/{EPISODE}/follow");
    let mut stream = served.client.open(&served.client.look(&path)).await;
    let (status, headers) = timeout(DEADLINE, head(&mut stream)).await.expect("in time");
    assert_eq!(status, 200);
    let kind = headers.iter().find(|(name, _)| name == "content-type").map(|(_, kind)| &**kind);
    assert_eq!(kind, Some("text/event-stream"));
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_are_told_as_they_become_durable_until_it_is_over() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    world::World { steps: 1, ..world::World::default() }.write(&folder.path().join("run"));
    let run = coordinator::prepared(&folder.path().join("run"));
    under_way::configure(&run.config_path());
    let mut script = Script::open(&run.store(), HOSTILE);
    script.begins();
    let (mesh, board) = coordinator::start(&run).await;
    board.update(|board| *board = under_way::board(150));
    let served = serve(&[run.path().to_owned()]).await.expect("a run");
    let client = &served.client;
    watched(client).await;

    let mut stream = follow(&served).await;
    script.writes(1, "I look at the queue.", Some("cat queue.py"));
    assert_eq!(event(&mut stream).await.0, "begin");
    let first = turn(&mut stream).await;
    let text = first["text"]["text"].as_str().expect("a text");
    assert!(text.starts_with(&format!("I look at the queue. {HOSTILE}")), "as it is: {text}");
    assert_eq!(
        (first["calls"][0]["name"].as_str(), first["turn"].as_u64()),
        (Some("shell"), Some(0))
    );
    assert_eq!(first["calls"][0]["fate"], "waiting");
    let path = format!("/api/runs/0/episodes/{EPISODE}/tokens?turn=");
    let tokens = client.json(&format!("{path}0")).await;
    let pieces = tokens["pieces"].as_array().expect("tokens");
    let written: String = pieces.iter().filter_map(|piece| piece["text"].as_str()).collect();
    assert!(written.starts_with("I look at the queue."), "{written}");
    let drawn = (pieces[0]["logprob"].as_f64(), pieces[0]["version"].as_u64());
    assert_eq!(drawn, (Some(-0.5), Some(19)));
    assert_eq!(client.refusal(&format!("{path}7")).await.0, 404, "it is not written yet");
    script.answers(1, &"class Queue:\n".repeat(2_000));
    let answered = turn(&mut stream).await;
    let output = &answered["calls"][0]["output"];
    assert_eq!(
        (answered["turn"].as_u64(), &answered["calls"][0]["fate"]),
        (Some(0), &"worked".into())
    );
    let from = output["next"].as_u64().expect("it is long");
    let path = format!("/api/runs/0/episodes/{EPISODE}/text?of=output&turn=0&call=0&from={from}");
    let rest = client.json(&path).await;
    let rest = rest["text"].as_str().expect("a text").to_owned();
    let whole = output["text"].as_str().expect("a text").to_owned() + &rest;
    assert!(whole.starts_with("class Queue:\nclass Queue:\n") && whole.len() > 20_000);

    // Somebody who comes later is told everything, and then the same.
    let mut later = follow(&served).await;
    assert_eq!(event(&mut later).await.0, "begin");
    assert_eq!(turn(&mut later).await, answered);
    script.writes(1, "That is the bug.", None);
    for stream in [&mut stream, &mut later] {
        assert_eq!(turn(stream).await["turn"], 0);
        assert_eq!(turn(stream).await["turn"], 1);
    }

    script.begins_anew();
    script.writes(2, "Once more.", None);
    for stream in [&mut stream, &mut later] {
        assert_eq!(event(stream).await, ("begin".into(), serde_json::json!({ "attempt": 2 })));
        let anew = turn(stream).await;
        assert!(anew["text"]["text"].as_str().is_some_and(|text| text.starts_with("Once more.")));
    }

    script.ends();
    for stream in [&mut stream, &mut later] {
        assert_eq!(
            event(stream).await,
            ("over".into(), serde_json::json!({ "state": "finished" }))
        );
    }
    let over = client.json(&format!("/api/runs/0/episodes/{EPISODE}")).await;
    assert_eq!(over["left"]["reward"]["components"][0]["name"], "line");
    mesh.stop("the test is over").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_far_already_is_told_look_by_look_and_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    world::World { steps: 1, ..world::World::default() }.write(&folder.path().join("run"));
    let run = coordinator::prepared(&folder.path().join("run"));
    under_way::configure(&run.config_path());
    let mut script = Script::open(&run.store(), "");
    script.begins();
    (0..20).for_each(|n| script.writes(1, &format!("Turn {n}."), None));
    let (mesh, board) = coordinator::start(&run).await;
    board.update(|board| *board = under_way::board(150));
    let served = serve(&[run.path().to_owned()]).await.expect("a run");
    watched(&served.client).await;
    let mut stream = follow(&served).await;
    assert_eq!(event(&mut stream).await.0, "begin");
    let mut numbers = Vec::new();
    while numbers.last() != Some(&19) {
        let told = turn(&mut stream).await;
        let number = told["turn"].as_u64().expect("a number");
        let text = told["text"]["text"].as_str().expect("a text");
        assert!(text.starts_with(&format!("Turn {number}.")), "{number}: {text}");
        numbers.push(number);
    }
    // The last of each look comes once more: it may have got an answer since.
    numbers.dedup();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    mesh.stop("the test is over").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_said_where_it_is_and_places_are_bounded() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    world::World { steps: 1, ..world::World::default() }.write(&folder.path().join("run"));
    let run = coordinator::prepared(&folder.path().join("run"));
    let script = Script::open(&run.store(), "");
    script.begins();
    let (mesh, board) = coordinator::start(&run).await;
    board.update(|board| *board = under_way::board(150));
    let served = serve(&[run.path().to_owned()]).await.expect("a run");
    let client = &served.client;
    watched(client).await;
    let path = format!("/api/runs/0/episodes/{EPISODE}/follow");
    let mut places = Vec::new();
    for _ in 0..crrl_dashboard::followers::FOLLOWERS_MAX {
        places.push(follow(&served).await);
    }
    let refused = client.refusal(&path).await;
    assert!(refused.0 == 503 && refused.1.contains("close one"), "{refused:?}");
    let missing = client.refusal("/api/runs/0/episodes/12345678/follow").await;
    assert!(missing.0 == 404 && missing.1.contains("no episode 12345678"), "{missing:?}");
    // What the board says of it comes along.
    let last = places.last_mut().expect("there are some");
    let told = async {
        let mut line = String::new();
        while !line.contains("shell cat queue.py") {
            line.clear();
            assert!(last.read_line(&mut line).await.expect("a line") > 0, "the stream ended");
        }
    };
    timeout(DEADLINE, told).await.expect("in time");
    places.pop();
    let began = Instant::now();
    while client.get_head(&path).await != 200 {
        assert!(began.elapsed() < DEADLINE, "a place that was left is not free");
    }
    mesh.stop("the test is over").await;
}

#[tokio::test]
async fn nothing_of_a_run_that_is_over_is_followed() {
    let (_folder, served) = made_up(&world::World { steps: 1, ..world::World::default() }).await;
    let refused = served.client.refusal("/api/runs/0/episodes/1/follow").await;
    assert!(refused.0 == 404 && refused.1.contains("no cluster is up"), "{refused:?}");
}
