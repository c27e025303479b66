//! The coordinator's actor with a real store: a plan is carried out, through a restart, by nodes
//! and a learner that are played here.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crrl_actors::coordinator::{Args, Coordinator, Msg};
use crrl_actors::leave::{Farewell, Leave};
use crrl_cluster::run_dir::write_atomic;
use crrl_cluster::{Inbound, MeshEvent, Receipt, RunDir, StatusBoard};
use crrl_control::plan::{Evaluate, PLAN_FILE, Phase, Plan, StalePolicy, Train};
use crrl_control::results::{RESULTS_FILE, Results};
use crrl_control::wire::{BatchRequest, NodeRole, Serving, Wire};
use crrl_store::{Copies, Options, Reader, Stop, StoreError, Writer};
use crrl_types::{
    AdapterVersion, Digest, EpisodeId, Finish, NodeName, Reward, Sampling, Step, Task, TokenSpan,
    Trajectory,
};
use ractor::{Actor, ActorRef};
use tokio::task::JoinHandle;

struct Stage {
    run: RunDir,
    board: StatusBoard,
    posted: Receiver<(NodeName, Wire)>,
    post: Arc<Mutex<std::sync::mpsc::Sender<(NodeName, Wire)>>>,
    leave: Leave,
}

fn serving(version: u64) -> Serving {
    Serving { version: AdapterVersion(version), digest: Digest::of(&version.to_le_bytes()) }
}

impl Stage {
    fn args(&self) -> Args {
        let post = self.post.clone();
        Args {
            name: "coordinator".into(),
            run: self.run.clone(),
            board: self.board.clone(),
            post: Arc::new(move |to, wire| {
                let sent = post.lock().expect("no panic under it").send((to.clone(), wire));
                // At the end the test listens no more.
                drop(sent);
                Ok(())
            }),
            telemetry: Default::default(),
            store: Options::default(),
            own: BTreeSet::new(),
            leave: self.leave.clone(),
        }
    }

    async fn start(&self) -> (ActorRef<Msg>, JoinHandle<()>) {
        Actor::spawn(None, Coordinator, self.args()).await.expect("a plan and an empty folder")
    }

    fn next(&self) -> (NodeName, Wire) {
        self.posted.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|error| {
            assert_eq!(error, RecvTimeoutError::Timeout);
            panic!("nothing within 20 s: {:#?}", self.board.snapshot().progress)
        })
    }
}

fn say(actor: &ActorRef<Msg>, from: &str, role: NodeRole, wire: Wire) {
    let roles = vec![role];
    let inbound = Inbound { from: from.into(), roles, wire, receipt: Receipt::none() };
    actor.cast(Msg::Inbound(Box::new(inbound))).expect("it lives");
}

fn trajectory(
    episode: EpisodeId,
    assignment: &crrl_control::wire::Assignment,
    version: u64,
) -> Trajectory {
    let Serving { version, digest } = serving(version);
    Trajectory {
        episode,
        group: assignment.group,
        task: serde_json::from_str::<Task>(&assignment.task_json).expect("a task").instance_id,
        node: "rollout-0".into(),
        tokens: vec![1, 2, 3],
        generated: vec![false, true, true],
        logprobs: vec![0.0, -0.5, -0.25],
        adapters: vec![TokenSpan { start: 1, end: 3, version, digest }],
        turns: Vec::new(),
        finish: Finish::Done,
        diff: String::new(),
        reward: Reward {
            total: (episode.0 % 3) as f64 / 2.0,
            success: false,
            components: Vec::new(),
        },
        temperature: 1.0,
        wall_ms: 1,
    }
}

fn plan() -> Plan {
    let evaluate = |label: &str| {
        Phase::Evaluate(Evaluate {
            label: label.into(),
            tasks: "tasks.jsonl".into(),
            tasks_max: 2,
            samples: 2,
            sampling: Sampling::default(),
        })
    };
    let train = Phase::Train(Train {
        tasks: "tasks.jsonl".into(),
        steps: 3,
        group_size: 3,
        groups_per_step: 2,
        sampling: Sampling::default(),
        staleness_max: 2,
        stale: StalePolicy::TrainRest,
        sync: false,
        skip_equal_groups: true,
        staleness: Default::default(),
        stragglers: Default::default(),
    });
    Plan::new(1, vec![evaluate("before"), train, evaluate("after")])
}

/// A run's folder with tasks and no plan yet.
fn stage() -> (tempfile::TempDir, Stage) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let task =
        |i| format!(r#"{{"instance_id": "task-{i}", "problem_statement": "p", "patch": "x"}}"#);
    let tasks: Vec<String> = (0..4).map(task).collect();
    std::fs::write(folder.path().join("tasks.jsonl"), tasks.join("\n")).expect("writable");
    let (sender, posted) = channel();
    let stage = Stage {
        run: RunDir::new(folder.path()),
        board: StatusBoard::new(),
        posted,
        post: Arc::new(Mutex::new(sender)),
        leave: Leave::default(),
    };
    (folder, stage)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_is_missing_or_empty_is_not_begun_anew_over_its_copies() {
    for is_there in [false, true] {
        let (folder, stage) = stage();
        std::fs::write(folder.path().join(PLAN_FILE), plan().to_json()).expect("writable");
        let store = stage.run.store();
        drop(Writer::start(&store, Options::default(), |_: Result<(), StoreError>| ()));
        let copies = Copies::new(stage.run.ledger_copies(), 1);
        copies.make(&store, &Stop::default()).expect("a copy");
        std::fs::remove_file(&store).expect("is there");
        if is_there {
            std::fs::write(&store, b"").expect("writable");
        }
        let spawned = Actor::spawn(None, Coordinator, stage.args()).await;
        assert!(spawned.is_err(), "it was begun anew");
        let Some(Farewell::Hopeless(why)) = stage.leave.heard() else {
            panic!("{:?}", stage.leave.heard())
        };
        assert!(why.contains("missing or empty"), "{why}");
        assert!(why.contains("--resume --ledger last-good"), "{why}");
        assert_eq!(std::fs::metadata(&store).map_or(0, |file| file.len()), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_carried_out_through_a_restart() {
    let (folder, stage) = stage();
    // The plan comes after the node: the node is asked again.
    let (mut actor, mut ended) = stage.start().await;
    let up = |actor: &ActorRef<Msg>| {
        let (name, roles) = (NodeName::from("rollout-0"), vec![NodeRole::Rollout]);
        let event = MeshEvent::PeerUp { name, roles, incarnation: 1 };
        actor.cast(Msg::Peer(event)).expect("it lives");
    };
    up(&actor);
    let ask = |actor: &ActorRef<Msg>, step: u64, version: u64| {
        let request = BatchRequest { step: Step(step), version: AdapterVersion(version) };
        say(actor, "learner", NodeRole::Learner, Wire::BatchWanted(request));
    };
    ask(&actor, 1, 0);
    // Whole: it is looked for at this moment.
    let plan = plan().to_json();
    write_atomic(&folder.path().join(PLAN_FILE), plan.as_bytes()).expect("writable");

    let (mut version, mut steps) = (0, 0);
    let mut restarted = false;
    let mut trained = BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "{:#?}", stage.board.snapshot().progress);
        let (to, wire) = stage.next();
        match wire {
            Wire::JoinWanted => {
                let serving = Some(serving(version));
                let join = Wire::Join { incarnation: 1, capacity: 4, holding: Vec::new(), serving };
                say(&actor, "rollout-0", NodeRole::Rollout, join);
            }
            Wire::Assign(assignment) => {
                assert!(assignment.task_json.contains("problem_statement"));
                let result = trajectory(assignment.episode, &assignment, version);
                let attempt = assignment.attempt;
                let wire = Wire::Finished { attempt, trajectory: Box::new(result) };
                say(&actor, "rollout-0", NodeRole::Rollout, wire);
            }
            Wire::Batch { step, trajectories } => {
                assert_eq!(to.as_str(), "learner");
                if step.0 == 2 && !restarted {
                    // The coordinator dies with a batch under way.
                    restarted = true;
                    actor.stop_and_wait(None, None).await.expect("it stops");
                    ended.await.expect("it does not panic");
                    while stage.posted.try_recv().is_ok() {}
                    (actor, ended) = stage.start().await;
                    up(&actor);
                    ask(&actor, 2, version);
                    continue;
                }
                if step.0 <= steps {
                    continue;
                }
                for trajectory in &trajectories {
                    assert_eq!(trajectory.tokens, [1, 2, 3]);
                    assert!(trained.insert(trajectory.episode), "trained on twice");
                }
                steps = step.0;
                version += 1;
                let Serving { version: now, digest } = serving(version);
                let published = Wire::Published { version: now, digest };
                say(&actor, "coordinator", NodeRole::ParameterServer, published);
                let consumed = trajectories.iter().map(|t| t.episode).collect();
                let metrics = vec![("loss".to_owned(), 0.5)];
                let committed = Wire::Committed { step, version: now, consumed, metrics };
                say(&actor, "learner", NodeRole::Learner, committed);
                let activated = Wire::Activated { version: now, digest };
                say(&actor, "rollout-0", NodeRole::Rollout, activated);
                ask(&actor, steps + 1, version);
            }
            Wire::Stop { .. } => break,
            Wire::Ack { .. } | Wire::Cancel { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert!(restarted);
    let text = std::fs::read(folder.path().join(RESULTS_FILE)).expect("results");
    let results: Results = serde_json::from_slice(&text).expect("results");
    assert!(results.complete && results.error.is_none(), "{results:?}");
    assert_eq!(results.evaluations.len(), 2);
    assert!(results.evaluations.iter().all(|e| e.attempts().count() == 4), "{results:?}");
    assert_eq!(results.evaluations[1].version, AdapterVersion(3));
    assert_eq!(results.trainings[0].trained, trained.len() as u64);
    let reader = Reader::open(&stage.run.store()).expect("a store");
    let left = reader.episodes_in(&["queued", "leased", "finished", "batched"]).expect("rows");
    assert!(left.is_empty(), "not accounted for: {left:?}");
    let steps = reader.steps().expect("rows");
    let metrics = &steps[1].metrics;
    assert!(metrics.iter().any(|(name, _)| name == "loss"));
    for (name, _) in metrics {
        let is_told = crrl_types::step_metric::named(name).is_some();
        assert!(is_told, "{name} is in no table: crates/types/src/step_metric.rs");
    }
    assert_eq!(stage.board.snapshot().progress.history.len(), 3);
    // The node is told, and a coordinator that comes back to a run that is over tells it at once.
    let done = Farewell::Done("the run is over".into());
    assert_eq!(stage.leave.said().await, done);
    actor.stop_and_wait(None, None).await.expect("it stops");
    ended.await.expect("it does not panic");
    // It may have died before it wrote the results down.
    std::fs::remove_file(folder.path().join(RESULTS_FILE)).expect("was there");
    let stage = Stage { leave: Leave::default(), ..stage };
    (actor, ended) = stage.start().await;
    let said = tokio::time::timeout(Duration::from_secs(20), stage.leave.said()).await;
    assert_eq!(said.expect("in time"), done);
    actor.stop_and_wait(None, None).await.expect("it stops");
    ended.await.expect("it does not panic");
    let text = std::fs::read(folder.path().join(RESULTS_FILE)).expect("results");
    assert_eq!(serde_json::from_slice::<Results>(&text).expect("results"), results);
}
