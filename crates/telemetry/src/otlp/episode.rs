//! Spans of an episode: the coordinator's from the history, the rollout node's from what it measured.

use crrl_types::{Finish, NodeName, Reward, Timing, Work};

use super::RunFacts;
use super::ids::{SpanId, TraceId};
use super::span::{Interval, Span};
use super::story::{End, EpisodeStory, LeaseStory};

/// What one attempt measured.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The lease.
    pub attempt: u32,
    /// Who rolled it out.
    pub node: NodeName,
    /// When it did what.
    pub timing: Timing,
}

/// What an episode came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Whose result it is.
    pub node: NodeName,
    /// How it ended.
    pub finish: Finish,
    /// What it earned.
    pub reward: Reward,
    /// Sampling temperature.
    pub temperature: f64,
    /// Wall time at the node.
    pub wall_ms: u64,
}

/// The trace of an episode.
#[must_use]
pub fn spans(
    run: &RunFacts,
    story: &EpisodeStory,
    attempts: &[Attempt],
    outcome: Option<&Outcome>,
) -> Vec<Span> {
    let trace = Trace { run, id: run.id.episode(story.episode), outcome };
    let Some(first) = story.leases.first() else { return Vec::new() };
    let whole = Interval::ms(first.at_ms, story.last_ms);
    let mut out = vec![trace.root(story, whole)];
    for (nth, lease) in story.leases.iter().enumerate() {
        let attempt = attempts.iter().find(|attempt| attempt.attempt == lease.attempt);
        trace.lease(story, nth, lease, attempt, &mut out);
    }
    if let (Some((back_ms, ..)), Some((at_ms, End::Trained(step, undone)))) =
        (story.finished, &story.end)
    {
        let at = Interval::ms(back_ms, *at_ms).within(whole);
        let mut span = trace.span(&story.coordinator, "wait", Some(""), "wait for step", at);
        span.say("crrl.step", step.0);
        let step = run.id.step(*step);
        span.links.push((step, run.id.span(step, &super::step::root_path(*undone))));
        out.push(span);
    }
    out
}

struct Trace<'a> {
    run: &'a RunFacts,
    id: TraceId,
    outcome: Option<&'a Outcome>,
}

impl Trace<'_> {
    fn at(&self, path: &str) -> SpanId {
        self.run.id.span(self.id, path)
    }

    fn span(
        &self,
        node: &NodeName,
        path: &str,
        parent: Option<&str>,
        name: impl Into<String>,
        at: Interval,
    ) -> Span {
        Span {
            node: node.clone(),
            trace: self.id,
            id: self.at(path),
            parent: parent.map(|path| self.at(path)),
            name: name.into(),
            at,
            attributes: Vec::new(),
            links: Vec::new(),
            links_left_out: 0,
            failed: None,
        }
    }

    fn root(&self, story: &EpisodeStory, whole: Interval) -> Span {
        let mut root = self.span(&story.coordinator, "", None, "episode", whole);
        root.say("crrl.episode", story.episode.0)
            .say("crrl.group", story.group.0)
            .say("crrl.task", story.task.as_str())
            .say("crrl.attempts", story.leases.last().map_or(0, |lease| lease.attempt));
        if let Some((_, reward, success)) = story.finished {
            root.say("crrl.reward", reward).say("crrl.success", success);
        }
        if let Some(outcome) = self.outcome {
            root.say("crrl.finish", format!("{:?}", outcome.finish).to_lowercase());
            for part in &outcome.reward.components {
                root.say(format!("crrl.reward.{}", part.name), part.value);
            }
        }
        match &story.end {
            Some((_, End::Trained(step, _))) => {
                root.say("crrl.end", "trained").say("crrl.step", step.0);
            }
            Some((_, End::Dropped(why))) => {
                root.say("crrl.end", "dropped").say("crrl.end.reason", why.as_str());
            }
            Some((_, End::Failed(why))) => {
                root.say("crrl.end", "failed").say("crrl.end.reason", why.as_str());
                root.failed = Some(why.clone());
            }
            None => {
                root.say("crrl.end", "under way");
            }
        }
        root
    }

    fn lease(
        &self,
        story: &EpisodeStory,
        nth: usize,
        lease: &LeaseStory,
        attempt: Option<&Attempt>,
        out: &mut Vec<Span>,
    ) {
        let back_ms = story.finished.map(|(at_ms, ..)| at_ms);
        let won =
            lease.lost_ms.is_none() && self.outcome.is_some_and(|outcome| outcome.node == lease.to);
        let end_ms = lease.lost_ms.or(back_ms).unwrap_or(story.last_ms);
        let at = Interval::ms(lease.at_ms, end_ms).within(Interval::ms(lease.at_ms, story.last_ms));
        let path = format!("lease {nth}");
        let mut span = self.span(&story.coordinator, &path, Some(""), "lease", at);
        span.say("crrl.lease.attempt", lease.attempt).say("crrl.lease.node", lease.to.as_str());
        if lease.second {
            span.say("crrl.lease.second", true);
        }
        if let Some(entries) = lease.resumed {
            span.say("crrl.lease.resumed_entries", entries);
        }
        if lease.lost_ms.is_some() {
            span.failed = Some(format!("the lease of {} was lost", lease.to));
        }
        out.push(span);
        match (attempt, self.outcome.filter(|_| won)) {
            (Some(attempt), _) => self.attempt(story, (&path, at), attempt, won, out),
            // A node of an earlier build says how long it took, and no more.
            (None, Some(outcome)) => {
                let took = outcome.wall_ms.saturating_mul(1_000_000);
                let whole = Interval { from: at.to.saturating_sub(took), to: at.to };
                self.rollout((&path, at), &outcome.node, whole.within(at), true, out);
            }
            (None, None) => {}
        }
    }

    /// From the coordinator's word to the node's first move, and the node's work as a whole.
    fn rollout(
        &self,
        (lease, at): (&str, Interval),
        node: &NodeName,
        whole: Interval,
        won: bool,
        out: &mut Vec<Span>,
    ) -> String {
        let path = format!("{lease}/rollout");
        let mut span = self.span(node, &path, Some(lease), "invoke_agent nano", whole);
        span.say("gen_ai.operation.name", "invoke_agent")
            .say("gen_ai.provider.name", "crrl")
            .say("gen_ai.agent.name", "nano")
            .say("gen_ai.request.model", self.run.model.as_str());
        if let Some(outcome) = self.outcome.filter(|_| won) {
            span.say("gen_ai.request.temperature", outcome.temperature);
        }
        debug_assert!(at.from <= whole.from && whole.to <= at.to);
        out.push(span);
        path
    }

    fn attempt(
        &self,
        story: &EpisodeStory,
        (lease, at): (&str, Interval),
        attempt: &Attempt,
        won: bool,
        out: &mut Vec<Span>,
    ) {
        let Attempt { node, timing, .. } = attempt;
        let began = timing.began_ms.saturating_mul(1_000_000);
        let measured =
            Interval { from: began, to: began.saturating_add(timing.took_us.saturating_mul(1000)) };
        let whole = measured.moved_into(at);
        let first = Interval { from: at.from, to: whole.from };
        let dispatch = format!("{lease}/dispatch");
        out.push(self.span(&story.coordinator, &dispatch, Some(lease), "dispatch", first));
        let rollout = self.rollout((lease, at), node, whole, won, out);
        if let Some(span) = out.last_mut() {
            let moved = i128::from(whole.from) - i128::from(began);
            // Clocks of one machine differ by the milliseconds a message takes, and less.
            if moved.unsigned_abs() >= 1_000_000 {
                span.say("crrl.clock.moved_ms", moved as f64 / 1e6);
            }
            if timing.left_out > 0 {
                span.say("crrl.works_left_out", timing.left_out);
            }
        }
        self.works(node, &rollout, whole, timing, out);
    }

    fn works(
        &self,
        node: &NodeName,
        rollout: &str,
        whole: Interval,
        timing: &Timing,
        out: &mut Vec<Span>,
    ) {
        let interval = |from_us: u64, took_us: u64| {
            let from = whole.from.saturating_add(from_us.saturating_mul(1000));
            Interval { from, to: from.saturating_add(took_us.saturating_mul(1000)) }.within(whole)
        };
        let mut turn: Option<(u32, usize)> = None;
        for (nth, timed) in timing.works.iter().enumerate() {
            let at = interval(timed.from_us, timed.took_us);
            let mut parent = rollout.to_owned();
            if timed.turn > 0 {
                parent = format!("{rollout}/turn {}", timed.turn);
                match turn.filter(|(number, _)| *number == timed.turn) {
                    Some((_, index)) => out[index].at.to = out[index].at.to.max(at.to),
                    None => {
                        let mut span = self.span(node, &parent, Some(rollout), "turn", at);
                        span.say("crrl.turn", timed.turn);
                        turn = Some((timed.turn, out.len()));
                        out.push(span);
                    }
                }
            }
            let path = format!("{rollout}/work {nth}");
            let mut span = self.span(node, &path, Some(&parent), "", at);
            self.describe(&mut span, &timed.work);
            out.push(span);
        }
    }

    fn describe(&self, span: &mut Span, work: &Work) {
        match work {
            Work::Places => span.name = "places".to_owned(),
            Work::Replay { entries } => {
                span.name = "replay".to_owned();
                span.say("crrl.entries", *entries);
            }
            Work::Generate { context, tokens, version } => {
                span.name = format!("chat {}", self.run.model);
                span.say("gen_ai.operation.name", "chat")
                    .say("gen_ai.provider.name", "crrl")
                    .say("gen_ai.request.model", self.run.model.as_str())
                    .say("gen_ai.usage.input_tokens", *context)
                    .say("gen_ai.usage.output_tokens", *tokens)
                    .say("crrl.adapter.version", version.0);
            }
            Work::Call { tool, ok } => {
                span.name = format!("execute_tool {tool}");
                span.say("gen_ai.operation.name", "execute_tool")
                    .say("gen_ai.tool.name", tool.as_str())
                    .say("gen_ai.tool.type", "function")
                    .say("crrl.tool.ok", *ok);
            }
            Work::Diff => span.name = "diff".to_owned(),
            Work::Reward => span.name = "reward".to_owned(),
        }
    }
}
