//! An episode under way, scripted: what a rollout node sends of it, and the coordinator writes, step by step.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use crrl_cluster::Snapshot;
use crrl_store::{EpisodeRow, Op, Options, StoreError, Writer};
use crrl_types::{
    AdapterVersion, Component, Digest, EpisodeId, Finish, GroupId, JournalEntry, Reward, Sampled,
    Stop, TokenSpan, ToolRecord, Trajectory, Turn,
};
use tokenizers::Tokenizer;

use crate::{DEADLINE, scene};

/// Its number: no made-up run has as many.
pub(crate) const EPISODE: u64 = 900_001;
/// A task of the made-up runs.
const TASK: &str = "queue-train.pop-comparison-0-0000";

/// The model of this repository: its tokenizer turns what is written here into tokens and back.
fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/small")
}

/// Names the model in a run's configuration.
pub(crate) fn configure(config: &Path) {
    let text = std::fs::read_to_string(config).expect("was written");
    let model = model().canonicalize().expect("is in the repository");
    std::fs::write(config, format!("{text}\n[model]\npath = {:?}\n", model.display().to_string()))
        .expect("writable");
}

/// The store of a run, and what is written to it.
pub(crate) struct Script {
    writer: Writer<u64>,
    said: Receiver<Result<u64, StoreError>>,
    tokenizer: Tokenizer,
    entries: u32,
    text: String,
}

impl Script {
    /// In the store of this run; `text` is written by the policy and by its tools.
    pub(crate) fn open(store: &Path, text: &str) -> Self {
        let (say, said) = channel();
        let writer = Writer::start(store, Options::default(), move |words| drop(say.send(words)));
        let tokenizer = Tokenizer::from_file(model().join("tokenizer.json"));
        Self {
            writer: writer.expect("a store"),
            said,
            tokenizer: tokenizer.expect("a tokenizer"),
            entries: 0,
            text: text.to_owned(),
        }
    }

    /// Written, and durable.
    fn write(&self, ops: Vec<Op>) {
        self.writer.submit(ops, 1).expect("open");
        assert!(self.said.recv_timeout(DEADLINE).expect("durable").is_ok());
    }

    fn tokens(&self, text: &str) -> Vec<Sampled> {
        let encoded = self.tokenizer.encode(text, false).expect("any text can be encoded");
        let sampled = |id: &u32| Sampled {
            id: *id,
            logprob: -0.5,
            version: AdapterVersion(19),
            digest: Digest::default(),
        };
        encoded.get_ids().iter().map(sampled).collect()
    }

    fn journal(&mut self, attempt: u32, entries: Vec<JournalEntry>) {
        let first = self.entries;
        self.entries += u32::try_from(entries.len()).expect("a few");
        self.write(vec![Op::Turns { episode: EpisodeId(EPISODE), attempt, first, entries }]);
    }

    /// It was handed out.
    pub(crate) fn begins(&self) {
        self.write(vec![Op::Episode(Box::new(row("leased")))]);
    }

    /// The policy says so, and calls a tool if it names a command.
    pub(crate) fn writes(&mut self, attempt: u32, says: &str, cmd: Option<&str>) {
        let call = cmd.map_or_else(String::new, |cmd| {
            let call = serde_json::json!({ "name": "shell", "arguments": { "cmd": cmd } });
            format!("\n<tool_call>{call}</tool_call>")
        });
        let tokens = self.tokens(&format!("{says} {}{call}", self.text));
        self.journal(attempt, vec![JournalEntry::Generated { tokens, stop: Stop::EndOfTurn }]);
    }

    /// The tool answers.
    pub(crate) fn answers(&mut self, attempt: u32, output: &str) {
        let output = format!("{output}\n{}", self.text);
        self.journal(attempt, vec![JournalEntry::Tool { output, ok: true, wall_ms: 41 }]);
    }

    /// Another lease begins it anew.
    pub(crate) fn begins_anew(&mut self) {
        self.entries = 0;
        self.write(vec![Op::ForgetTurns(EpisodeId(EPISODE))]);
    }

    /// It came back.
    pub(crate) fn ends(&self) {
        let components = vec![
            Component { name: "line".into(), value: 1.0, weight: 0.75 },
            Component { name: "edit".into(), value: 0.5, weight: 0.25 },
        ];
        let reward = Reward::from_components(components, true);
        let tool = ToolRecord {
            name: "shell".into(),
            arguments: r#"{"cmd": "cat queue.py"}"#.into(),
            output: self.text.clone(),
            ok: true,
            wall_ms: 41,
        };
        let turn = |text: &str, tools| Turn { text: text.into(), tokens: 2, tools };
        let span =
            TokenSpan { start: 2, end: 6, version: AdapterVersion(19), digest: Digest::default() };
        let over = EpisodeRow {
            reward: Some(reward.total),
            success: Some(true),
            oldest: Some(AdapterVersion(19)),
            generated: Some(4),
            ..row("finished")
        };
        let trajectory = Trajectory {
            episode: EpisodeId(EPISODE),
            group: GroupId(900_000),
            task: TASK.into(),
            node: "rollout-0".into(),
            tokens: vec![7; 6],
            generated: vec![false, false, true, true, true, true],
            logprobs: vec![0.0; 6],
            adapters: vec![span],
            turns: vec![turn("I look at the queue.", vec![tool]), turn("Fixed.", Vec::new())],
            finish: Finish::Done,
            diff: String::new(),
            reward,
            temperature: 1.0,
            wall_ms: 900,
        };
        self.write(vec![
            Op::Trajectory(Box::new(trajectory)),
            Op::ForgetTurns(EpisodeId(EPISODE)),
            Op::Episode(Box::new(over)),
        ]);
    }
}

fn row(state: &str) -> EpisodeRow {
    EpisodeRow {
        episode: EpisodeId(EPISODE),
        group: GroupId(900_000),
        task: TASK.into(),
        phase: 1,
        ordinal: 900,
        sample: 0,
        evaluation: false,
        attempt: 1,
        node: Some("rollout-0".into()),
        state: state.into(),
        reason: None,
        reward: None,
        success: None,
        oldest: None,
        generated: None,
        step: None,
    }
}

/// The board of the made-up cluster, the scripted episode on it.
pub(crate) fn board(s: u64) -> Snapshot {
    let mut snapshot = scene::frame(s).snapshot;
    let node = snapshot.nodes.iter_mut().find(|node| node.node.as_str() == "rollout-0");
    let live = &mut node.expect("it is there").live;
    let mut report = live[0].clone();
    report.episode = EpisodeId(EPISODE);
    report.task = TASK.into();
    report.doing = "shell cat queue.py".into();
    live.push(report);
    snapshot
}
