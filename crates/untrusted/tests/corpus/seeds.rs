//! Real messages and files of every kind, to begin with.

use std::path::Path;

use crrl_cluster::{Snapshot, untrusted};
use crrl_config::ClusterConfig;
use crrl_config::faults::SCENARIOS;
use crrl_control::wire::{
    Assignment, BatchRequest, Held, NodeReport, NodeRole, NodeState, Serving, Wire,
};
use crrl_inspect::frame::Frame;
use crrl_inspect::kept::{Kept, Transcript};
use crrl_inspect::pieces::{Piece, Pieces};
use crrl_inspect::recording::Recorder;
use crrl_inspect::state::transcript::{Entry, Left};
use crrl_types::actor::{ActorReport, ActorSnapshot, EpisodeReport, SnapshotAnswer};
use crrl_types::fault::{Bomb, Direction, Fault, FaultSeen, Injection};
use crrl_types::journal::{JournalEntry, Sampled, Stop};
use crrl_types::{
    Action, AdapterManifest, AdapterVersion, Base, BugKind, Digest, EpisodeId, Event, EventKind,
    Finish, Gpu, GroupId, NodeName, Order, OrderAnswer, OrderRecord, Origin, Outcome, Reward,
    RoundTrip, Sampling, Step, Target, Task, TensorEntry, TimedWork, Timing, TokenSpan, ToolRecord,
    TraceEnd, TraceEvent, TraceRequest, TraceStop, Traced, Trajectory, Turn, Vitals, Work,
};
use crrl_weights::delta::{self, Word};

/// Seeds by decoder.
pub(crate) fn all() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let crrl_sandbox::untrusted::Examples { answers, requests, images } =
        crrl_sandbox::untrusted::examples();
    vec![
        ("packet", wires().into_iter().map(untrusted::packet).collect()),
        ("greeting", untrusted::greetings()),
        ("frame", frames()),
        ("blob-header", blob_headers()),
        ("operator-request", untrusted::requests()),
        ("traced", untrusted::traced()),
        ("admission", admissions()),
        ("certificate-request", certificate_requests()),
        ("token", untrusted::tokens()),
        ("weights", untrusted::weights(manifest(), b"adapter")),
        ("delta", deltas()),
        ("tool-call", tool_calls()),
        ("patch", patches()),
        ("configuration", configurations()),
        ("faults", fault_files()),
        ("invitation", invitations()),
        ("task", tasks()),
        ("event", events()),
        ("plan", plans()),
        ("recording", recordings()),
        ("revoked", revoked()),
        ("order", orders()),
        ("sandbox-frame", [answers, requests].concat()),
        ("sandbox-image", images),
    ]
}

fn manifest() -> AdapterManifest {
    let tensor =
        |name: &str| TensorEntry { name: name.into(), shape: vec![2, 64], dtype: "F32".into() };
    AdapterManifest {
        version: AdapterVersion(3),
        digest: Digest::of(b"adapter"),
        base_digest: Digest::of(b"base"),
        bytes: 4096,
        rank: 2,
        alpha_milli: 4000,
        tensors: vec![tensor("layers.0.q.a"), tensor("layers.0.q.b")],
        finite: true,
    }
}

fn trajectory() -> Trajectory {
    let span =
        TokenSpan { start: 2, end: 5, version: AdapterVersion(3), digest: Digest::of(b"adapter") };
    let tool = ToolRecord {
        name: "shell".into(),
        arguments: r#"{"cmd": "ls"}"#.into(),
        output: "more.py\n".into(),
        ok: true,
        wall_ms: 4,
    };
    Trajectory {
        episode: EpisodeId(12),
        group: GroupId(3),
        task: "repo__1".into(),
        node: "rollout-0".into(),
        tokens: vec![1, 50_000, 7, 300, 2],
        generated: vec![false, false, true, true, true],
        logprobs: vec![0.0, 0.0, -0.5, -1.25, -0.01],
        adapters: vec![span],
        turns: vec![Turn { text: "I look".into(), tokens: 3, tools: vec![tool] }],
        finish: Finish::Done,
        diff: "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n".into(),
        reward: Reward::from_components(Vec::new(), true),
        temperature: 1.0,
        wall_ms: 900,
    }
}

fn faults() -> Vec<Fault> {
    vec![
        Fault::Kill,
        Fault::Drop { direction: Direction::In, share: 0.5 },
        Fault::Delay { ms: 50, jitter_ms: 100 },
        Fault::SlowDisk { ms: 200 },
        Fault::ClockSkew { s: -3600 },
        Fault::Bomb(Bomb::Egress),
        Fault::Hang,
        Fault::SlowTools { ms: 500 },
    ]
}

fn report() -> NodeReport {
    let actor = ActorReport {
        name: "rollout".into(),
        kind: "Rollout".into(),
        parent: Some("node".into()),
        handling: Some(("Inbound".into(), 3)),
        ..ActorReport::default()
    };
    let live = EpisodeReport {
        episode: EpisodeId(12),
        group: GroupId(3),
        task: "repo__1".into(),
        turns: 2,
        calls: 1,
        doing: "thinks".into(),
        age_ms: 80,
        idle_ms: 9,
        version: AdapterVersion(3),
    };
    let faults = faults().into_iter().zip(1..);
    NodeReport {
        node: "rollout-0".into(),
        roles: vec![NodeRole::Rollout],
        pid: 4711,
        incarnation: 2,
        state: NodeState::Ready,
        adapter_version: AdapterVersion(3),
        adapter_digest: Digest::of(b"adapter"),
        tokens_per_s: 120.5,
        episodes: 4,
        rss_bytes: 300 << 20,
        activity: "4 episodes".into(),
        faults: faults.map(|(fault, id)| FaultSeen { id, fault, fired: 3, active: true }).collect(),
        actors: vec![actor],
        live: vec![live],
    }
}

fn vitals() -> Vitals {
    let gpu = Gpu {
        index: 1,
        name: "NVIDIA H100".into(),
        used_bytes: Some(41 << 30),
        memory_bytes: Some(80 << 30),
        busy_percent: None,
    };
    Vitals {
        build: "0.1.0".into(),
        cpu_percent: Some(131.5),
        gpus: vec![gpu],
        round_trip: Some(RoundTrip { p50_us: 300, p99_us: 4_100, samples: 120 }),
    }
}

fn journal() -> Vec<JournalEntry> {
    let sampled = Sampled {
        id: 300,
        logprob: -0.5,
        version: AdapterVersion(3),
        digest: Digest::of(b"adapter"),
    };
    vec![
        JournalEntry::Generated { tokens: vec![sampled], stop: Stop::EndOfTurn },
        JournalEntry::Tool { output: "more.py\n".into(), ok: true, wall_ms: 4 },
        JournalEntry::Diff("--- a/x\n+++ b/x\n".into()),
    ]
}

fn timing() -> Timing {
    let call = Work::Call { tool: "shell".into(), ok: true };
    let generate = Work::Generate { context: 300, tokens: 41, version: AdapterVersion(3) };
    let works =
        [Work::Places, Work::Replay { entries: 2 }, generate, call, Work::Diff, Work::Reward];
    let timed = |work| TimedWork { from_us: 1_000, took_us: 250, turn: 1, work };
    Timing { began_ms: 1, took_us: 9_000, works: works.map(timed).to_vec(), left_out: 0 }
}

fn wires() -> Vec<Wire> {
    let held = Held { episode: EpisodeId(12), attempt: 2 };
    let (version, digest) = (AdapterVersion(3), Digest::of(b"adapter"));
    let injections = faults()
        .into_iter()
        .map(|fault| Wire::Inject(Injection { id: 5, fault, duration_ms: 5_000, seed: 9 }));
    let assignment = Assignment {
        episode: EpisodeId(12),
        attempt: 1,
        group: GroupId(3),
        task_json: String::from_utf8(tasks().remove(0)).expect("JSON is text"),
        sampling: Sampling::default(),
        lease_ms: 60_000,
        evaluation: false,
        past: journal(),
    };
    let serving = Some(Serving { version, digest });
    let mut wires = vec![
        Wire::Join { incarnation: 2, capacity: 4, holding: vec![held], serving },
        Wire::Credit { episodes: 4 },
        Wire::Finished { attempt: 1, trajectory: Box::new(trajectory()) },
        Wire::Failed { episode: EpisodeId(12), attempt: 1, reason: "no sandbox".into() },
        Wire::BatchWanted(BatchRequest { step: Step(4), version }),
        Wire::Committed {
            step: Step(4),
            version,
            consumed: vec![EpisodeId(1), EpisodeId(2)],
            metrics: vec![("loss".into(), -0.25)],
        },
        Wire::Report(report()),
        Wire::Activated { version, digest },
        Wire::JoinWanted,
        Wire::Assign(Box::new(assignment)),
        Wire::Cancel { episode: EpisodeId(12), attempt: 1, reason: "the lease has ended".into() },
        Wire::Ack { episode: EpisodeId(12), attempt: 1 },
        Wire::Batch { step: Step(4), trajectories: vec![trajectory(), trajectory()] },
        Wire::Drain,
        Wire::Stop { reason: "the run is over".into() },
        Wire::Release { task: "repo__1".into() },
        Wire::Adapter { manifest: manifest(), payload: vec![1, 2, 3] },
        Wire::AdapterWanted { have: version },
        Wire::Published { version, digest },
        Wire::AdapterRefused { version, newest: version, reason: "stale".into() },
        Wire::Turns { episode: EpisodeId(12), attempt: 1, first: 2, entries: journal() },
    ];
    wires.extend(injections);
    wires.extend(orders_and_traces());
    wires.push(Wire::Timed { episode: EpisodeId(12), attempt: 1, timing: timing() });
    wires.push(Wire::Lift { id: 5 });
    wires.push(Wire::Vitals {
        sent_us: 1_700_000_000_000_000,
        activity_ms: 41_000,
        vitals: vitals(),
    });
    let snapshot = ActorSnapshot { json: r#"{"stance":"open"}"#.into(), age_ms: 400 };
    let answer = OrderAnswer::new(Outcome::Done, "");
    let answer = Box::new(SnapshotAnswer { answer, snapshot: Some(snapshot) });
    wires.push(Wire::SnapshotWanted { id: 6, actor: "rollout".into() });
    wires.push(Wire::Snapshot { id: 6, answer });
    wires
}

fn orders_and_traces() -> Vec<Wire> {
    let target = Target::actor("rollout-0", "rollout");
    let log = Action::Log { filter: "crrl_actors=debug".into(), for_ms: Some(60_000) };
    let by = || NodeName::from("operator");
    let event = TraceEvent {
        at_ms: 1_700_000_000_000,
        node: "rollout-0".into(),
        actor: "rollout".into(),
        message: "Assign".into(),
        from: Some("coordinator".into()),
        handled_us: Some(17),
    };
    let answer = OrderAnswer::new(Outcome::Truncated, "for an hour at most");
    vec![
        Wire::Order { id: 7, by: by(), order: Order { target: target.clone(), action: log } },
        Wire::Order {
            id: 8,
            by: by(),
            order: Order { target: Target::node("rollout-0"), action: Action::Drain },
        },
        Wire::Trace { id: 9, request: TraceRequest::of(target) },
        Wire::TraceOff { id: 9 },
        Wire::Ordered { id: 7, answer },
        Wire::Traced { id: 9, traced: Traced::Events(vec![event.clone(), event]) },
        Wire::Traced { id: 9, traced: Traced::End(TraceEnd { why: TraceStop::Rate, events: 2 }) },
    ]
}

fn orders() -> Vec<Vec<u8>> {
    let asked = OrderRecord {
        id: 3,
        at_ms: 1_700_000_000_000,
        who: "anna".into(),
        roles: vec!["operator".into()],
        operation: "log".into(),
        target: "rollout-0".into(),
        detail: "\"crrl_actors=debug\"".into(),
        outcome: None,
        says: String::new(),
    };
    let denied = OrderRecord {
        outcome: Some(Outcome::Denied),
        says: "this takes operator".into(),
        ..asked.clone()
    };
    [asked, denied].map(|line| serde_json::to_vec(&line).expect("plain data")).to_vec()
}

fn frames() -> Vec<Vec<u8>> {
    let frame = |content: &[u8]| {
        let mut frame = u32::try_from(content.len()).expect("short").to_be_bytes().to_vec();
        frame.extend_from_slice(content);
        frame
    };
    vec![frame(b""), frame(b"hello"), frame(&[7; 300])]
}

fn blob_headers() -> Vec<Vec<u8>> {
    let header = |head: Vec<u8>| {
        let digest = Digest::of(b"content");
        crrl_transport::encode(&(7_u64, head, 4096_u64, digest)).expect("plain data")
    };
    let heads = untrusted::heads(manifest()).into_iter().map(header);
    heads.chain(crrl_transport::blob::verdicts()).collect()
}

fn admissions() -> Vec<Vec<u8>> {
    let invitation = String::from_utf8(invitations().remove(0)).expect("JSON is text");
    let welcome = format!("{{\"welcome\":{invitation}}}").into_bytes();
    [untrusted::questions(), vec![welcome]].concat()
}

fn certificate_requests() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pending = crrl_transport::Pending::open(folder.path(), &"guest-1".into());
    vec![pending.expect("a key can be made").request().as_bytes().to_vec()]
}

fn deltas() -> Vec<Vec<u8>> {
    let weights = |step: f32| (0..40_u8).flat_map(move |n| (f32::from(n) * step).to_le_bytes());
    let (base, new): (Vec<u8>, Vec<u8>) = (weights(0.5).collect(), weights(0.501).collect());
    // One of a length that no whole words fill.
    [(Word::Two, 0), (Word::Four, 0), (Word::Four, 3)]
        .map(|(word, less)| {
            let (base, new) = (&base[less..], &new[less..]);
            let delta = delta::encode(base, new, word).expect("of one length");
            let length = u16::try_from(base.len()).expect("short").to_le_bytes();
            [&length[..], base, &delta].concat()
        })
        .to_vec()
}

fn tool_calls() -> Vec<Vec<u8>> {
    [
        "I look.\n<tool_call>\n{\"name\": \"shell\", \"arguments\": {\"cmd\": \"ls -la | head\"}}\n</tool_call>",
        "<tool_call>{\"name\":\"apply_patch\",\"arguments\":{\"path\":\"a.py\",\"old\":\"x\\n\",\"new\":\"y\"}}",
        "<tool_call>{\"name\":\"shell\",\"arguments\":\"{\\\"cmd\\\": \\\"git diff\\\"}\"}</tool_call>",
        "<tool_call>{\"name\":\"shell\",\"parameters\":{\"cmd\":\"a\n\tb\"}}</tool_call> <tool_call>[1]</tool_call>",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn patches() -> Vec<Vec<u8>> {
    [
        "diff --git a/x.py b/x.py\nindex 1..2 100644\n--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,3 @@\n a\n+c\n b\n\0a\nb\n",
        "--- a/x.py\t2020-01-01\n+++ b/x.py\t2020-01-01\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\0a",
        "diff --git a/old.py b/new.py\nsimilarity index 100%\nrename from old.py\nrename to new.py\n",
        "diff --git a/n b/n\nnew file mode 100644\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+x\n",
        "diff --git a/n b/n\ndeleted file mode 100644\n--- a/n\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\0x\n",
        "diff --git \"a/\\303\\244.py\" \"b/\\303\\244.py\"\nold mode 100644\nnew mode 100755\n",
        "diff --git a/b.bin b/b.bin\nBinary files a/b.bin and b/b.bin differ\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn configurations() -> Vec<Vec<u8>> {
    let mut config = ClusterConfig::default();
    config.learner.micro_batch_tokens = 20_000;
    config.node = config.nodes();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cluster.toml");
    vec![
        toml::to_string(&config).expect("plain data").into_bytes(),
        b"[run]\nsteps = 3\n[model]\npath = \"models/small\"\n[tasks]\ntrain = \"t.jsonl\"\n"
            .to_vec(),
        std::fs::read(shipped).expect("ships with the project"),
    ]
}

fn fault_files() -> Vec<Vec<u8>> {
    let kinds = [
        "kind = \"drop\"\ndirection = \"in\"\nshare = 0.3\nduration_s = 10",
        "kind = \"delay\"\nms = 50\njitter_ms = 100",
        "kind = \"slow-disk\"\nms = 100\nduration_s = 1.5",
        "kind = \"clock-skew\"\nskew_s = -60",
        "kind = \"fork-bomb\"\nname = \"forks\"",
    ];
    assert!(SCENARIOS.len() > kinds.len());
    let entry = |kind: &str| format!("[[fault]]\n{kind}\nrole = \"rollout\"\n");
    let mut files: Vec<Vec<u8>> = kinds.iter().map(|kind| entry(kind).into_bytes()).collect();
    files.push(kinds.iter().map(|kind| entry(kind)).collect::<String>().into_bytes());
    files
}

fn invitations() -> Vec<Vec<u8>> {
    let invitation = serde_json::json!({
        "format": 1,
        "name": "guest-1",
        "addresses": {"coordinator": "127.0.0.1:4433"},
        "valid_until_s": 1_900_000_000,
        "config": "[run]\nsteps = 3\n",
        "authority": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n",
        "certificate": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n",
        "key": "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n",
        "seed": [1, 2, 3],
    });
    vec![invitation.to_string().into_bytes()]
}

fn tasks() -> Vec<Vec<u8>> {
    let task = |base, origin| Task {
        instance_id: "repo__1".into(),
        repo: "repo".into(),
        base_commit: "0123abcd".into(),
        problem_statement: "it is wrong".into(),
        patch: "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n".into(),
        test_patch: String::new(),
        base,
        origin,
        difficulty: Default::default(),
        split: Default::default(),
        extra: [("hints".to_owned(), serde_json::json!([1, null, {"a": "b"}]))].into(),
    };
    let files = Base::Files { files: [("x".to_owned(), "a\n".to_owned())].into() };
    let tree = Base::Tree {
        root: "/src".into(),
        include: vec!["lib".into()],
        overlay: [("x".to_owned(), "a\n".to_owned())].into(),
    };
    let mutated =
        Origin::Mutated { bug: BugKind::OffByOne, path: "x".into(), function: "f".into(), line: 3 };
    [task(files, mutated), task(tree, Origin::Imported), task(Base::Commit, Origin::Imported)]
        .map(|task| serde_json::to_vec(&task).expect("string keys"))
        .to_vec()
}

fn events() -> Vec<Vec<u8>> {
    let (episode, version, digest) = (EpisodeId(12), AdapterVersion(3), Digest::of(b"adapter"));
    let (task, group) = ("repo__1".into(), GroupId(3));
    [
        EventKind::Started,
        EventKind::NodeUp { peer: "rollout-0".into(), incarnation: 2 },
        EventKind::NodeDown { peer: "rollout-0".into(), reason: "killed".into() },
        EventKind::Dispatched { episode, group, task, to: "rollout-0".into(), attempt: 1 },
        EventKind::Finished { episode, reward: 0.1, success: false },
        EventKind::Failed { episode, reason: "no".into() },
        EventKind::Stepped { step: Step(4), version },
        EventKind::Activated { peer: "rollout-0".into(), version, digest },
        EventKind::Restored { copy: Step(3), step: Step(4), lost: 9 },
    ]
    .map(|kind| {
        let event = Event { at_ms: 1_700_000_000_000, node: "coordinator".into(), kind };
        serde_json::to_vec(&event).expect("string keys")
    })
    .to_vec()
}

fn plans() -> Vec<Vec<u8>> {
    let sampling = serde_json::to_value(Sampling::default()).expect("plain data");
    let train = serde_json::json!({
        "kind": "train", "tasks": "tasks.jsonl", "steps": 20, "group_size": 4,
        "groups_per_step": 2, "sampling": sampling,
    });
    let evaluate = serde_json::json!({
        "kind": "evaluate", "label": "before", "tasks": "held.jsonl", "samples": 2,
        "sampling": sampling,
    });
    let plan = serde_json::json!({ "format": 1, "seed": 5, "phases": [evaluate, train] });
    vec![plan.to_string().into_bytes()]
}

fn recordings() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x.recording");
    let mut recorder = Recorder::create(&path, "runs/x").expect("writable");
    for at_ms in [1_700_000_000_000, 1_700_000_000_200] {
        let mut snapshot = Snapshot::default();
        snapshot.progress.step = at_ms % 1000;
        snapshot.nodes = vec![report()];
        recorder.push(&Frame { at_ms, snapshot, processes: Vec::new() }).expect("writable");
    }
    for kept in kept(1_700_000_000_100) {
        assert!(recorder.keep(&kept).expect("writable"));
    }
    vec![std::fs::read(path).expect("was written")]
}

/// One of each kind of line beside frames.
fn kept(at_ms: u64) -> Vec<Kept> {
    let piece = Piece { id: 7, text: "I".into(), logprob: Some(-0.5), version: Some(3) };
    let tokens = Pieces { pieces: vec![piece], left_out: 0, note: None };
    let left = Left {
        trajectory: trajectory(),
        tokens: vec![Some(tokens.clone())],
        advantage: Some(0.25),
        scored: 4,
        trained_at: Some(4),
        is_final: true,
    };
    let event = Event { at_ms, node: "coordinator".into(), kind: EventKind::Started };
    let entries = vec![
        Entry::Wrote { text: "I".into(), tokens, stop: Stop::EndOfTurn },
        Entry::Answered { output: "more.py".into(), ok: true, wall_ms: 4 },
        Entry::Changed("-a\n+b\n".into()),
    ];
    let step = serde_json::json!({ "step": 4, "version": 4, "metrics": [["loss", 0.5]] });
    let steps = serde_json::json!({ "kind": "steps", "at_ms": at_ms, "steps": [step] });
    let row = serde_json::json!({
        "episode": 12, "group": 3, "task": "repo__1", "phase": 0, "ordinal": 3, "sample": 0,
        "evaluation": false, "attempt": 1, "node": "rollout-0", "state": "trained", "reason": null,
        "reward": 0.5, "success": true, "oldest": 3, "generated": 3, "step": 4,
    });
    let over = serde_json::json!({ "kind": "over", "at_ms": at_ms, "is_all": true, "rows": [row] });
    vec![
        Kept::Events { at_ms, events: vec![event] },
        serde_json::from_value(steps).expect("numbers of a step"),
        serde_json::from_value(over).expect("a row of the ledger"),
        Kept::Journal { at_ms, episode: 12, attempt: 1, first: 0, entries },
        Kept::Left { at_ms, episode: 12, left: Box::new(Transcript::of(left)) },
    ]
}

fn revoked() -> Vec<Vec<u8>> {
    let fingerprint = Digest::of(b"certificate").to_string();
    let list =
        serde_json::json!({ fingerprint: {"name": "guest-1", "at_ms": 1_700_000_000_000_u64} });
    vec![b"{}".to_vec(), list.to_string().into_bytes()]
}
