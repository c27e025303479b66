//! A store that is read while it is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crrl_store::{EpisodeRow, Op, Options, Writer};
use crrl_types::{AdapterVersion, EpisodeId, GroupId};

use crate::{DEADLINE, made_up, world};

fn row(id: u64) -> EpisodeRow {
    EpisodeRow {
        episode: EpisodeId(id),
        group: GroupId(id / 4),
        task: "queue-late".into(),
        phase: 1,
        ordinal: id / 4,
        sample: (id % 4) as u32,
        evaluation: false,
        attempt: 1,
        node: Some("rollout-1".into()),
        state: "finished".into(),
        reason: None,
        reward: Some(0.5),
        success: Some(false),
        oldest: Some(AdapterVersion(3)),
        generated: Some(9),
        step: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_never_fails_and_sees_what_was_written() {
    let (folder, served) = made_up(&world::World::default()).await;
    let store = folder.path().join("run/run.sqlite");
    let began = Instant::now();
    // The files of a run that is over stand still.
    let before = loop {
        let revision = served.client.json("/api/runs/0/now").await["revision"].clone();
        if revision != 0 {
            break revision;
        }
        assert!(began.elapsed() < DEADLINE, "nobody looks at the files");
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writing = std::thread::spawn(move || {
        let options = Options::default();
        let writer = Writer::<()>::start(&store, options, |said| said.expect("written"));
        let writer = writer.expect("a store");
        let mut id = 100_000;
        while !stopped.load(Ordering::Relaxed) && id < 110_000 {
            let ops = (id..id + 8).map(|id| Op::Episode(Box::new(row(id)))).collect();
            writer.submit(ops, ()).expect("written");
            id += 8;
        }
        id
    });
    let mut seen = 0;
    let mut looks = 0;
    while looks < 20 || seen <= 288 {
        let page = served.client.json("/api/runs/0/episodes?limit=5").await;
        let total = page["total"].as_u64().expect("a number");
        assert!(total >= seen, "{total} after {seen}");
        seen = total;
        looks += 1;
        assert!(began.elapsed() < DEADLINE, "nothing new was seen");
    }
    let curves = served.client.get("/api/runs/0/curves").await;
    assert_eq!(curves.status, 200);
    stop.store(true, Ordering::Relaxed);
    writing.join().expect("a writer");
    loop {
        let now = served.client.json("/api/runs/0/now").await["revision"].clone();
        if now != before {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "the change was not noticed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
