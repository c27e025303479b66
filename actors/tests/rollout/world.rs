//! A rollout node with a tiny random policy, and the verbs the tests are written in.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crrl_actors::chat_codec::ModelCodec;
use crrl_actors::courier::Courier;
use crrl_actors::duty::{Duty, Roster};
use crrl_actors::engine::EngineHandle;
use crrl_actors::repair::Repairer;
use crrl_actors::rollout::{Args, Msg, Rollout};
use crrl_actors::sandboxes::{PoolOptions, Sandboxes};
use crrl_actors::slow_tools::SlowTools;
use crrl_agent::{ChatCodec, RenderError};
use crrl_cluster::{Inbound, MeshEvent, Receipt};
use crrl_control::wire::{Assignment, NodeRole, Wire};
use crrl_model::{ChatTokenizer, Cpu, Decoder, FileDtype, Lora, LoraConfig, ModelConfig, ModelDir};
use crrl_sandbox::LocalBackend;
use crrl_types::{
    AdapterManifest, AdapterVersion, Base, Digest, EpisodeId, GroupId, JournalEntry, Message,
    NodeName, Sampling, Task, Timing,
};
use crrl_weights::{Offer, Payload, Report};
use ractor::{Actor, ActorRef};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// An issue statement that makes the chat template panic.
pub(crate) const PANIC: &str = "please panic";
/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(30);

const SOURCE: &str = "def answer():\n    return 41\n";
const GOLD: &str = "--- a/answer.py\n+++ b/answer.py\n@@ -1,2 +1,2 @@\n def answer():\n\
                    -    return 41\n+    return 42\n";

/// A rollout node.
pub(crate) struct World {
    pub(crate) engine: EngineHandle,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) roster: Roster,
    pub(crate) slow: SlowTools,
    actor: ActorRef<Msg>,
    sent: mpsc::UnboundedReceiver<(NodeRole, Wire)>,
    early: HashMap<&'static str, VecDeque<Wire>>,
    /// The leases whose results [`Self::next`] has given.
    given: BTreeSet<(EpisodeId, u32)>,
    /// What has happened in each episode, by the node's own word.
    pub(crate) journals: BTreeMap<EpisodeId, Vec<JournalEntry>>,
    pub(crate) timings: BTreeMap<EpisodeId, Timing>,
    pub(crate) codec: Arc<dyn ChatCodec>,
    model: ModelConfig,
    /// What can be fetched, by the digest that is asked for.
    fetchable: Arc<Mutex<HashMap<Digest, Bytes>>>,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.actor.stop(None);
    }
}

impl World {
    pub(crate) async fn new(capacity: u32) -> Self {
        Self::on_duty(capacity, Roster::default()).await
    }

    /// Whose node drains already when its actor is started.
    pub(crate) async fn draining(capacity: u32) -> Self {
        let roster = Roster::default();
        roster.set(Duty::Drains);
        Self::on_duty(capacity, roster).await
    }

    async fn on_duty(capacity: u32, roster: Roster) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model");
        let (model, codec) = small_model(&path);
        let options = crrl_engine::Options {
            sequences_max: capacity as usize,
            ..crrl_engine::Options::default()
        };
        let engine = EngineHandle::start(path, options).await.expect("a good model");
        // Isolation is the sandbox's own test; what is tested here runs wherever tests run.
        let backend = LocalBackend::new(crrl_sandbox::Options {
            run_without_isolation: true,
            ..crrl_sandbox::Options::default()
        });
        let pool = PoolOptions {
            sandboxes_max: capacity as usize,
            templates_max: 8,
            cache: folder.path().join("templates"),
        };
        let sandboxes = Sandboxes::new(backend.expect("sandboxes"), pool);
        let agent = crrl_agent::Options { turn_tokens_max: 24, ..crrl_agent::Options::brief(400) };
        let repairer = Repairer::new(
            engine.clone(),
            sandboxes.clone(),
            Arc::new(Panicky(Arc::clone(&codec))),
            agent,
            Default::default(),
            NodeName::from("rollout-0"),
        );
        let fetchable: Arc<Mutex<HashMap<Digest, Bytes>>> = Arc::default();
        let (fetching, forgetting) = (fetchable.clone(), fetchable.clone());
        let courier = Courier {
            fetch: Arc::new(move |offer, _, _| {
                let bytes = fetching.lock().expect("no panic").get(&offer.whole.digest).cloned();
                Box::pin(async { (Report::default(), bytes.ok_or("nobody has it".to_owned())) })
            }),
            forget: Arc::new(move |digest| {
                forgetting.lock().expect("no panic").remove(&digest);
            }),
            relay_port: None,
        };
        let slow = SlowTools::default();
        let (outbox, sent) = mpsc::unbounded_channel();
        let args = Args {
            repairer: repairer.expect("good options").with_slow_tools(slow.clone()),
            capacity,
            roster: roster.clone(),
            incarnation: 1,
            outbox: Arc::new(move |role, wire| drop(outbox.send((role, wire)))),
            courier,
        };
        let (actor, _) = Actor::spawn(None, Rollout, args).await.expect("it starts");
        let (early, given) = (HashMap::new(), BTreeSet::new());
        let (journals, timings) = (BTreeMap::new(), BTreeMap::new());
        Self {
            engine,
            sandboxes,
            roster,
            slow,
            actor,
            sent,
            early,
            given,
            journals,
            timings,
            codec,
            model,
            fetchable,
            _folder: folder,
        }
    }

    pub(crate) fn peer_up(&self, role: NodeRole) {
        let up = MeshEvent::PeerUp { name: "peer".into(), roles: vec![role], incarnation: 1 };
        self.actor.cast(Msg::Peer(up)).expect("it lives");
    }

    pub(crate) fn send(&self, wire: Wire) {
        let inbound = Inbound {
            from: "peer".into(),
            roles: vec![NodeRole::Coordinator, NodeRole::ParameterServer],
            wire,
            receipt: Receipt::none(),
        };
        self.actor.cast(Msg::Inbound(Box::new(inbound))).expect("it lives");
    }

    pub(crate) fn assign(&self, episode: u64, attempt: u32, issue: &str, lease_ms: u64) {
        let assignment = self.assignment(episode, attempt, issue, lease_ms);
        self.send(Wire::Assign(Box::new(assignment)));
    }

    pub(crate) fn assignment(
        &self,
        episode: u64,
        attempt: u32,
        issue: &str,
        lease_ms: u64,
    ) -> Assignment {
        let files = BTreeMap::from([("answer.py".to_owned(), SOURCE.to_owned())]);
        let task: Task = serde_json::from_value(json!({
            "instance_id": "answer-1", "problem_statement": issue, "patch": GOLD,
        }))
        .expect("a task");
        let task = Task { base: Base::Files { files }, ..task };
        Assignment {
            episode: EpisodeId(episode),
            attempt,
            group: GroupId(1),
            task_json: serde_json::to_string(&task).expect("plain data"),
            sampling: Sampling { seed: episode, ..Sampling::default() },
            lease_ms,
            evaluation: false,
            past: Vec::new(),
        }
    }

    /// The next message to whoever has this role, but for results it has given already: those are sent
    /// again until they are acknowledged.
    pub(crate) async fn next(&mut self, role: NodeRole) -> Wire {
        loop {
            let wire = self.next_raw(role).await;
            if self.is_new(&wire) {
                return wire;
            }
        }
    }

    fn is_new(&mut self, wire: &Wire) -> bool {
        match wire {
            Wire::Finished { attempt, trajectory } => {
                self.given.insert((trajectory.episode, *attempt))
            }
            Wire::Failed { episode, attempt, .. } => self.given.insert((*episode, *attempt)),
            _ => true,
        }
    }

    /// The next message to whoever has this role. Turns are put into [`Self::journals`], what was
    /// measured into [`Self::timings`].
    pub(crate) async fn next_raw(&mut self, role: NodeRole) -> Wire {
        let name = |role| match role {
            NodeRole::Coordinator => "coordinator",
            NodeRole::ParameterServer => "parameter server",
            other => panic!("nothing is sent to {other:?}"),
        };
        if let Some(wire) = self.early.get_mut(name(role)).and_then(VecDeque::pop_front) {
            return wire;
        }
        loop {
            let next = tokio::time::timeout(WAIT, self.sent.recv()).await;
            let (to, wire) = next.expect("nothing was sent in time").expect("the actor lives");
            if let Wire::Turns { episode, first, entries, .. } = wire {
                let journal = self.journals.entry(episode).or_default();
                journal.truncate(first as usize);
                assert_eq!(journal.len(), first as usize, "a gap in the journal of {episode}");
                journal.extend(entries);
                continue;
            }
            if let Wire::Timed { episode, timing, .. } = wire {
                self.timings.insert(episode, timing);
                continue;
            }
            if to == role {
                return wire;
            }
            self.early.entry(name(to)).or_default().push_back(wire);
        }
    }

    /// Offers an adapter; whoever fetches it gets these bytes.
    pub(crate) fn offer(&self, manifest: &AdapterManifest, bytes: Vec<u8>, published: bool) {
        let payload = Payload { digest: manifest.digest, ..Payload::of(&bytes) };
        let offer = Offer { manifest: manifest.clone(), whole: payload, delta: None };
        self.fetchable.lock().expect("no panic").insert(manifest.digest, bytes.into());
        self.send(Wire::AdapterOffer { offer: Box::new(offer), source: None, published });
    }

    /// What it says of the fetch of an adapter.
    pub(crate) async fn arrived(&mut self) -> Option<String> {
        loop {
            if let Wire::AdapterArrived { error, .. } = self.next(NodeRole::ParameterServer).await {
                return error;
            }
        }
    }

    /// Waits until every sequence and every sandbox is given back.
    pub(crate) async fn all_given_back(&self) {
        let deadline = Instant::now() + WAIT;
        while self.engine.status().sequences > 0 || self.sandboxes.open() > 0 {
            assert!(Instant::now() < deadline, "something is still open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// An adapter for this policy.
    pub(crate) fn adapter(&self, version: u64) -> (AdapterManifest, Vec<u8>) {
        let config = LoraConfig { rank: 2, ..LoraConfig::default() };
        let lora = Lora::<Cpu>::init(&config, &self.model, version, &Default::default());
        let weights = lora.to_weights();
        let bytes = weights.to_bytes(FileDtype::F32);
        let base = self.engine.base_digest();
        let version = AdapterVersion(version);
        (weights.manifest(&bytes, FileDtype::F32, version, base), bytes)
    }
}

/// Writes a tiny random policy with a tokenizer of its own.
fn small_model(path: &Path) -> (ModelConfig, Arc<dyn ChatCodec>) {
    std::fs::create_dir_all(path).expect("a folder");
    let texts = [SOURCE, GOLD, "the answer is wrong", "shell apply_patch"];
    let tokenizer = ChatTokenizer::train(texts.into_iter(), 300, &[]).expect("a vocabulary");
    let Value::Object(object) = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": tokenizer.vocab_size(),
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "hidden_act": "silu",
    }) else {
        unreachable!("an object was written")
    };
    let config = ModelConfig::parse(&object).expect("a good configuration");
    let decoder = Decoder::<Cpu>::random(&config, 1, &Default::default());
    decoder.save(path, FileDtype::F32).expect("a place to write");
    tokenizer.save(path).expect("a place to write");
    let read = ModelDir::open(path).expect("what was written").config().clone();
    (read, ModelCodec::open(path).expect("what was written"))
}

/// A codec that panics on [`PANIC`].
struct Panicky(Arc<dyn ChatCodec>);

impl ChatCodec for Panicky {
    fn encode(&self, text: &str) -> Vec<u32> {
        self.0.encode(text)
    }

    fn decode(&self, ids: &[u32]) -> String {
        self.0.decode(ids)
    }

    fn render(
        &self,
        messages: &[Message],
        tools: &[Value],
        add_generation_prompt: bool,
    ) -> Result<String, RenderError> {
        assert!(!messages.iter().any(|m| m.content.contains(PANIC)), "as the issue asks");
        self.0.render(messages, tools, add_generation_prompt)
    }

    fn is_end(&self, id: u32) -> bool {
        self.0.is_end(id)
    }

    fn special_texts(&self) -> &[String] {
        self.0.special_texts()
    }
}
