//! A made-up run, written to a folder as a real one is: for tests, and to look at a page.

#![allow(dead_code, reason = "every user of this file needs another part of it")]

mod pen;

use std::path::Path;

use crrl_control::plan::{Evaluate, Phase, Plan, Train};
use crrl_control::results::{Results, Training};
use crrl_store::{Environment, EventLog, Options, Writer};
use crrl_types::{BugKind, EventKind, Origin, Sampling, Task};

use pen::Pen;

const KINDS: [(BugKind, &str); 4] = [
    (BugKind::Comparison, "comparison"),
    (BugKind::OffByOne, "off_by_one"),
    (BugKind::NoneCheck, "none_check"),
    (BugKind::WrongVariable, "wrong_variable"),
];

/// What is made up.
#[derive(Debug, Clone)]
pub(crate) struct World {
    /// Optimizer steps that were committed.
    pub(crate) steps: u64,
    /// Groups of 4 attempts that come back between two steps.
    pub(crate) groups: u64,
    /// Held-out tasks; 0: no evaluation.
    pub(crate) held_out: usize,
    /// Whether every phase ended.
    pub(crate) complete: bool,
    /// Whether something goes wrong on the way.
    pub(crate) faults: bool,
    /// What models and tools write.
    pub(crate) text: String,
    /// How much better a step makes the policy.
    pub(crate) slope: f64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            steps: 12,
            groups: 5,
            held_out: 12,
            complete: true,
            faults: true,
            text: "the guard compares the wrong way round".into(),
            slope: 0.02,
        }
    }
}

impl World {
    /// Writes the run.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join("plan.json"), self.plan().to_json()).expect("plan");
        let toml = format!("[run]\nseed = 0\nsteps = {}\n\n[learner]\nkl_beta = 0.0\n", self.steps);
        std::fs::write(folder.join("cluster.toml"), toml).expect("configuration");
        let host = r#"{"host_pid": 1, "nodes": [{"name": "rollout-0", "roles": ["rollout"],
            "pid": null, "restarts": 1, "given_up": false, "last_exit": "signal 9"}]}"#;
        std::fs::write(folder.join("host.json"), host).expect("host");
        let program = "0123456789ab".to_owned();
        let start = Environment::here(1_790_000_000_000, "0.1.0", program, None);
        start.append(folder).expect("environment");
        self.tasks(folder);
        let mut pen = Pen {
            world: self,
            ops: vec![],
            events: vec![],
            orders: vec![],
            now_ms: 1_790_000_000_000,
            next: 0,
        };
        let mut results = Results { format: 1, complete: self.complete, ..Results::default() };
        pen.say(EventKind::Started);
        pen.say(EventKind::NodeUp { peer: "rollout-0".into(), incarnation: 1 });
        if self.held_out > 0 {
            results.evaluations.push(pen.evaluate("before", 0, 0));
        }
        pen.train();
        results.trainings.push(Training { steps: self.steps, ..Training::default() });
        if self.held_out > 0 && self.complete {
            results.evaluations.push(pen.evaluate("after", 2, self.steps));
        }
        std::fs::write(
            folder.join("results.json"),
            serde_json::to_string(&results).expect("results"),
        )
        .expect("results");
        let log = EventLog::open(&folder.join("events.jsonl"), std::time::Duration::MAX);
        log.expect("history").append(&pen.events).expect("history");
        let orders = pen.orders.iter().map(|order| serde_json::to_string(order).expect("an order"));
        let orders: String = orders.map(|line| line + "\n").collect();
        std::fs::write(folder.join("orders.jsonl"), orders).expect("orders");
        let store = Writer::<()>::start(&folder.join("run.sqlite"), Options::default(), |said| {
            said.expect("written");
        })
        .expect("store");
        store.submit(pen.ops, ()).expect("store");
    }

    fn plan(&self) -> Plan {
        let sampling = Sampling::default();
        let evaluate = |label: &str| {
            Phase::Evaluate(Evaluate {
                label: label.into(),
                tasks: "held-out.jsonl".into(),
                tasks_max: 0,
                samples: 2,
                sampling: sampling.clone(),
            })
        };
        let train = Phase::Train(Train {
            tasks: "train.jsonl".into(),
            steps: self.steps.max(1),
            group_size: 4,
            groups_per_step: 4,
            sampling: sampling.clone(),
            staleness_max: 2,
            stale: crrl_control::plan::StalePolicy::default(),
            sync: false,
            skip_equal_groups: true,
            staleness: Default::default(),
            stragglers: Default::default(),
        });
        Plan::new(0, vec![evaluate("before"), train, evaluate("after")])
    }

    fn tasks(&self, folder: &Path) {
        for (file, n) in [("train", 60), ("held-out", self.held_out)] {
            let mut lines = String::new();
            for at in 0..n {
                let (bug, _) = KINDS[at % KINDS.len()];
                let task = Task {
                    instance_id: task(file, at).into(),
                    repo: "made-up".into(),
                    base_commit: String::new(),
                    problem_statement: self.text.clone(),
                    patch: patch("<=", "<"),
                    test_patch: String::new(),
                    base: crrl_types::Base::default(),
                    origin: Origin::Mutated {
                        bug,
                        path: "queue.py".into(),
                        function: "pop".into(),
                        line: 12,
                    },
                    difficulty: crrl_types::Difficulty::default(),
                    split: crrl_types::Split::default(),
                    extra: std::collections::BTreeMap::new(),
                };
                lines += &serde_json::to_string(&task).expect("a task");
                lines.push('\n');
            }
            std::fs::write(folder.join(format!("{file}.jsonl")), lines).expect("tasks");
        }
    }
}

fn task(file: &str, at: usize) -> String {
    format!("queue-{file}.pop-{}-{at}-{:04x}", KINDS[at % KINDS.len()].1, at * 2_654 % 65_536)
}

fn patch(old: &str, new: &str) -> String {
    format!(
        "diff --git a/queue.py b/queue.py\n--- a/queue.py\n+++ b/queue.py\n@@ -10,5 +10,5 @@ class \
         Queue:\n     def pop(self, limit):\n         size = len(self.items)\n-        if size {old} \
         limit:\n+        if size {new} limit:\n             raise Empty(limit)\n         return \
         self.items.pop()\n"
    )
}
