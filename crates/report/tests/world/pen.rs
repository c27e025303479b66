//! What happens in a made-up run, in order: episodes, steps, faults.

use crrl_control::results::{Attempt, Evaluation, TaskResult};
use crrl_store::{EpisodeRow, Op, StepRow};
use crrl_types::fault::{Fault, Injection};
use crrl_types::{
    AdapterVersion, Component, Digest, EpisodeId, Event, EventKind, Finish, GroupId, OrderRecord,
    Outcome, Reward, Step, TimedWork, Timing, TokenSpan, ToolRecord, Trajectory, Turn, Work, deed,
};

use super::{World, patch, task};

/// A number in 0..1 that only depends on its arguments.
fn chance(a: u64, b: u64) -> f64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xd1b5_4a32_d192_ed03);
    for _ in 0..3 {
        x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

pub(super) struct Pen<'a> {
    pub(super) world: &'a World,
    pub(super) ops: Vec<Op>,
    pub(super) events: Vec<Event>,
    pub(super) orders: Vec<OrderRecord>,
    pub(super) now_ms: u64,
    pub(super) next: u64,
}

impl Pen<'_> {
    pub(super) fn say(&mut self, kind: EventKind) {
        self.events.push(Event { at_ms: self.now_ms, node: "coordinator".into(), kind });
    }

    pub(super) fn evaluate(&mut self, label: &str, phase: u32, version: u64) -> Evaluation {
        let tasks = (0..self.world.held_out)
            .map(|at| {
                let attempts = (0..2)
                    .map(|sample| {
                        let group = GroupId(10_000 * u64::from(phase) + at as u64);
                        let task = task("held-out", at);
                        let attempt = self.episode(task, group, sample, phase, version, None);
                        Some(attempt)
                    })
                    .collect();
                TaskResult { task: task("held-out", at).into(), attempts }
            })
            .collect();
        let (version, digest) = (AdapterVersion(version), Digest::of(b"adapter"));
        Evaluation { label: label.into(), version, digest, wall_ms: 1, tasks }
    }

    pub(super) fn train(&mut self) {
        for step in 1..=self.world.steps {
            let (mut sum, mut solved, mut n) = (0.0, 0.0, 0.0);
            for group in 0..self.world.groups {
                let at = (step * self.world.groups + group) as usize % 60;
                let group = GroupId(1_000 + step * self.world.groups + group);
                for sample in 0..4 {
                    let attempt =
                        self.episode(task("train", at), group, sample, 1, step - 1, Some(step));
                    sum += attempt.reward;
                    solved += f64::from(u8::from(attempt.success));
                    n += 1.0;
                }
            }
            if self.world.faults && step == self.world.steps / 2 {
                self.fault(step);
            }
            self.now_ms += 1_500;
            let version = AdapterVersion(step);
            self.say(EventKind::Stepped { step: Step(step), version });
            let noise = chance(step, 77);
            let metrics = [
                ("attempt_reward_mean", sum / n),
                ("attempt_success_rate", solved / n),
                ("attempts", n),
                ("reward_std", 0.3 - 0.1 * noise),
                ("kl_k1", 0.0),
                ("kl_k3", 0.0),
                ("entropy", 0.4 - 0.2 * (step as f64 / self.world.steps as f64) + 0.03 * noise),
                ("clip_low", 0.01 * noise),
                ("clip_high", 0.004 * noise),
                ("loss", 0.02 * (noise - 0.5)),
                ("grad_norm", 0.2 + 0.1 * noise),
                ("learning_rate", 1e-4 * (step as f64 / 5.0).min(1.0)),
                ("gap_mean", 0.001 + 0.0005 * noise),
                ("gap_max", 0.2 + 0.3 * noise),
                ("staleness_mean", 0.8 * noise),
                ("staleness_max", (2.0 * noise).round()),
                ("tokens_per_s", 2_800.0 + 300.0 * noise),
                ("score_s", 0.4),
                ("pass_s", 3.0 + noise),
                ("update_s", 0.3),
                ("learner_waited_s", 4.0 * noise),
            ];
            let metrics = metrics.map(|(name, value)| (name.to_owned(), value)).to_vec();
            self.ops.push(Op::Step(StepRow { step: Step(step), version, metrics }));
        }
    }

    fn fault(&mut self, step: u64) {
        let peer = crrl_types::NodeName::from("rollout-0");
        let pause = Injection { id: 1, fault: Fault::Pause, duration_ms: 7_000, seed: 1 };
        self.order(deed::FAULT, &pause.to_string(), Outcome::Done);
        self.order("drain", "", Outcome::Denied);
        self.now_ms += 2_000;
        self.say(EventKind::NodeDown { peer: peer.clone(), reason: self.world.text.clone() });
        for id in 0..3 {
            self.say(EventKind::LeaseLost { episode: EpisodeId(id), from: peer.clone() });
        }
        self.now_ms += 6_000;
        self.say(EventKind::NodeUp { peer, incarnation: 2 });
        self.now_ms += 9_000;
        self.say(EventKind::Started);
        self.say(EventKind::RolledBack { step: Step(step) });
    }

    fn order(&mut self, operation: &str, detail: &str, outcome: Outcome) {
        let record = OrderRecord {
            id: self.orders.len() as u64 + 1,
            at_ms: self.now_ms,
            who: "anna".into(),
            roles: vec!["operator".into()],
            operation: operation.into(),
            target: "rollout-0".into(),
            detail: detail.into(),
            outcome: Some(outcome),
            says: String::new(),
        };
        self.orders.push(record);
    }

    fn episode(
        &mut self,
        task: String,
        group: GroupId,
        sample: u32,
        phase: u32,
        version: u64,
        step: Option<u64>,
    ) -> Attempt {
        let id = EpisodeId(self.next);
        self.next += 1;
        self.now_ms += 90 + (60.0 * chance(id.0, 5)) as u64;
        let skill = 0.15 + self.world.slope * version as f64;
        let luck = chance(id.0, 1) + 0.4 * (chance(group.0 % 1_000, 2) - 0.5);
        let success = luck < skill;
        let line = if success {
            1.0
        } else if luck < 2.0 * skill {
            0.5
        } else {
            0.0
        };
        let changed = line > 0.0 || luck < 0.8;
        let diff = match (changed, success) {
            (false, _) => String::new(),
            (true, true) => patch("<=", "<"),
            (true, false) => patch("<=", &format!("> {} <", self.world.text)),
        };
        let components = vec![
            Component { name: "line".into(), value: line, weight: 0.8 },
            Component { name: "edit".into(), value: f64::from(u8::from(changed)), weight: 0.2 },
        ];
        let reward = Reward::from_components(components, success);
        let attempt = Attempt { reward: reward.total, success };
        let generated = 60 + (90.0 * chance(id.0, 3)) as u32 - (20.0 * skill) as u32;
        let (episode, success) = (id, Some(success));
        self.say(EventKind::Finished { episode, reward: reward.total, success: attempt.success });
        self.ops.push(Op::Episode(Box::new(EpisodeRow {
            episode,
            group,
            task: task.clone().into(),
            phase,
            ordinal: group.0,
            sample,
            evaluation: step.is_none(),
            attempt: 1,
            node: Some("rollout-0".into()),
            state: if step.is_some() { "trained" } else { "measured" }.into(),
            reason: None,
            reward: Some(reward.total),
            success,
            oldest: Some(AdapterVersion(version)),
            generated: Some(generated),
            step: step.map(Step),
        })));
        let span = TokenSpan {
            start: 2,
            end: 6,
            version: AdapterVersion(version),
            digest: Digest::of(b"adapter"),
        };
        self.ops.push(Op::Timed {
            episode,
            attempt: 1,
            node: "rollout-0".into(),
            timing: self.timing(id.0),
        });
        self.ops.push(Op::Trajectory(Box::new(Trajectory {
            episode,
            group,
            task: task.into(),
            node: "rollout-0".into(),
            tokens: vec![1; 6],
            generated: vec![false, false, true, true, true, true],
            logprobs: vec![0.0; 6],
            adapters: vec![span],
            turns: self.turns(id.0, changed),
            finish: if luck > 1.05 { Finish::CallLimit } else { Finish::Done },
            diff,
            reward,
            temperature: 1.0,
            wall_ms: 900,
        })));
        attempt
    }

    fn timing(&self, id: u64) -> Timing {
        let mut timing = Timing { began_ms: self.now_ms.saturating_sub(900), ..Timing::default() };
        let generate = |tokens| Work::Generate { context: 200, tokens, version: AdapterVersion(1) };
        let call = |tool: &str| Work::Call { tool: tool.into(), ok: true };
        let slow = (100_000.0 * chance(id, 9)) as u64;
        let works = [
            (0, Work::Places, 40_000),
            (1, generate(40), 200_000 + slow),
            (1, call("shell"), 60_000),
            (2, generate(50), 250_000),
            (2, call("apply_patch"), 5_000),
            (3, generate(3), 20_000),
            (3, Work::Diff, 9_000),
            (0, Work::Reward, 3_000),
        ];
        for (turn, work, took_us) in works {
            timing.add(TimedWork { from_us: timing.took_us, took_us, turn, work });
            timing.took_us += took_us + 1_000;
        }
        timing
    }

    fn turns(&self, id: u64, changed: bool) -> Vec<Turn> {
        let cmd = match (8.0 * chance(id, 4)) as u32 {
            0 => "sed -n 1,20p queue.py",
            1 => "cat queue.py | head -40",
            2 => "ls; grep -n limit queue.py",
            3 => "python3 -c 'import queue'",
            _ => "grep -A 9 'def pop' queue.py",
        };
        let arguments = serde_json::json!({ "cmd": cmd }).to_string();
        let tool = |name: &str, arguments: &str, ok| ToolRecord {
            name: name.into(),
            arguments: arguments.into(),
            output: format!("queue.py-    def pop(self, limit):\n{}", self.world.text),
            ok,
            wall_ms: 7,
        };
        let text = |call: &str| format!("{}\n<tool_call>{call}</tool_call>", self.world.text);
        let look = tool("shell", &arguments, chance(id, 6) < 0.9);
        let edit = tool("apply_patch", r#"{"path": "queue.py"}"#, changed);
        let mut turns = vec![Turn { text: text("shell"), tokens: 40, tools: vec![look] }];
        if chance(id, 7) < 0.15 {
            turns.push(Turn { text: text("?"), tokens: 9, tools: vec![tool("", "", false)] });
        }
        turns.push(Turn { text: text("apply_patch"), tokens: 50, tools: vec![edit] });
        turns.push(Turn { text: "Fixed.".into(), tokens: 3, tools: vec![] });
        turns
    }
}
