//! Leafing through the episodes of a store.

use crrl_store::{EpisodeQuery, EpisodeRow, Op, Options, Order, Reader, Writer};
use crrl_types::{AdapterVersion, EpisodeId, GroupId};

fn row(id: u64) -> EpisodeRow {
    EpisodeRow {
        episode: EpisodeId(id),
        group: GroupId(id / 4),
        task: format!("queue-{}", id % 3).into(),
        phase: 0,
        ordinal: id / 4,
        sample: (id % 4) as u32,
        evaluation: false,
        attempt: 1,
        node: (id > 0).then(|| format!("rollout-{}", id % 2).into()),
        state: if id == 0 { "queued" } else { "trained" }.into(),
        reason: None,
        // One that is on its way has none.
        reward: (id != 7).then_some((id % 5) as f64 / 4.0),
        success: Some(id.is_multiple_of(5)),
        oldest: Some(AdapterVersion(id / 10)),
        generated: Some(id as u32),
        step: None,
    }
}

fn store(folder: &std::path::Path) -> Reader {
    let path = folder.join("run.sqlite");
    let writer = Writer::<()>::start(&path, Options::default(), |said| said.expect("written"));
    let ops = (0..40).map(|id| Op::Episode(Box::new(row(id)))).collect();
    writer.expect("a store").submit(ops, ()).expect("written");
    Reader::open(&path).expect("readable")
}

fn ids(reader: &Reader, query: &EpisodeQuery, offset: u64, limit: u64) -> (u64, Vec<u64>) {
    let page = reader.page(query, offset, limit).expect("a page");
    (page.total, page.rows.iter().map(|row| row.episode.0).collect())
}

#[test]
fn pages_follow_each_other_and_say_how_many_there_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = store(folder.path());
    let newest = EpisodeQuery { descending: true, ..EpisodeQuery::default() };
    assert_eq!(ids(&reader, &newest, 0, 3), (39, vec![39, 38, 37]), "0 was never handed out");
    assert_eq!(ids(&reader, &newest, 3, 3), (39, vec![36, 35, 34]));
    assert_eq!(ids(&reader, &newest, 999, 3), (39, vec![]));
    let held = EpisodeQuery { until: Some(37), ..newest };
    assert_eq!(ids(&reader, &held, 0, 2), (37, vec![37, 36]), "newer ones do not push on");
}

#[test]
fn filters_hold_together_and_what_has_no_reward_comes_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = store(folder.path());
    let query = EpisodeQuery {
        task: Some("queue-1".into()),
        node: Some("rollout-1".into()),
        reward_min: Some(0.75),
        ..EpisodeQuery::default()
    };
    let (total, found) = ids(&reader, &query, 0, 100);
    let want: Vec<u64> = (1..40).filter(|id| id % 3 == 1 && id % 2 == 1 && id % 5 >= 3).collect();
    assert_eq!((total, found), (want.len() as u64, want));
    for descending in [false, true] {
        let by_reward =
            EpisodeQuery { order: Order::Reward, descending, ..EpisodeQuery::default() };
        assert_eq!(ids(&reader, &by_reward, 0, 100).1.last(), Some(&7));
    }
    let solved = EpisodeQuery { success: Some(true), version: Some(1), ..EpisodeQuery::default() };
    assert_eq!(ids(&reader, &solved, 0, 100).1, [10, 15]);
    let hostile = EpisodeQuery { task: Some("' OR 1=1 --".into()), ..EpisodeQuery::default() };
    assert_eq!(ids(&reader, &hostile, 0, 100).0, 0);
}

#[test]
fn facets_count_what_can_be_picked() {
    let folder = tempfile::tempdir().expect("a folder");
    let [nodes, states, versions, phases] = store(folder.path()).facets().expect("facets");
    let pairs = |facets: Vec<crrl_store::Facet>| -> Vec<(String, u64)> {
        facets.into_iter().map(|facet| (facet.value, facet.episodes)).collect()
    };
    assert_eq!(pairs(nodes), [("rollout-1".into(), 20), ("rollout-0".into(), 19)]);
    assert_eq!(pairs(states), [("trained".to_owned(), 39)]);
    assert_eq!(pairs(phases), [("0".to_owned(), 39)]);
    assert_eq!(versions.len(), 4);
}
