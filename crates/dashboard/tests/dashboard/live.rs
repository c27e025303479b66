//! A cluster that is up, and viewers of it.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::head;
use crate::{DEADLINE, coordinator, made_up, scene, serve, world};

/// The next pulse of a viewer.
async fn pulse(stream: &mut BufReader<TcpStream>) -> Value {
    let next = async {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(stream.read_line(&mut line).await.expect("a line") > 0, "the stream ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).expect("JSON");
            }
        }
    };
    timeout(DEADLINE, next).await.expect("a pulse in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_seen_as_it_changes_and_as_it_goes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = coordinator::prepared(&folder.path().join("run"));
    let (mesh, board) = coordinator::start(&run).await;
    board.update(|board| *board = scene::frame(150).snapshot);
    let served = serve(&[run.path().to_owned()]).await.expect("a run");
    let client = &served.client;
    let mut viewer = client.open(&client.look("/api/runs/0/pulse")).await;
    assert_eq!(head(&mut viewer).await.0, 200);
    let live = loop {
        let pulse = pulse(&mut viewer).await;
        if pulse["link"]["state"] == "live" && pulse["progress"]["step"] == 15 {
            break pulse;
        }
    };
    assert_eq!(live["nodes"].as_array().map(Vec::len), Some(4));
    board.update(|board| {
        *board = scene::frame(180).snapshot;
        board.nodes[2].actors[2].handling = Some(("Generate".into(), 9_000));
    });
    while pulse(&mut viewer).await["findings"][0]["rule"] != "actor-busy" {}
    let actors = client.json("/api/runs/0/actors?sort=-waiting&filter=node:rollout-0").await;
    assert_eq!(actors["total"], 5);
    let slow = client.json("/api/runs/0/actors?limit=1").await;
    assert_eq!(slow["rows"][0]["name"], "engine", "what is in trouble comes first");
    let tree = client.json("/api/runs/0/tree?filter=name:engine").await;
    let names: Vec<(u64, &str)> = tree["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            let what = row.get("node").unwrap_or(&row["actor"]);
            (row["level"].as_u64().expect("a level"), what["name"].as_str().expect("a name"))
        })
        .collect();
    let branch = |node| [(0, node), (1, "supervisor"), (2, "rollout"), (3, "engine")];
    assert_eq!(
        names,
        [branch("rollout-0"), branch("rollout-1")].concat(),
        "what leads to it stays"
    );
    assert_eq!(client.json("/api/runs/0/live").await["all"], 12);
    let curves = client.json("/api/runs/0/curves").await;
    assert_eq!(curves["charts"][0]["series"][0]["line"].as_array().map(Vec::len), Some(18));
    let lines: String = scene::events(179)
        .iter()
        .map(|event| format!("{}\n", serde_json::to_string(event).expect("JSON")))
        .collect();
    std::fs::write(run.events(), lines).expect("written");
    while pulse(&mut viewer).await["events"][0]["event"] != "node down" {}
    let history = client.json("/api/runs/0/history?filter=node:rollout-1").await;
    assert_eq!(history["rows"][0]["detail"], "reason=timed out");
    mesh.stop("the test is over").await;
    while pulse(&mut viewer).await["link"]["state"] != "lost" {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_of_viewers_are_bounded_and_one_that_is_left_is_free() {
    let (_folder, served) = made_up(&world::World::default()).await;
    let client = &served.client;
    let mut places = Vec::new();
    for _ in 0..crrl_dashboard::viewers::VIEWERS_MAX {
        let mut viewer = client.open(&client.look("/api/runs/0/pulse")).await;
        assert_eq!(timeout(DEADLINE, head(&mut viewer)).await.expect("in time").0, 200);
        places.push(viewer);
    }
    let refused = client.refusal("/api/runs/0/pulse").await;
    assert!(refused.0 == 503 && refused.1.contains("close one"), "{refused:?}");
    let last = places.last_mut().expect("a viewer");
    for _ in 0..3 {
        pulse(last).await;
    }
    places.pop();
    let began = std::time::Instant::now();
    while client.get_head("/api/runs/0/pulse").await != 200 {
        assert!(began.elapsed() < DEADLINE, "a place that was left is not free");
    }
}
