//! What a node does when the coordinator passes a person's order on, or wants messages traced. Each is
//! carried out beside the actors: one that hangs can still be ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crrl_cluster::supervisor::OrderError;
use crrl_cluster::{CastError, ChildOrder, Inbound, Mesh, Probes, SupervisorMsg};
use crrl_control::trace::TraceFilter;
use crrl_control::wire::{NodeRole, Wire};
use crrl_types::actor::ActorState;
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
    matches!(wire, Wire::Order { .. } | Wire::Trace { .. } | Wire::TraceOff { .. })
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

    /// The names of its actors, for whoever has named none of them.
    fn actors(&self) -> Vec<String> {
        self.probes.report().into_iter().map(|actor| actor.name).collect()
    }

    fn absent(&self, actor: &str) -> OrderAnswer {
        let names = self.actors().join(", ");
        let says = format!("{} has no actor {actor}; there are {names}", self.name());
        OrderAnswer::new(Outcome::Absent, says)
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
        let Some(watched) = self.probes.get(actor) else { return self.absent(actor) };
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
                    "{actor} supervises the others and goes with its node: give the order to {name}"
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
        if child == ChildOrder::Kill {
            watched.ended(&format!("killed by an order of {by}"));
        }
        self.to_child(actor, child).await
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
            Some(actor) if self.probes.get(actor).is_none() => Err(self.absent(actor)),
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

/// Does something once the answer has had time to leave.
fn soon(work: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        tokio::time::sleep(ANSWER_FIRST).await;
        work();
    });
}
