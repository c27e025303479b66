//! The run store, asked by the viewer.

use std::sync::mpsc::channel;
use std::time::Duration;

use crrl_cluster::RunDir;
use crrl_inspect::archive::{Answer, Ask, Store};
use crrl_store::{EpisodeRow, Op, Options, Writer};
use crrl_types::EpisodeId;

use crate::leftovers::{over, step, trajectory};
use crate::until::until;

const DEADLINE: Duration = Duration::from_secs(60);

fn answer(store: &Store, ask: Ask) -> Answer {
    assert!(store.ask(ask));
    until(&format!("an answer to {ask:?}"), || store.answer())
}

#[test]
fn what_is_over_is_found_newest_first_and_what_is_under_way_is_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.sqlite");
    let (say, said) = channel();
    let writer =
        Writer::<u64>::start(&path, Options::default(), move |words| drop(say.send(words)))
            .expect("a new store");
    let leased = EpisodeRow { state: "leased".into(), ..over(9) };
    let mut ops: Vec<Op> = [over(7), over(8), leased].map(|row| Op::Episode(Box::new(row))).into();
    ops.push(Op::Trajectory(Box::new(trajectory())));
    ops.extend((1..=3).map(|at| Op::Step(step(at))));
    writer.submit(ops, 1).expect("open");
    assert!(said.recv_timeout(DEADLINE).expect("durable").is_ok());
    let store = Store::open(&RunDir::new(folder.path())).expect("a thread");
    let Answer::Over(Ok(rows)) = answer(&store, Ask::Over) else {
        panic!("episodes were asked for")
    };
    assert_eq!(
        rows.iter().map(|row| row.episode).collect::<Vec<_>>(),
        [EpisodeId(8), EpisodeId(7)]
    );
    let Answer::Steps(Ok(steps)) = answer(&store, Ask::Steps) else {
        panic!("steps were asked for")
    };
    assert_eq!(steps.len(), 3);
    let Answer::Transcript(7, Ok(Some(found))) = answer(&store, Ask::Transcript(7)) else {
        panic!("it left one")
    };
    assert_eq!(found.trajectory.turns.len(), 2);
    assert!(matches!(answer(&store, Ask::Transcript(8)), Answer::Transcript(8, Ok(None))));
}

#[test]
fn a_store_that_is_not_there_is_an_answer() {
    let store = Store::open(&RunDir::new("nowhere")).expect("a thread");
    assert!(matches!(answer(&store, Ask::Over), Answer::Over(Err(_))));
}
