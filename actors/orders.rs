//! What a node does when the coordinator passes a person's order on, wants messages traced, or an
//! actor's snapshot. Each is done beside the actors: one that hangs can still be ended and looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crrl_cluster::supervisor::OrderError;
use crrl_cluster::{CastError, ChildOrder, Inbound, Mesh, Probes, Shown, SupervisorMsg};
use crrl_control::trace::TraceFilter;
use crrl_control::wire::{NodeRole, Wire};
use crrl_types::actor::{ActorState, SNAPSHOT_BYTES_MAX, STOPPED_BY_ORDER, SnapshotAnswer};
use crrl_types::{
    Action, NodeName, Order, OrderAnswer, Outcome, TraceEnd, TraceRequest, TraceStop, Traced,
};
use nix::sys::signal::{Signal, raise};
use ractor::ActorRef;
use ractor::rpc::CallResult;
use tokio::task::AbortHandle;

use crate::duty::{Duty, Roster};
use crate::leave::{Farewell, Leave};
use crate::log_level::{LogLevel, TIME_MAX};

/// What ends this process is done a moment after it was answered.
const ANSWER_FIRST: Duration = Duration::from_millis(200);
/// How long the supervisor may take: it gives an actor 5 s to stop.
const SUPERVISOR_TIMEOUT: Duration = Duration::from_secs(8);
/// How long an actor stays suspended whom nobody tells to go on.
const SUSPENDED_MAX: Duration = Duration::from_secs(3600);

/// What orders are carried out on. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Orders(Arc<Node>);

/// A node, as far as orders go.
pub struct Node {
    /// Who it is, and the way back.
    pub mesh: Mesh,
    /// Its actors.
    pub probes: Probes,
    /// What it does about work.
    pub roster: Roster,
    /// How it is told to leave.
    pub leave: Leave,
    /// How much it writes; none where that cannot be changed.
    pub log: Option<LogLevel>,
    /// Its actors' supervisor, once it was started.
    pub supervisor: Arc<Mutex<Option<ActorRef<SupervisorMsg>>>>,
    /// Traces that go on, by their numbers.
    pub traces: Mutex<BTreeMap<u64, AbortHandle>>,
}

/// Whether a message is an order.
#[must_use]
pub fn takes(wire: &Wire) -> bool {
    matches!(
        wire,
        Wire::Order { .. }
            | Wire::Trace { .. }
            | Wire::TraceOff { .. }
            | Wire::SnapshotWanted { .. }
    )
}

fn done(says: impl Into<String>) -> OrderAnswer {
    OrderAnswer::new(Outcome::Done, says)
}

fn unsupported(says: impl Into<String>) -> OrderAnswer {
    OrderAnswer::new(Outcome::Unsupported, says)
}

impl Orders {
    /// For a node.
    #[must_use]
    pub fn of(node: Node) -> Self {
        Self(Arc::new(node))
    }

    /// What takes messages, as long as this or another handle is there.
    pub fn taker(&self) -> impl Fn(Inbound) + Send + Sync + 'static {
        let node = Arc::downgrade(&self.0);
        move |inbound| {
            if let Some(node) = node.upgrade() {
                Self(node).inbound(inbound);
            }
        }
    }

    /// Takes a message. Never blocks; the answer goes back by itself.
    fn inbound(&self, inbound: Inbound) {
        let Inbound { from, wire, .. } = inbound;
        match wire {
            Wire::Order { id, by, order } => {
                let orders = self.clone();
                tokio::spawn(async move {
                    tracing::warn!(%by, %order, "an order has come");
                    let answer = orders.0.carry_out(&by, order).await;
                    orders.0.answer(&from, id, answer);
                });
            }
            Wire::Trace { id, request } => {
                let orders = self.clone();
                let trace = tokio::spawn(async move { orders.0.trace(id, request, from).await });
                let mut traces = self.0.traces();
                traces.retain(|_, trace| !trace.is_finished());
                if let Some(before) = traces.insert(id, trace.abort_handle()) {
                    before.abort();
                }
            }
            Wire::SnapshotWanted { id, actor } => {
                let node = Arc::clone(&self.0);
                // Not from within the router.
                tokio::spawn(async move {
                    let answer = Box::new(snapshot(node.name(), &node.probes, &actor));
                    if let Err(error) = node.mesh.cast(&from, Wire::Snapshot { id, answer }) {
                        tracing::debug!(%error, "a snapshot was not sent");
                    }
                });
            }
            Wire::TraceOff { id } => {
                if let Some(trace) = self.0.traces().remove(&id) {
                    trace.abort();
                }
            }
            _ => {}
        }
    }
}

impl Node {
    fn traces(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, AbortHandle>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> &NodeName {
        self.mesh.name()
    }

    fn answer(&self, to: &NodeName, id: u64, answer: OrderAnswer) {
        if let Err(error) = self.mesh.cast(to, Wire::Ordered { id, answer }) {
            tracing::warn!(%error, "an order's answer was not sent");
        }
    }

    async fn carry_out(&self, by: &NodeName, order: Order) -> OrderAnswer {
        match order.target.actor {
            None => self.to_node(by, order.action),
            Some(actor) => self.to_actor(by, &actor, order.action).await,
        }
    }

    fn to_node(&self, by: &NodeName, action: Action) -> OrderAnswer {
        let name = self.name();
        match action {
            Action::Drain => self.duty(Duty::Drains, "finishes what it has and takes no more"),
            Action::Suspend => self.duty(Duty::Rests, "gives its episodes back and takes none"),
            Action::Resume => self.duty(Duty::Works, "takes work"),
            Action::Log { filter, for_ms } => self.log_level(&filter, for_ms),
            Action::Stop => {
                let leave = self.leave.clone();
                let reason = format!("stopped by an order of {by}");
                soon(move || leave.say(Farewell::Done(reason)));
                done(format!("{name} leaves; `crrl inspect do restart {name}` starts it again"))
            }
            Action::Kill => {
                soon(|| {
                    // Fails only for a signal that does not exist.
                    let _ = raise(Signal::SIGKILL);
                });
                done(format!("{name} is killed; whoever watches it starts it again"))
            }
            Action::Restart => unsupported("a node is started again by whoever watches it"),
        }
    }

    fn duty(&self, duty: Duty, says: &str) -> OrderAnswer {
        let name = self.name();
        if !self.mesh.roles().contains(&NodeRole::Rollout) {
            return unsupported(format!(
                "{name} takes no episodes; only a rollout node can drain, be suspended and resumed"
            ));
        }
        match self.roster.set(duty) {
            true => done(format!("{name} {says}")),
            false => done(format!("{name} {says}, as before")),
        }
    }

    fn log_level(&self, filter: &str, for_ms: Option<u64>) -> OrderAnswer {
        let name = self.name();
        let Some(log) = &self.log else {
            return unsupported(format!("the log of {name} cannot be changed while it runs"));
        };
        let asked = for_ms.map(Duration::from_millis);
        let time = asked.map(|time| time.min(TIME_MAX));
        match log.change(filter, time) {
            Err(error) => unsupported(format!("{filter:?} is no filter of a log: {error}")),
            Ok(filter) => {
                let how_long = time.map_or_else(String::new, |time| format!(" for {time:?}"));
                let says = format!("{name} writes {filter:?}{how_long}");
                let is_cut = time != asked;
                OrderAnswer::new(if is_cut { Outcome::Truncated } else { Outcome::Done }, says)
            }
        }
    }

    fn absent(&self, actor: &str) -> OrderAnswer {
        absent(self.name(), &self.probes, actor)
    }

    /// What is said of an order or a trace where no actor has the name: there is nothing of it, or it
    /// is a thread or a pool, which takes no messages.
    fn no_actor(&self, actor: &str) -> OrderAnswer {
        let Some(row) = self.probes.row(actor) else { return self.absent(actor) };
        let (name, works_for) = (self.name(), row.report().parent.unwrap_or_default());
        unsupported(format!(
            "{actor} in {name} takes no messages and no orders, it works for {works_for}: name \
             {name}/{works_for}"
        ))
    }

    fn runs(&self, actor: &str) -> bool {
        let has_ended = |state| matches!(state, ActorState::Stopped | ActorState::Failed);
        self.probes.report().iter().any(|seen| seen.name == actor && !has_ended(seen.state))
    }

    fn ended(&self, actor: &str) -> OrderAnswer {
        let name = self.name();
        let says = format!(
            "{actor} in {name} does not run; `crrl inspect do restart {name}/{actor}` starts it"
        );
        OrderAnswer::new(Outcome::Absent, says)
    }

    async fn to_actor(&self, by: &NodeName, actor: &str, action: Action) -> OrderAnswer {
        let Some(watched) = self.probes.get(actor) else { return self.no_actor(actor) };
        let name = self.name();
        let is_child = watched.has_parent();
        let child = match action {
            Action::Drain => {
                return unsupported(format!("an actor cannot drain; its node can: drain {name}"));
            }
            Action::Log { .. } => {
                return unsupported(format!("a log is the whole node's: log {name}"));
            }
            _ if !is_child => {
                return unsupported(format!(
                    "nobody starts {actor} again, it goes with its node: give the order to {name}"
                ));
            }
            Action::Suspend | Action::Resume if !self.runs(actor) => return self.ended(actor),
            Action::Suspend => {
                watched.suspend(SUSPENDED_MAX);
                return done(format!(
                    "{actor} in {name} takes no message until it is resumed, {} min at most",
                    SUSPENDED_MAX.as_secs() / 60
                ));
            }
            Action::Resume => {
                return done(match watched.resume() {
                    true => format!("{actor} in {name} takes messages again"),
                    false => format!("{actor} in {name} was not suspended"),
                });
            }
            Action::Stop => ChildOrder::Stop,
            Action::Kill => ChildOrder::Kill,
            Action::Restart => ChildOrder::Restart,
        };
        // One that waits at its gate could not stop.
        watched.resume();
        let why = match child {
            ChildOrder::Kill => format!("killed by an order of {by}"),
            ChildOrder::Restart => format!("restarted by an order of {by}"),
            ChildOrder::Stop => format!("{STOPPED_BY_ORDER} of {by}"),
        };
        if child == ChildOrder::Stop {
            // Said once it has stopped.
            let answer = self.to_child(actor, child).await;
            if answer.outcome == Outcome::Done {
                watched.stopped(&why);
            }
            return answer;
        }
        // Said beforehand: whoever starts it again says why.
        let before = watched.ended(&why);
        let answer = self.to_child(actor, child).await;
        if answer.outcome != Outcome::Done {
            watched.not_ended(&why, before);
        }
        answer
    }

    async fn to_child(&self, actor: &str, order: ChildOrder) -> OrderAnswer {
        let name = self.name();
        let busy = |says: String| OrderAnswer::new(Outcome::Busy, says);
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(supervisor) = supervisor else {
            return busy(format!("the actors of {name} are not started yet"));
        };
        let child = actor.to_owned();
        let ask = |reply| SupervisorMsg::Order { child, order, reply };
        match supervisor.call(ask, Some(SUPERVISOR_TIMEOUT)).await {
            Ok(CallResult::Success(Ok(restarts))) => done(match order {
                ChildOrder::Stop => format!(
                    "{actor} in {name} has stopped; `crrl inspect do restart {name}/{actor}` starts \
                     it again"
                ),
                ChildOrder::Kill => {
                    format!("{actor} in {name} was killed; its supervisor starts it again")
                }
                ChildOrder::Restart => {
                    format!("{actor} in {name} was restarted, {restarts} in all")
                }
            }),
            Ok(CallResult::Success(Err(OrderError::NotRunning))) => self.ended(actor),
            Ok(CallResult::Success(Err(OrderError::NoSuchChild))) => self.absent(actor),
            Ok(CallResult::Timeout) => {
                busy(format!("the supervisor of {name} has not answered; it may still do it"))
            }
            Ok(CallResult::SenderError) | Err(_) => {
                done(format!("{actor} in {name} ended once too often: its node is started again"))
            }
        }
    }

    /// Shows messages until the trace is over. It ends as well when this is dropped.
    async fn trace(&self, id: u64, request: TraceRequest, to: NodeName) {
        let (request, _) = request.bounded();
        let reader = match &request.target.actor {
            Some(actor) if self.probes.get(actor).is_none() => Err(self.no_actor(actor)),
            Some(actor) if self.probes.get(actor).is_some_and(|watched| watched.carries()) => {
                Err(unsupported(format!(
                    "{actor} only passes on what others get: trace {}",
                    request.target.node
                )))
            }
            _ => match TraceFilter::parse(&request.filter) {
                Err(says) => Err(unsupported(says)),
                Ok(filter) => self
                    .probes
                    .taps()
                    .open(self.name().clone(), &request, filter)
                    .map_err(|says| OrderAnswer::new(Outcome::Busy, says)),
            },
        };
        let mut reader = match reader {
            Ok(reader) => reader,
            Err(answer) => return self.answer(&to, id, answer),
        };
        self.answer(&to, id, done(format!("{} is traced", request.target)));
        let mut events = 0;
        while let Some(traced) = reader.next().await {
            if let Traced::Events(more) = &traced {
                events += more.len() as u64;
            }
            match self.mesh.cast(&to, Wire::Traced { id, traced }) {
                Ok(()) => {}
                Err(CastError::Congested(_)) => {
                    let traced = Traced::End(TraceEnd { why: TraceStop::Unread, events });
                    let _ = self.mesh.cast(&to, Wire::Traced { id, traced });
                    return;
                }
                // Nobody is there to look.
                Err(_) => return,
            }
        }
    }
}

fn absent(node: &NodeName, probes: &Probes, actor: &str) -> OrderAnswer {
    let names: Vec<String> = probes.report().into_iter().map(|actor| actor.name).collect();
    let says = format!("{node} has no actor {actor}; there are {}", names.join(", "));
    OrderAnswer::new(Outcome::Absent, says)
}

/// What an actor has published of its state. The actor itself is not asked.
fn snapshot(node: &NodeName, probes: &Probes, actor: &str) -> SnapshotAnswer {
    match probes.snapshot(actor) {
        None => SnapshotAnswer { answer: absent(node, probes, actor), snapshot: None },
        Some(Shown::Unsupported) => {
            let says = format!("{actor} in {node} publishes nothing of its state");
            SnapshotAnswer::none(Outcome::Unsupported, says)
        }
        Some(Shown::NotYet) => {
            let says = format!("{actor} in {node} has published nothing yet; it is being started");
            SnapshotAnswer::none(Outcome::Busy, says)
        }
        Some(Shown::Here { snapshot, is_cut }) => {
            let answer = match is_cut {
                false => done(""),
                true => OrderAnswer::new(
                    Outcome::Truncated,
                    format!(
                        "lists and texts are cut: at most {SNAPSHOT_BYTES_MAX} bytes are shown, and \
                         at most so many of a list"
                    ),
                ),
            };
            SnapshotAnswer { answer, snapshot: Some(snapshot) }
        }
    }
}

/// Does something once the answer has had time to leave.
fn soon(work: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        tokio::time::sleep(ANSWER_FIRST).await;
        work();
    });
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crrl_cluster::{Probe, Worker};
    use ractor::{Actor, ActorProcessingErr};
    use serde_json::{Value, json};

    use super::*;

    /// Shows how many messages it has handled; a message with a gate is handled once that opens.
    struct Counter;

    #[derive(Default)]
    struct Numbers(Vec<u64>);

    #[derive(Debug)]
    struct Wait(Option<tokio::sync::oneshot::Receiver<()>>);
    impl ractor::Message for Wait {}

    impl Actor for Counter {
        type Msg = Wait;
        type State = Numbers;
        type Arguments = ();

        async fn pre_start(
            &self,
            _: ActorRef<Wait>,
            (): (),
        ) -> Result<Numbers, ActorProcessingErr> {
            Ok(Numbers::default())
        }

        async fn handle(
            &self,
            _: ActorRef<Wait>,
            Wait(gate): Wait,
            state: &mut Numbers,
        ) -> Result<(), ActorProcessingErr> {
            if let Some(gate) = gate {
                // It opens where its other end is dropped, too.
                let _ = gate.await;
            }
            state.0.extend(0..200);
            Ok(())
        }
    }

    fn shown(Numbers(numbers): &Numbers) -> Value {
        json!({ "handled": numbers.len() / 200, "numbers": numbers })
    }

    fn ask(probes: &Probes, actor: &str) -> SnapshotAnswer {
        snapshot(&"rollout-0".into(), probes, actor)
    }

    async fn until(probes: &Probes, what: impl Fn(&SnapshotAnswer) -> bool) -> SnapshotAnswer {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = ask(probes, "counter");
            if what(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "did not come about: {answer:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn there_is_none_in_three_ways_and_one_that_is_cut_says_so() {
        let probes = Probes::default();
        probes.add(Arc::new(Worker::new("engine", "EngineThread", "rollout", &["decode"])));
        let watched = probes.starting("counter", "Counter", Some("node"));
        let absent = ask(&probes, "nobody");
        assert_eq!(absent.answer.outcome, Outcome::Absent);
        assert!(absent.answer.says.ends_with("there are counter, engine"), "{absent:?}");
        assert_eq!(ask(&probes, "engine").answer.outcome, Outcome::Unsupported);
        assert_eq!(ask(&probes, "counter").answer.outcome, Outcome::Unsupported);
        let probe = Probe::new(Counter, watched).with_snapshot(shown);
        assert_eq!(ask(&probes, "counter").answer.outcome, Outcome::Busy);
        let (actor, _) = Actor::spawn(None, probe, ()).await.expect("starts");
        let whole = until(&probes, |seen| seen.snapshot.is_some()).await;
        assert_eq!(whole.answer.outcome, Outcome::Done);
        assert_eq!(whole.snapshot.expect("was published").json, r#"{"handled":0,"numbers":[]}"#);
        // One a second: what comes after the next message waits for its turn.
        let deadline = Instant::now() + Duration::from_secs(60);
        let cut = loop {
            assert!(Instant::now() < deadline, "nothing newer was published");
            actor.cast(Wait(None)).expect("runs");
            let seen = ask(&probes, "counter");
            if seen.answer.outcome == Outcome::Truncated {
                break seen;
            }
            assert_eq!(seen.answer.outcome, Outcome::Done);
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let json = cut.snapshot.expect("was published").json;
        assert!(json.len() <= SNAPSHOT_BYTES_MAX, "{} bytes", json.len());
        let value: Value = serde_json::from_str(&json).expect("JSON, cut or not");
        assert!(value["handled"].as_u64().is_some_and(|handled| handled > 0), "{value}");
    }

    #[tokio::test]
    async fn an_actor_that_hangs_still_shows_its_last_one_with_its_age() {
        let probes = Probes::default();
        let watched = probes.starting("counter", "Counter", Some("node"));
        let probe = Probe::new(Counter, watched).with_snapshot(shown);
        let (actor, _) = Actor::spawn(None, probe, ()).await.expect("starts");
        let (open, gate) = tokio::sync::oneshot::channel();
        actor.cast(Wait(Some(gate))).expect("runs");
        let is_old = |seen: &SnapshotAnswer| {
            seen.snapshot.as_ref().is_some_and(|snapshot| snapshot.age_ms >= 1_100)
        };
        let old = until(&probes, is_old).await;
        assert_eq!(old.snapshot.expect("the last").json, r#"{"handled":0,"numbers":[]}"#);
        drop(open);
        until(&probes, |seen| seen.answer.outcome == Outcome::Truncated).await;
    }
}
