//! The account of a run that has ended: every episode is in it once, and weights and ledger agree.

use std::collections::{BTreeMap, BTreeSet};

use crrl_actors::{evidence, ledger_rows};
use crrl_cluster::RunDir;
use crrl_control::restore::Restored;
use crrl_control::results::{RESULTS_FILE, Results};
use crrl_store::{BatchRow, EpisodeRow, Reader};
use crrl_types::EpisodeId;
use serde_json::Value;

/// Checks everything a run of one train phase with so many steps leaves behind.
pub(crate) fn check(run: &RunDir, steps: u64) {
    check_without_history(run, steps);
    let reader = Reader::open(&run.store()).expect("a store");
    history_agrees(run, &reader.episodes_of_phase(0).expect("rows"));
}

/// As [`check`], after a disk was full: the history may have lost lines then, the ledger nothing.
pub(crate) fn check_without_history(run: &RunDir, steps: u64) {
    let verdict = evidence::judge(run).expect("a run");
    assert!(verdict.ok, "{:#?}", verdict.findings);
    let reader = Reader::open(&run.store()).expect("a store");
    let rows = reader.episodes_of_phase(0).expect("rows");
    let batches = reader.last_batches(u64::MAX).expect("rows");
    every_episode_ended(&rows, &ledger_rows::restored(&reader).expect("a list"));
    nothing_counts_twice(&rows, &batches, steps);
    results_agree(run, &rows, steps);
    checkpoints_agree(run, &batches, steps);
    let published = reader.published().expect("rows");
    assert!(published.len() as u64 > steps, "{published:?}");
    let digests: BTreeSet<String> = published.iter().map(|(_, d)| d.to_string()).collect();
    assert!(digests.len() > 2, "the policy never changed: {published:?}");
    assert_eq!(reader.steps().expect("rows").len() as u64, steps);
}

fn every_episode_ended(rows: &[EpisodeRow], restored: &[Restored]) {
    let mut next = EpisodeId(0);
    for row in rows {
        let is_left_out = |last| restored.iter().any(|restored| restored.skips(next, last));
        let is_next = row.episode == next || is_left_out(EpisodeId(row.episode.0 - 1));
        assert!(is_next, "an episode is missing before {row:?}");
        next = row.episode.next();
        let over = ["trained", "dropped", "failed", "quarantined"];
        assert!(over.contains(&row.state.as_str()), "{row:?}");
    }
}

fn nothing_counts_twice(rows: &[EpisodeRow], batches: &[BatchRow], steps: u64) {
    let made: Vec<u64> = batches.iter().map(|batch| batch.step.0).collect();
    assert_eq!(made, (1..=steps).collect::<Vec<u64>>());
    let mut trained = BTreeMap::new();
    for batch in batches {
        assert!(batch.committed, "{batch:?}");
        for episode in &batch.episodes {
            assert_eq!(trained.insert(*episode, batch.step), None, "{episode} counts twice");
        }
    }
    let in_ledger: BTreeMap<EpisodeId, _> = rows
        .iter()
        .filter(|row| row.state == "trained")
        .map(|row| (row.episode, row.step.expect("a step")))
        .collect();
    assert_eq!(trained, in_ledger);
}

fn results_agree(run: &RunDir, rows: &[EpisodeRow], steps: u64) {
    let text = std::fs::read(run.path().join(RESULTS_FILE)).expect("results");
    let results: Results = serde_json::from_slice(&text).expect("results");
    assert!(results.complete && results.error.is_none(), "{results:?}");
    let [training] = &results.trainings[..] else { panic!("{results:?}") };
    let count = |state: &str| rows.iter().filter(|row| row.state == state).count() as u64;
    assert_eq!(training.steps, steps);
    assert_eq!(training.trained, count("trained"), "{results:?}");
    assert_eq!(training.dropped, count("dropped"), "{results:?}");
    assert_eq!(training.failed, count("failed") + count("quarantined"), "{results:?}");
}

/// Of every episode that was handed out the history tells one end, and of no other.
fn history_agrees(run: &RunDir, rows: &[EpisodeRow]) {
    let text = std::fs::read_to_string(run.events()).expect("a history");
    let mut ends: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut dispatched = BTreeSet::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).expect("a line is an object");
        let kind = event["event"].as_str().expect("a kind").to_owned();
        let Some(episode) = event["episode"].as_u64() else { continue };
        match kind.as_str() {
            "dispatched" => drop(dispatched.insert(episode)),
            "trained" | "dropped" | "failed" => ends.entry(episode).or_default().push(kind),
            _ => {}
        }
    }
    for row in rows {
        let said = ends.get(&row.episode.0).map_or(&[][..], Vec::as_slice);
        assert_eq!(said.len(), 1, "the history of {row:?}: {said:?}");
        assert_eq!(row.attempt > 0, dispatched.contains(&row.episode.0), "{row:?}");
    }
}

fn checkpoints_agree(run: &RunDir, batches: &[BatchRow], steps: u64) {
    let mut newest = 0;
    for folder in std::fs::read_dir(run.checkpoints()).expect("checkpoints") {
        let path = folder.expect("readable").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue; // Of a life that ended while it wrote.
        }
        let text = std::fs::read(path.join("manifest.json")).expect("a manifest");
        let manifest: Value = serde_json::from_slice(&text).expect("JSON");
        let step = manifest["progress"]["step"].as_u64().expect("a step");
        let consumed: Vec<EpisodeId> =
            serde_json::from_value(manifest["progress"]["consumed"].clone()).expect("ids");
        let batch = batches.iter().find(|batch| batch.step.0 == step).expect("its batch");
        assert_eq!(consumed, batch.episodes, "{}", path.display());
        newest = newest.max(step);
    }
    assert_eq!(newest, steps);
}
