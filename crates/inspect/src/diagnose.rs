//! What is wrong with a cluster, in plain words. Pure: it judges a [`World`].

use std::collections::BTreeMap;

use crrl_types::actor::{ActorEvent, ActorState, Fate, STOPPED_BY_ORDER};
use serde::Serialize;

use crate::state::actors::{ActorRow, SLOW_MS, THREAD_FIRST_MS};
use crate::state::episodes::LiveRow;
use crate::state::nodes::{NodeRow, Standing};
use crate::state::world::World;
use crate::text::plain;
use crate::units::{age, grouped};

/// A learner, or the run, that waits for longer than this waits long, milliseconds.
pub const WAITS_MS: u64 = 30_000;
/// Nothing came back for longer than this although episodes are out, milliseconds.
pub const NOTHING_BACK_MS: u64 = 120_000;
/// How the words of a node begin whose disk is full.
const NO_SPACE: &str = "no space left";
/// How the words of an episode begin that has not got what it needs yet.
const WAITING_FOR: &str = "waiting for ";
/// The same, of one that waits for a sandbox.
const WAITING_FOR_SANDBOX: &str = "waiting for a sandbox";
/// Actors that are started again more than once within this crash, milliseconds.
pub const CRASHES_MS: u64 = 60_000;
/// What stands in the reason of whatever a person had done to an actor.
const BY_ORDER: &str = "by an order of";
/// What stands in the phase of a run before what that waits for.
const RUN_WAITS_FOR: &str = ", waiting for ";
/// Findings that are told; more of the same say nothing new.
pub const FINDINGS_MAX: usize = 100;

/// Which rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The coordinator's answers stopped.
    NoAnswer,
    /// A node was lost, given up or is being started again.
    NodeDown,
    /// A node says nothing.
    NodeSilent,
    /// A node waits for room on its disk.
    NoSpace,
    /// An actor failed, or fails again and again.
    ActorFailed,
    /// A thread has been at one thing for far longer than its work usually takes.
    ThreadHangs,
    /// An actor has been at one message for long.
    ActorBusy,
    /// A message has waited for an actor for long.
    ActorBehind,
    /// An episode hangs.
    EpisodeHangs,
    /// The learner, or the run, waits.
    Waits,
    /// Nothing comes back.
    NothingBack,
    /// The run failed.
    RunFailed,
    /// Somebody injected a fault.
    FaultActive,
    /// Somebody has suspended a node or an actor.
    Suspended,
    /// Somebody has stopped an actor.
    ActorStopped,
}

impl Rule {
    /// Whether somebody meant it so: it is known at once, and what it leads to shows later.
    #[must_use]
    pub fn is_meant(self) -> bool {
        matches!(self, Self::FaultActive | Self::Suspended | Self::ActorStopped)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Finding {
    /// Which rule was broken.
    pub rule: Rule,
    /// Where; empty where it is the whole run.
    pub node: String,
    /// Which actor, where it is one.
    pub actor: Option<String>,
    /// For how long, milliseconds.
    pub for_ms: u64,
    /// In words.
    pub says: String,
}

/// What is wrong, worst first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Verdict {
    /// Whether nothing is.
    pub healthy: bool,
    /// What is, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How much is, told or not.
    #[serde(skip)]
    pub found: usize,
    /// What was looked at.
    pub looked_at: String,
}

impl Verdict {
    /// What is said of findings that are not told, if there are any.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        let (told, found) = (self.findings.len(), self.found);
        (told < found)
            .then(|| format!("{} of {} findings, the worst", grouped(told), grouped(found)))
    }
}

/// Judges.
#[must_use]
pub fn diagnose(world: &World) -> Verdict {
    let mut findings = Vec::new();
    answer(world, &mut findings);
    world.nodes().iter().for_each(|node| judge_node(node, world, &mut findings));
    world.actors().iter().for_each(|actor| judge_actor(actor, world, &mut findings));
    crashes(world, &mut findings);
    episodes(world, &mut findings);
    run(world, &mut findings);
    for fault in world.faults().iter().filter(|fault| fault.active) {
        let says = format!(
            "a fault is at work in {} ({}), for {} at least; it fired {} times",
            fault.node,
            fault.what,
            age(fault.seen_ms),
            fault.fired
        );
        findings.push(finding(Rule::FaultActive, &fault.node, None, fault.seen_ms, says));
    }
    findings.sort_by(|a, b| (a.rule, b.for_ms, &a.node).cmp(&(b.rule, a.for_ms, &b.node)));
    let found = findings.len();
    findings.truncate(FINDINGS_MAX);
    let looked_at = format!(
        "{} nodes, {} actors, {} episodes under way",
        world.nodes().len(),
        world.actors().len(),
        world.live().len()
    );
    Verdict { healthy: findings.is_empty(), findings, found, looked_at }
}

fn finding(rule: Rule, node: &str, actor: Option<&str>, for_ms: u64, says: String) -> Finding {
    Finding { rule, node: node.to_owned(), actor: actor.map(str::to_owned), for_ms, says }
}

fn answer(world: &World, out: &mut Vec<Finding>) {
    if let Some(silent) = world.frame_age_ms().filter(|silent| *silent > SLOW_MS) {
        let says = format!("the coordinator has not answered for {}", age(silent));
        out.push(finding(Rule::NoAnswer, "", None, silent, says));
    }
}

fn judge_node(node: &NodeRow, world: &World, out: &mut Vec<Finding>) {
    if node.state == Standing::Left {
        return;
    }
    let exit = node.last_exit.as_ref().map_or_else(String::new, |exit| format!(" ({exit})"));
    let says = match node.state {
        Standing::Lost => {
            let why = node.activity.strip_prefix("lost: ").unwrap_or(&node.activity);
            Some(format!("node {} was lost: {why}{exit}", node.name))
        }
        Standing::GivenUp => {
            let restarts = node.restarts.unwrap_or(0);
            Some(format!("node {} was given up after {restarts} restarts{exit}", node.name))
        }
        Standing::Restarting => Some(format!("node {} is being started again{exit}", node.name)),
        _ => None,
    };
    if let Some(says) = says {
        return out.push(finding(Rule::NodeDown, &node.name, None, node.activity_ms, says));
    }
    if node.is_unheard() {
        let says = format!(
            "node {0} has said nothing since its process and the coordinator's were started, {1} ago: it hangs \
             before it joins, or does not reach the coordinator; crrl cluster logs {0}",
            node.name,
            age(node.activity_ms)
        );
        out.push(finding(Rule::NodeSilent, &node.name, None, node.activity_ms, says));
    }
    if node.is_stale() {
        let silent = node.age_ms.unwrap_or(0);
        let says = format!(
            "node {} has said nothing for {}; it was at: {}",
            node.name,
            age(silent),
            node.activity
        );
        out.push(finding(Rule::NodeSilent, &node.name, None, silent, says));
    }
    if let Some(rest) = node.activity.strip_prefix(NO_SPACE) {
        let says =
            format!("node {} has {NO_SPACE}{rest}, for {}", node.name, age(node.activity_ms));
        out.push(finding(Rule::NoSpace, &node.name, None, node.activity_ms, says));
    }
    if node.state == Standing::Suspended {
        let says = format!("node {0} is suspended; crrl inspect do resume {0}", node.name);
        out.push(finding(Rule::Suspended, &node.name, None, 0, says));
    }
    let is_learner = node.roles.split('+').any(|role| role == "learner");
    let waits = node.activity.starts_with("waiting") && node.activity_ms > WAITS_MS;
    if is_learner && waits && !needs_no_batch(world) {
        let says = format!(
            "the learner ({}) has been {} for {}",
            node.name,
            node.activity,
            age(node.activity_ms)
        );
        out.push(finding(Rule::Waits, &node.name, None, node.activity_ms, says));
    }
}

fn judge_actor(actor: &ActorRow, world: &World, out: &mut Vec<Finding>) {
    let ActorRow { node, name, .. } = actor;
    if actor.state == ActorState::Failed {
        let why = actor.last_failure.as_deref().unwrap_or("no reason known");
        let what = if actor.is_thread() { "thread" } else { "actor" };
        let says = format!("{what} {name} in {node} failed: {why}");
        return out.push(finding(Rule::ActorFailed, node, Some(name), 0, says));
    }
    if actor.state == ActorState::Suspended {
        let says = format!(
            "actor {name} in {node} is suspended, {} messages wait for it; crrl inspect do resume \
             {node}/{name}",
            actor.waiting
        );
        return out.push(finding(Rule::Suspended, node, Some(name), 0, says));
    }
    let by_order = |why: &&str| why.starts_with(STOPPED_BY_ORDER);
    if actor.state == ActorState::Stopped
        && let Some(why) = actor.last_failure.as_deref().filter(by_order)
    {
        let says =
            format!("actor {name} in {node} was {why}; crrl inspect do restart {node}/{name}");
        return out.push(finding(Rule::ActorStopped, node, Some(name), 0, says));
    }
    if actor.is_thread() {
        return judge_thread(actor, world, out);
    }
    if actor.starts_long() {
        let says = format!("actor {name} in {node} has been starting for {}", age(actor.up_ms));
        return out.push(finding(Rule::ActorBusy, node, Some(name), actor.up_ms, says));
    }
    match &actor.handling {
        Some((message, ms)) if *ms > actor.patience_ms() => {
            let says = format!(
                "actor {name} in {node} has been at one message, {message}, for {}; {} wait for it",
                age(*ms),
                actor.waiting
            );
            out.push(finding(Rule::ActorBusy, node, Some(name), *ms, says));
        }
        _ if actor.oldest_ms > SLOW_MS => {
            let says = format!(
                "{} messages wait for actor {name} in {node}, the oldest for {}",
                actor.waiting,
                age(actor.oldest_ms)
            );
            out.push(finding(Rule::ActorBehind, node, Some(name), actor.oldest_ms, says));
        }
        _ => {}
    }
}

/// A step takes as long as it takes: a thread is compared with itself.
fn judge_thread(actor: &ActorRow, world: &World, out: &mut Vec<Finding>) {
    let ActorRow { node, name, .. } = actor;
    let hung = actor.handling.as_ref().filter(|(_, ms)| *ms > actor.patience_ms());
    let Some((phase, ms)) = hung else { return };
    // One that waits for room on the disk is said to.
    let waits = |row: &NodeRow| row.name == *node && row.activity.starts_with(NO_SPACE);
    if world.nodes().iter().any(waits) {
        return;
    }
    let usual = match actor.usual_ms() {
        Some(usual) => format!("its work usually takes {}", age(usual)),
        None => "it has done no work yet".to_owned(),
    };
    let says = format!(
        "thread {name} in {node} has been at {phase} for {}; {usual}, {} wait for it",
        age(*ms),
        actor.waiting
    );
    out.push(finding(Rule::ThreadHangs, node, Some(name), *ms, says));
}

fn episodes(world: &World, out: &mut Vec<Finding>) {
    let hanging = world.live().iter().filter(|row| row.hangs());
    let (waiting, busy): (Vec<&LiveRow>, Vec<&LiveRow>) =
        hanging.partition(|row| row.doing.starts_with(WAITING_FOR));
    for row in busy {
        let says = format!(
            "episode {} in {} has been at {:?} for {} (turn {}, {})",
            row.episode,
            row.node,
            row.doing,
            age(row.idle_ms),
            row.turns,
            row.task
        );
        out.push(finding(Rule::EpisodeHangs, &row.node, None, row.idle_ms, says));
    }
    // Those of a node that wait stand in a line: whoever is first says it for all of them.
    let mut lines: BTreeMap<&str, Vec<&LiveRow>> = BTreeMap::new();
    for row in waiting {
        lines.entry(row.node.as_str()).or_default().push(row);
    }
    for (node, line) in lines {
        let Some(oldest) = line.iter().max_by_key(|row| row.idle_ms) else { continue };
        let more = match line.len() - 1 {
            0 => String::new(),
            1 => "; 1 more waits too long".to_owned(),
            more => format!("; {more} more wait too long"),
        };
        let taken = match holder_of(node, world) {
            Some(holder) if oldest.doing.starts_with(WAITING_FOR_SANDBOX) => {
                format!("; the one that has had one for longest is {holder}")
            }
            _ => String::new(),
        };
        let says = format!(
            "episode {} in {node} has been {}, for {} ({}){taken}{more}",
            oldest.episode,
            oldest.doing,
            age(oldest.idle_ms),
            oldest.task
        );
        out.push(finding(Rule::EpisodeHangs, node, None, oldest.idle_ms, says));
    }
}

/// Who has had a sandbox of a node for longest, and for how long, in words.
fn holder_of<'a>(node: &str, world: &'a World) -> Option<&'a str> {
    let pool = world.actors().iter().find(|actor| actor.node == node && actor.is_pool())?;
    pool.handling.as_ref().map(|(holder, _)| holder.as_str())
}

/// Actors that were started again several times within [`CRASHES_MS`], and not because somebody had it done.
fn crashes(world: &World, out: &mut Vec<Finding>) {
    let Some(frame) = world.frame() else { return };
    let ago = |event: &ActorEvent| world.now_ms().saturating_sub(event.at_ms);
    let by_order =
        |event: &ActorEvent| event.why.as_ref().is_some_and(|why| why.contains(BY_ORDER));
    let mut crashed: BTreeMap<(&str, &str), Vec<&ActorEvent>> = BTreeMap::new();
    for event in &frame.snapshot.actor_events {
        if event.fate == Fate::Restarted && ago(event) <= CRASHES_MS && !by_order(event) {
            crashed.entry((event.node.as_str(), event.actor.as_str())).or_default().push(event);
        }
    }
    for ((node, actor), events) in crashed {
        let [first, .., last] = events[..] else { continue };
        let (node, actor) = (plain(node, 64), plain(actor, 64));
        let says = format!(
            "actor {actor} in {node} was started again {} times within {}: {}",
            events.len(),
            age(ago(first)),
            plain(last.why.as_deref().unwrap_or("no reason known"), 200)
        );
        out.push(finding(Rule::ActorFailed, &node, Some(&actor), ago(first), says));
    }
}

/// How long no episode has come back, counted from when one could: by the coordinator, or by the run's
/// history where that does not tell; `None` where neither does.
fn none_back_ms(world: &World) -> Option<u64> {
    let told = world.frame().and_then(|frame| frame.snapshot.none_back_since_ms);
    let since = told.or_else(|| world.history.none_back_since_ms())?;
    Some(world.now_ms().saturating_sub(since))
}

/// Whether episodes are out, and are known to come back.
fn come_back(world: &World) -> bool {
    let in_flight = world.progress().map_or(0, |progress| progress.episodes.in_flight);
    in_flight > 0 && none_back_ms(world).is_some_and(|ms| ms <= NOTHING_BACK_MS)
}

/// Whether it is right that the learner waits: the policy is measured, the run is over, or a batch is on its
/// way, which takes as long as its episodes take.
fn needs_no_batch(world: &World) -> bool {
    let phase = world.progress().map_or("", |progress| progress.phase.as_str());
    phase.starts_with("evaluating") || phase == "done" || come_back(world)
}

fn run(world: &World, out: &mut Vec<Finding>) {
    let Some(progress) = world.progress() else { return };
    if progress.phase.starts_with("failed") {
        let says = format!("the run {}", plain(&progress.phase, 300));
        out.push(finding(Rule::RunFailed, "", None, world.phase_ms(), says));
    }
    // A node that loads its model may take as long as its thread may.
    let loads = world.nodes().iter().any(|node| node.state == Standing::Starting);
    let patience_ms = if loads { THREAD_FIRST_MS } else { WAITS_MS };
    if progress.phase.contains(RUN_WAITS_FOR) && world.phase_ms() > patience_ms {
        let phase = plain(&progress.phase, 120);
        let says = format!("the run has been {phase} for {}", age(world.phase_ms()));
        out.push(finding(Rule::Waits, "", None, world.phase_ms(), says));
    }
    if let Some(silent) = none_back_ms(world).filter(|ms| *ms > NOTHING_BACK_MS)
        && progress.episodes.in_flight > 0
    {
        let says = format!(
            "{} episodes are out and none has come back for {}",
            progress.episodes.in_flight,
            age(silent)
        );
        out.push(finding(Rule::NothingBack, "", None, silent, says));
    }
}
