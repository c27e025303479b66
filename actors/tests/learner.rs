//! The learner's actor with a real model, tiny and random: a batch becomes a checkpoint, an adapter
//! and news of it, in that order. Parameter server and coordinator are played here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crrl_actors::chaos::Poison;
use crrl_actors::learner::{Args, LearnerActor, LearnerBoard, Msg};
use crrl_actors::leave::{Farewell, Leave};
use crrl_actors::trainer::Trainer;
use crrl_cluster::{Inbound, Receipt, Row, RunDir};
use crrl_config::{AdapterDtype, ClusterConfig};
use crrl_control::wire::{BatchRequest, NodeRole, Wire};
use crrl_learner::Checkpoints;
use crrl_model::{Architecture, Cpu, Decoder, FileDtype, ModelConfig, RopeScaling, peft};
use crrl_types::actor::{ActorReport, ActorState};
use crrl_types::{
    AdapterManifest, AdapterVersion, Digest, EpisodeId, Finish, GroupId, Reward, Step, TokenSpan,
    Trajectory,
};
use ractor::{Actor, ActorRef};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Everything here takes milliseconds; a busy machine may take its time.
const WAIT: Duration = Duration::from_secs(60);

struct Stage {
    folder: tempfile::TempDir,
    config: ClusterConfig,
    board: LearnerBoard,
    leave: Leave,
    actor: ActorRef<Msg>,
    ended: JoinHandle<()>,
    sent: mpsc::UnboundedReceiver<(NodeRole, Wire)>,
}

impl Stage {
    async fn new(change: impl FnOnce(&mut ClusterConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let model = folder.path().join("model");
        std::fs::create_dir_all(&model).expect("writable");
        let decoder = Decoder::<Cpu>::random(&tiny(), 1, &Default::default());
        decoder.save(&model, FileDtype::F32).expect("writable");
        let mut config = ClusterConfig::default();
        config.model.path = model;
        config.lora.rank = 2;
        config.lora.alpha = 4.0;
        config.learner.warmup_steps = 0;
        change(&mut config);
        let board = LearnerBoard::default();
        let leave = Leave::default();
        let (actor, ended, sent) = start(&folder, &config, &board, &leave).await;
        Self { folder, config, board, leave, actor, ended, sent }
    }

    async fn restart(&mut self) {
        self.actor.stop_and_wait(None, None).await.expect("it stops");
        (self.actor, self.ended, self.sent) =
            start(&self.folder, &self.config, &self.board, &self.leave).await;
    }

    fn run(&self) -> RunDir {
        RunDir::new(self.folder.path())
    }

    fn say(&self, role: NodeRole, wire: Wire) {
        let (from, roles) = ("peer".into(), vec![role]);
        let inbound = Inbound { from, roles, wire, receipt: Receipt::none() };
        self.actor.cast(Msg::Inbound(Box::new(inbound))).expect("it lives");
    }

    /// The next message that is not the last one said again.
    async fn next(&mut self) -> (NodeRole, Wire) {
        let next = tokio::time::timeout(WAIT, self.sent.recv()).await;
        next.expect("nothing was sent in time").expect("the actor lives")
    }

    async fn wants(&mut self, step: u64, version: u64) {
        let request = BatchRequest { step: Step(step), version: AdapterVersion(version) };
        loop {
            match self.next().await {
                (NodeRole::Coordinator, wire) => {
                    return assert_eq!(wire, Wire::BatchWanted(request));
                }
                // Offered again while the answer was under way.
                (_, Wire::Adapter { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The offer of this version, with its checkpoint on disk; offers of earlier ones may still be
    /// under way.
    async fn offers(&mut self, version: u64) -> AdapterManifest {
        let mut draft = None;
        loop {
            match self.next().await {
                (NodeRole::ParameterServer, Wire::AdapterDraft { manifest, payload }) => {
                    assert_eq!(Digest::of(&payload), manifest.digest);
                    draft = Some(manifest);
                }
                (NodeRole::ParameterServer, Wire::AdapterKept { version: kept, digest }) => {
                    assert!(Checkpoints::new(self.run().checkpoints(), 3).holds_any());
                    let draft = draft.take().expect("said of a draft that was sent");
                    assert_eq!((draft.version, draft.digest), (kept, digest));
                    if kept.0 == version {
                        return draft;
                    }
                }
                (NodeRole::ParameterServer, Wire::Adapter { manifest, payload }) => {
                    assert_eq!(Digest::of(&payload), manifest.digest);
                    if manifest.version.0 == version {
                        return manifest;
                    }
                    assert!(manifest.version.0 < version, "{manifest:?}");
                }
                (_, Wire::BatchWanted(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn tells(&mut self) -> Wire {
        loop {
            match self.next().await {
                (NodeRole::Coordinator, wire @ Wire::Committed { .. }) => return wire,
                (_, Wire::Adapter { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The row of the thread that trains, once it is as is wanted.
    async fn trainer(&self, what: impl Fn(&ActorReport) -> bool) -> ActorReport {
        let deadline = Instant::now() + WAIT;
        loop {
            let seen = self.board.worker().report();
            if what(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "did not come about: {seen:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn batch(&self, step: u64, rewards: &[f64]) {
        let trajectories = rewards.iter().zip(1..).map(|(reward, at)| trajectory(at, *reward));
        let trajectories = trajectories.collect();
        self.say(NodeRole::Coordinator, Wire::Batch { step: Step(step), trajectories });
    }

    /// A batch whose loss is not a number.
    fn broken(&self, step: u64) {
        let broken =
            |at: u32| Trajectory { logprobs: vec![f32::NAN; 4], ..trajectory(at, at.into()) };
        let trajectories = [1, 2].map(broken).to_vec();
        self.say(NodeRole::Coordinator, Wire::Batch { step: Step(step), trajectories });
    }

    /// Why the run is to end.
    async fn ends_hopelessly(&mut self) -> String {
        let ended = tokio::time::timeout(WAIT, &mut self.ended).await;
        ended.expect("it gives up").expect("without a panic");
        match self.leave.heard() {
            Some(Farewell::Hopeless(why)) => why,
            other => panic!("it would only be started again: {other:?}"),
        }
    }

    fn published(&self, manifest: &AdapterManifest) {
        let AdapterManifest { version, digest, .. } = *manifest;
        self.say(NodeRole::ParameterServer, Wire::Published { version, digest });
    }
}

async fn start(
    folder: &tempfile::TempDir,
    config: &ClusterConfig,
    board: &LearnerBoard,
    leave: &Leave,
) -> (ActorRef<Msg>, JoinHandle<()>, mpsc::UnboundedReceiver<(NodeRole, Wire)>) {
    let (sender, sent) = mpsc::unbounded_channel();
    let args = Args {
        run: RunDir::new(folder.path()),
        config: Arc::new(config.clone()),
        outbox: Arc::new(move |role, wire| {
            // At the end the test listens no more.
            let _ = sender.send((role, wire));
        }),
        board: board.clone(),
        poison: Poison::default(),
        torn: Poison::default(),
        leave: leave.clone(),
        trainer: Arc::new(Trainer::start),
    };
    let (actor, ended) = Actor::spawn(None, LearnerActor, args).await.expect("a model");
    (actor, ended, sent)
}

fn tiny() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 32,
        hidden_size: 16,
        intermediate_size: 32,
        layers: 1,
        heads: 2,
        kv_heads: 2,
        head_dim: 8,
        max_positions: 64,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied: true,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        bos: None,
        eos: vec![0],
    }
}

fn trajectory(episode: u32, reward: f64) -> Trajectory {
    let digest = Digest::default();
    Trajectory {
        episode: EpisodeId(episode.into()),
        group: GroupId(1),
        task: "t".into(),
        node: "rollout-0".into(),
        tokens: vec![1, 2, 3, episode % 32],
        generated: vec![false, false, true, true],
        logprobs: vec![0.0, 0.0, -3.0, -3.5],
        adapters: vec![TokenSpan { start: 2, end: 4, version: AdapterVersion(0), digest }],
        turns: Vec::new(),
        finish: Finish::Done,
        diff: String::new(),
        reward: Reward { total: reward, success: false, components: Vec::new() },
        temperature: 1.0,
        wall_ms: 1,
    }
}

fn committed(wire: Wire) -> (u64, u64, Vec<u64>) {
    let Wire::Committed { step, version, consumed, metrics } = wire else { panic!("{wire:?}") };
    assert!(metrics.iter().any(|(name, _)| name == "loss"), "{metrics:?}");
    for (name, _) in &metrics {
        let is_told = crrl_types::step_metric::named(name).is_some();
        assert!(is_told, "{name} is in no table: crates/types/src/step_metric.rs");
    }
    (step.0, version.0, consumed.into_iter().map(|id| id.0).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_on_disk_then_published_then_told_and_survives_a_restart() {
    let mut stage = Stage::new(|_| {}).await;
    stage.wants(1, 0).await;
    // Not what was asked for: left alone.
    stage.batch(2, &[0.0, 1.0]);
    stage.batch(1, &[0.0, 1.0]);
    let manifest = stage.offers(1).await;
    let found = Checkpoints::new(stage.run().checkpoints(), 3).newest().expect("readable");
    let progress = found.checkpoint.expect("saved before it is offered").progress().clone();
    assert_eq!((progress.step, progress.version), (1, AdapterVersion(1)));
    assert_eq!(progress.consumed, [EpisodeId(1), EpisodeId(2)]);
    stage.published(&manifest);
    assert_eq!(committed(stage.tells().await), (1, 1, vec![1, 2]));
    stage.wants(2, 1).await;

    // A new life offers the very same bytes, and goes on after the step.
    stage.restart().await;
    assert_eq!(stage.offers(1).await, manifest);
    stage.published(&manifest);
    stage.wants(2, 1).await;
    // Equal rewards: there is nothing to learn, and the step is made all the same.
    stage.batch(2, &[0.5, 0.5]);
    let manifest = stage.offers(2).await;
    stage.published(&manifest);
    assert_eq!(committed(stage.tells().await), (2, 2, vec![1, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_thread_that_trains_is_a_row_of_its_own() {
    let mut stage = Stage::new(|_| {}).await;
    stage.wants(1, 0).await;
    let seen = stage.trainer(|seen| seen.state == ActorState::Idle).await;
    assert_eq!((seen.name.as_str(), seen.kind.as_str()), ("trainer", "TrainerThread"));
    assert_eq!((seen.parent.as_deref(), seen.handled), (Some("learner"), 0));
    stage.batch(1, &[0.0, 1.0]);
    let first = stage.offers(1).await;
    let seen = stage.trainer(|seen| seen.handled == 1 && seen.state == ActorState::Idle).await;
    assert_eq!((seen.waiting, seen.waiting_max, seen.restarts), (0, 1, 0));
    stage.published(&first);
    stage.tells().await;

    stage.restart().await;
    stage.offers(1).await;
    let seen = stage.trainer(|seen| seen.state == ActorState::Idle).await;
    assert_eq!((seen.restarts, seen.last_failure), (1, None));
    // One that cannot go on is seen to have failed, and its row says why.
    stage.config.lora.rank = 3;
    stage.restart().await;
    let seen = stage.trainer(|seen| seen.state == ActorState::Failed).await;
    assert!(seen.last_failure.is_some_and(|why| why.contains("trains other weights")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_fail_in_every_life_ends_the_run_with_its_reason() {
    let mut stage = Stage::new(|_| {}).await;
    stage.wants(1, 0).await;
    stage.batch(1, &[0.0, 1.0]);
    stage.offers(1).await;
    // Resumed with another rank, no checkpoint of it loads however often that is tried.
    stage.config.lora.rank = 3;
    stage.restart().await;
    let why = stage.ends_hopelessly().await;
    assert!(why.contains("trains other weights"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_episode_that_cannot_be_trained_on_is_left_out_of_its_batch() {
    let mut stage = Stage::new(|_| {}).await;
    stage.wants(1, 0).await;
    let greedy = Trajectory { temperature: 0.0, ..trajectory(3, 1.0) };
    let foreign = Trajectory { tokens: vec![1, 2, 3, 32], ..trajectory(4, 1.0) };
    let trajectories = vec![trajectory(1, 1.0), greedy, trajectory(2, 0.0), foreign];
    stage.say(NodeRole::Coordinator, Wire::Batch { step: Step(1), trajectories });
    let manifest = stage.offers(1).await;
    stage.published(&manifest);
    assert_eq!(committed(stage.tells().await), (1, 1, vec![1, 2]));
    stage.wants(2, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_learns_nothing_any_more_ends_and_says_so() {
    let mut stage = Stage::new(|_| {}).await;
    for step in 1..10 {
        stage.wants(step, step - 1).await;
        stage.broken(step);
        let manifest = stage.offers(step).await;
        stage.published(&manifest);
        assert_eq!(committed(stage.tells().await), (step, step, vec![1, 2]));
    }
    stage.wants(10, 9).await;
    stage.broken(10);
    let why = stage.ends_hopelessly().await;
    assert!(why.contains("10 steps in a row changed no weight"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_that_was_damaged_on_the_servers_disk_is_sent_once_more() {
    let mut stage = Stage::new(|_| {}).await;
    stage.wants(1, 0).await;
    stage.batch(1, &[0.0, 1.0]);
    let manifest = stage.offers(1).await;
    stage.published(&manifest);
    stage.tells().await;
    stage.wants(2, 1).await;
    let reason = "damaged".to_owned();
    let (version, newest) = (AdapterVersion(1), AdapterVersion(0));
    stage.say(NodeRole::ParameterServer, Wire::AdapterRefused { version, newest, reason });
    assert_eq!(stage.offers(1).await, manifest);
    // It goes on as it was.
    stage.published(&manifest);
    stage.wants(2, 1).await;
    stage.batch(2, &[0.0, 1.0]);
    stage.offers(2).await;
}

fn all_are(manifest: &AdapterManifest, dtype: &str) -> bool {
    manifest.tensors.iter().all(|tensor| tensor.dtype == dtype)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_travels_in_bf16_and_its_checkpoint_stays_in_f32() {
    let bf16 = |config: &mut ClusterConfig| config.learner.adapter_dtype = AdapterDtype::Bf16;
    let mut stage = Stage::new(bf16).await;
    stage.wants(1, 0).await;
    stage.batch(1, &[0.0, 1.0]);
    let first = stage.offers(1).await;
    assert!(first.finite && all_are(&first, "BF16"), "{first:?}");
    let found = Checkpoints::new(stage.run().checkpoints(), 3).newest().expect("readable");
    let kept = found.checkpoint.expect("saved before it is offered").path().join("adapter");
    let masters = peft::load(&kept).expect("a PEFT folder");
    let rounded = masters.to_bytes(FileDtype::Bf16);
    assert_eq!(Digest::of(&rounded), first.digest, "not the checkpoint's weights, rounded once");
    let file = std::fs::read(kept.join("adapter_model.safetensors")).expect("readable");
    assert_eq!(file, masters.to_bytes(FileDtype::F32));
    stage.published(&first);
    assert_eq!(committed(stage.tells().await), (1, 1, vec![1, 2]));
    stage.wants(2, 1).await;

    // A new life rounds the same weights to the same bytes.
    stage.restart().await;
    assert_eq!(stage.offers(1).await, first);
    stage.published(&first);
    stage.wants(2, 1).await;

    // Resumed in another type, the same weights are other bytes: a version of their own.
    stage.config.learner.adapter_dtype = AdapterDtype::F32;
    stage.restart().await;
    let whole = stage.offers(1).await;
    assert!(all_are(&whole, "F32") && whole.bytes > first.bytes, "{whole:?}");
    stage.published(&first);
    let again = stage.offers(2).await;
    assert_eq!(again.digest, whole.digest);
    stage.published(&again);
    stage.wants(2, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_that_is_refused_is_published_under_a_newer_version() {
    let mut stage = Stage::new(|_| {}).await;
    stage.wants(1, 0).await;
    stage.batch(1, &[0.0, 1.0]);
    let first = stage.offers(1).await;
    let (version, newest) = (AdapterVersion(1), AdapterVersion(4));
    let reason = "v4 is newer".to_owned();
    stage.say(NodeRole::ParameterServer, Wire::AdapterRefused { version, newest, reason });
    let again = stage.offers(5).await;
    assert_eq!(again.digest, first.digest, "the same weights");
    // The news that something newer still was published has the same effect.
    let newer = Wire::Published { version: AdapterVersion(7), digest: Digest::default() };
    stage.say(NodeRole::ParameterServer, newer);
    let manifest = stage.offers(8).await;
    stage.published(&manifest);
    assert_eq!(committed(stage.tells().await), (1, 8, vec![1, 2]));
    stage.wants(2, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_are_not_finite_are_neither_published_nor_kept() {
    let mut stage = Stage::new(|config| config.learner.learning_rate = 1e300).await;
    stage.wants(1, 0).await;
    stage.batch(1, &[0.0, 1.0]);
    let why = stage.ends_hopelessly().await;
    assert!(why.contains("not finite"), "{why}");
    while let Ok((_, wire)) = stage.sent.try_recv() {
        assert!(matches!(wire, Wire::BatchWanted(_)), "{wire:?}");
    }
    assert!(!Checkpoints::new(stage.run().checkpoints(), 3).holds_any());
}
