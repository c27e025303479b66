//! A supervisor of actors: restarts what fails, as [`crate::restart`] decides, and fails itself when
//! that is too often.
//!
//! A child that ends by itself, without failing, is not started again; neither is one that was stopped
//! by an order, until another order says so. Neither is taken along when others are restarted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr,
    SupervisionEvent,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::restart::{Backoff, Intensity, Restarts, Strategy, Verdict};

/// How long a child may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

type Start =
    Arc<dyn Fn(ActorCell) -> BoxFuture<'static, Result<ActorCell, SpawnErr>> + Send + Sync>;

/// A child: its name, and how it is started under a supervisor.
#[derive(Clone)]
pub struct ChildSpec {
    name: String,
    start: Start,
}

impl ChildSpec {
    /// A child that `start` spawns linked to the supervisor it is given
    /// ([`Actor::spawn_linked`]); it is called again for every restart.
    pub fn new<F, S>(name: impl Into<String>, start: S) -> Self
    where
        F: Future<Output = Result<ActorCell, SpawnErr>> + Send + 'static,
        S: Fn(ActorCell) -> F + Send + Sync + 'static,
    {
        let start: Start = Arc::new(move |supervisor| Box::pin(start(supervisor)));
        Self { name: name.into(), start }
    }
}

/// Restarts: by its own supervisor, if it has one: a supervisor may be a child. Give the children their
/// order: with [`Strategy::RestForOne`] later ones may rely on earlier ones, with
/// [`Strategy::OneForAll`] all on each other.
pub struct Supervisor;

/// What a supervisor starts with.
pub struct SupervisorArgs {
    /// Children, in the order they are started.
    pub children: Vec<ChildSpec>,
    /// Who is restarted with a child that failed.
    pub strategy: Strategy,
    /// How often.
    pub intensity: Intensity,
    /// How soon.
    pub backoff: Backoff,
    /// Seed of the backoff's jitter.
    pub seed: u64,
    /// Told why, when it gives up.
    pub gave_up: Arc<dyn Fn(&str) + Send + Sync>,
}

/// What a supervisor is told and asked.
#[derive(Debug)]
pub enum SupervisorMsg {
    /// The wait before a restart is over. The number tells an outdated one.
    Restart {
        /// Indices of children.
        children: Vec<usize>,
        /// Which plan this belongs to.
        plan: u64,
    },
    /// A person wants something done to a child. Answered with how often it was restarted, or why it
    /// was not done.
    Order {
        /// Its name.
        child: String,
        /// What.
        order: ChildOrder,
        /// Where the answer goes.
        reply: RpcReplyPort<Result<u32, OrderError>>,
    },
    /// Names of the children that are up, and how often each was restarted.
    Children(RpcReplyPort<Vec<(String, u32)>>),
}

/// What a person may want done to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildOrder {
    /// It ends in good order and stays away.
    Stop,
    /// It ends at once; that counts as a failure.
    Kill,
    /// It ends in good order, and those that rely on it, and all are started again. Counts as no
    /// failure.
    Restart,
}

/// Why something was not done to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no such child.
    #[error("there is no such actor")]
    NoSuchChild,
    /// The child has ended already.
    #[error("it has ended")]
    NotRunning,
}

impl ractor::Message for SupervisorMsg {}

struct Child {
    spec: ChildSpec,
    running: Option<ActorCell>,
    /// It ended by itself, or an order stopped it: it stays away until it is asked for.
    is_done: bool,
    restarts: u32,
}

/// A supervisor's state.
pub struct SupervisorState {
    children: Vec<Child>,
    restarts: Restarts,
    started: Instant,
    rng: StdRng,
    plan: u64,
    gave_up: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Actor for Supervisor {
    type Msg = SupervisorMsg;
    type State = SupervisorState;
    type Arguments = SupervisorArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        args: SupervisorArgs,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let SupervisorArgs { children, strategy, intensity, backoff, seed, gave_up } = args;
        let restarts = Restarts::new(strategy, intensity, backoff, children.len());
        let mut up = Vec::with_capacity(children.len());
        for spec in children {
            let cell = (spec.start)(myself.get_cell()).await.map_err(|error| {
                ActorProcessingErr::from(format!("{} did not start: {error}", spec.name))
            })?;
            up.push(Child { spec, running: Some(cell), is_done: false, restarts: 0 });
        }
        Ok(SupervisorState {
            children: up,
            restarts,
            started: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            plan: 0,
            gave_up,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMsg::Restart { children, plan } if plan == state.plan => {
                restart(&myself, &children, state).await
            }
            SupervisorMsg::Restart { children, .. } => {
                // A later failure made a plan of its own; what that one does not cover, this does.
                let waiting: Vec<usize> =
                    children.into_iter().filter(|i| state.children[*i].running.is_none()).collect();
                restart(&myself, &waiting, state).await
            }
            SupervisorMsg::Order { child, order, reply } => {
                let Some(index) = state.children.iter().position(|c| c.spec.name == child) else {
                    // Whoever asked may have gone away.
                    let _ = reply.send(Err(OrderError::NoSuchChild));
                    return Ok(());
                };
                tracing::warn!(child, ?order, "an order is carried out");
                let done = carry_out(&myself, index, order, state).await?;
                let _ = reply.send(done.map(|()| state.children[index].restarts));
                Ok(())
            }
            SupervisorMsg::Children(reply) => {
                let up = state.children.iter().filter(|child| child.running.is_some());
                let _ = reply.send(up.map(|c| (c.spec.name.clone(), c.restarts)).collect());
                Ok(())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(actor, error) => {
                failed(&myself, actor.get_id(), &error.to_string(), state).await
            }
            SupervisionEvent::ActorTerminated(actor, _, reason) => {
                if let Some(child) = state.index(actor.get_id()) {
                    let child = &mut state.children[child];
                    child.running = None;
                    child.is_done = true;
                    tracing::debug!(child = child.spec.name, ?reason, "ended by itself");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl SupervisorState {
    fn index(&self, id: ActorId) -> Option<usize> {
        let is = |child: &Child| child.running.as_ref().is_some_and(|cell| cell.get_id() == id);
        self.children.iter().position(is)
    }
}

async fn failed(
    myself: &ActorRef<SupervisorMsg>,
    id: ActorId,
    error: &str,
    state: &mut SupervisorState,
) -> Result<(), ActorProcessingErr> {
    // A child that this supervisor stopped itself is not in the table any more.
    let Some(index) = state.index(id) else { return Ok(()) };
    state.children[index].running = None;
    let name = state.children[index].spec.name.clone();
    let jitter = state.rng.random();
    match state.restarts.failed(index, state.started.elapsed(), jitter) {
        Verdict::Restart { mut children, after } => {
            children.retain(|other| !state.children[*other].is_done);
            tracing::warn!(
                child = name,
                error,
                after_ms = after.as_millis() as u64,
                "failed; will be restarted"
            );
            // Those that may rely on it are stopped at once, the last first.
            for later in children.iter().rev() {
                if let Some(cell) = state.children[*later].running.take() {
                    stop(&cell, "restarted with another").await;
                }
            }
            state.plan += 1;
            let plan = state.plan;
            myself.send_after(after, move || SupervisorMsg::Restart { children, plan });
            Ok(())
        }
        Verdict::Escalate { restarts, .. } => {
            let why =
                format!("{name} failed again after {restarts} restarts in the window: {error}");
            (state.gave_up)(&why);
            Err(why.into())
        }
    }
}

/// An error ends the supervisor, as a failure of the child's would.
async fn carry_out(
    myself: &ActorRef<SupervisorMsg>,
    index: usize,
    order: ChildOrder,
    state: &mut SupervisorState,
) -> Result<Result<(), OrderError>, ActorProcessingErr> {
    let running = state.children[index].running.clone();
    match (order, running) {
        (ChildOrder::Stop | ChildOrder::Kill, None) => return Ok(Err(OrderError::NotRunning)),
        (ChildOrder::Stop, Some(cell)) => {
            state.children[index].running = None;
            state.children[index].is_done = true;
            stop(&cell, "stopped by an order").await;
        }
        (ChildOrder::Kill, Some(cell)) => {
            // One that does not let go of its thread ends when it does; another takes its place.
            let _ = cell.kill_and_wait(Some(STOP_TIMEOUT)).await;
            failed(myself, cell.get_id(), "killed by an order", state).await?;
        }
        (ChildOrder::Restart, _) => {
            let wanted = |other: &usize| *other == index || !state.children[*other].is_done;
            let children: Vec<usize> = state.restarts.with(index).filter(wanted).collect();
            for later in children.iter().rev() {
                if let Some(cell) = state.children[*later].running.take() {
                    stop(&cell, "restarted by an order").await;
                }
            }
            restart(myself, &children, state).await?;
        }
    }
    Ok(Ok(()))
}

async fn restart(
    myself: &ActorRef<SupervisorMsg>,
    children: &[usize],
    state: &mut SupervisorState,
) -> Result<(), ActorProcessingErr> {
    for index in children {
        let child = &mut state.children[*index];
        if child.running.is_some() {
            continue;
        }
        match (child.spec.start)(myself.get_cell()).await {
            Ok(cell) => {
                child.restarts += 1;
                child.is_done = false;
                tracing::info!(child = child.spec.name, restarts = child.restarts, "restarted");
                child.running = Some(cell);
            }
            Err(error) => {
                let why = format!("{} could not be restarted: {error}", child.spec.name);
                (state.gave_up)(&why);
                return Err(why.into());
            }
        }
    }
    Ok(())
}

async fn stop(cell: &ActorCell, why: &str) {
    let stopped = cell.stop_and_wait(Some(why.into()), Some(STOP_TIMEOUT));
    if stopped.await.is_err() {
        cell.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Worker;

    #[derive(Debug)]
    struct Fail;
    impl ractor::Message for Fail {}

    impl Actor for Worker {
        type Msg = Fail;
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<Fail>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn handle(
            &self,
            _: ActorRef<Fail>,
            _: Fail,
            (): &mut (),
        ) -> Result<(), ActorProcessingErr> {
            Err("told to fail".into())
        }
    }

    /// Names of workers in the order they were started, and the newest of each.
    type Log = Arc<Mutex<Vec<(String, ActorRef<Fail>)>>>;

    fn worker(name: &str, log: &Log) -> ChildSpec {
        let (name, log) = (name.to_owned(), Arc::clone(log));
        ChildSpec::new(name.clone(), move |supervisor| {
            let (name, log) = (name.clone(), Arc::clone(&log));
            async move {
                let (actor, _) = Actor::spawn_linked(None, Worker, (), supervisor).await?;
                log.lock().unwrap().push((name, actor.clone()));
                Ok(actor.get_cell())
            }
        })
    }

    async fn until(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !what() {
            assert!(Instant::now() < deadline, "did not come about");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn fail_newest(log: &Log, name: &str) {
        let log = log.lock().unwrap();
        let (_, actor) = log.iter().rev().find(|(n, _)| n == name).expect("was started");
        actor.cast(Fail).expect("is running");
    }

    #[tokio::test]
    async fn what_was_stopped_stays_away_and_what_was_killed_comes_back() {
        let log: Log = Log::default();
        let args = SupervisorArgs {
            children: ["a", "b"].map(|name| worker(name, &log)).to_vec(),
            strategy: Strategy::OneForOne,
            intensity: Intensity { restarts_max: 2, window: Duration::from_secs(60) },
            backoff: Backoff { min: Duration::from_millis(1), max: Duration::from_millis(2) },
            seed: 7,
            gave_up: Arc::new(|_| ()),
        };
        let (supervisor, _) = Actor::spawn(None, Supervisor, args).await.expect("children start");
        let order = |child: &str, order: ChildOrder| {
            let (supervisor, child) = (supervisor.clone(), child.to_owned());
            async move {
                let ask = |reply| SupervisorMsg::Order { child, order, reply };
                let answer = supervisor.call(ask, Some(Duration::from_secs(10))).await;
                answer.expect("it lives").unwrap()
            }
        };
        let started = || log.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
        let names: Vec<String> = started();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(order("c", ChildOrder::Stop).await, Err(OrderError::NoSuchChild));
        assert_eq!(order("a", ChildOrder::Stop).await, Ok(0));
        assert_eq!(order("a", ChildOrder::Kill).await, Err(OrderError::NotRunning));
        // As often as one likes: that is no failure.
        for restarts in 1..=4 {
            assert_eq!(order("a", ChildOrder::Restart).await, Ok(restarts));
        }
        assert_eq!(order("b", ChildOrder::Kill).await, Ok(0));
        until(|| log.lock().unwrap().len() == 7).await;
        let names: Vec<String> = started();
        assert_eq!(names, ["a", "b", "a", "a", "a", "a", "b"]);
    }

    fn group(names: &[&str], strategy: Strategy, restarts_max: u32, log: &Log) -> SupervisorArgs {
        SupervisorArgs {
            children: names.iter().map(|name| worker(name, log)).collect(),
            strategy,
            intensity: Intensity { restarts_max, window: Duration::from_secs(60) },
            backoff: Backoff { min: Duration::from_millis(1), max: Duration::from_millis(2) },
            seed: 7,
            gave_up: Arc::new(|_| ()),
        }
    }

    fn names(log: &Log) -> Vec<String> {
        log.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }

    #[tokio::test]
    async fn all_are_restarted_together_but_for_those_that_were_stopped() {
        let log: Log = Log::default();
        let args = group(&["a", "b", "c"], Strategy::OneForAll, 5, &log);
        let (supervisor, _) = Actor::spawn(None, Supervisor, args).await.expect("children start");
        let order = |child: &str, order: ChildOrder| {
            let (supervisor, child) = (supervisor.clone(), child.to_owned());
            async move {
                let ask = |reply| SupervisorMsg::Order { child, order, reply };
                let answer = supervisor.call(ask, Some(Duration::from_secs(10))).await;
                answer.expect("it lives").unwrap()
            }
        };
        fail_newest(&log, "b");
        until(|| log.lock().unwrap().len() == 6).await;
        assert_eq!(names(&log), ["a", "b", "c", "a", "b", "c"]);
        for (name, actor) in &log.lock().unwrap()[..3] {
            let status = actor.get_status();
            assert!(status >= ractor::ActorStatus::Stopping, "the first {name} goes on");
        }
        assert_eq!(order("c", ChildOrder::Stop).await, Ok(1));
        fail_newest(&log, "a");
        until(|| log.lock().unwrap().len() == 8).await;
        assert_eq!(order("b", ChildOrder::Restart).await, Ok(3));
        assert_eq!(names(&log)[6..], ["a", "b", "a", "b"]);
        // Whoever is asked for comes, and with it those that may rely on it.
        assert_eq!(order("c", ChildOrder::Restart).await, Ok(2));
        assert_eq!(names(&log)[10..], ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_supervisor_that_gives_up_is_restarted_by_its_own() {
        let log: Log = Log::default();
        let inner = {
            let log = Arc::clone(&log);
            ChildSpec::new("group", move |supervisor| {
                let args = group(&["a", "b"], Strategy::OneForAll, 1, &log);
                async move {
                    let (actor, _) =
                        Actor::spawn_linked(None, Supervisor, args, supervisor).await?;
                    Ok(actor.get_cell())
                }
            })
        };
        let args = SupervisorArgs {
            children: vec![inner, worker("c", &log)],
            ..group(&[], Strategy::OneForOne, 1, &log)
        };
        let (supervisor, _) = Actor::spawn(None, Supervisor, args).await.expect("children start");
        fail_newest(&log, "a");
        until(|| log.lock().unwrap().len() == 5).await;
        fail_newest(&log, "a");
        until(|| log.lock().unwrap().len() == 7).await;
        assert_eq!(names(&log), ["a", "b", "c", "a", "b", "a", "b"]);
        let up = supervisor.call(SupervisorMsg::Children, Some(Duration::from_secs(10))).await;
        let up = up.expect("it lives").unwrap();
        assert_eq!(up, [("group".to_owned(), 1), ("c".to_owned(), 0)]);
    }

    #[tokio::test]
    async fn the_rest_is_restarted_in_order_and_too_many_failures_end_the_supervisor() {
        let log: Log = Log::default();
        let why = Arc::new(Mutex::new(String::new()));
        let args = SupervisorArgs {
            children: ["a", "b", "c"].map(|name| worker(name, &log)).to_vec(),
            strategy: Strategy::RestForOne,
            intensity: Intensity { restarts_max: 2, window: Duration::from_secs(60) },
            backoff: Backoff { min: Duration::from_millis(1), max: Duration::from_millis(2) },
            seed: 7,
            gave_up: {
                let why = Arc::clone(&why);
                Arc::new(move |text| text.clone_into(&mut why.lock().unwrap()))
            },
        };
        let (supervisor, handle) =
            Actor::spawn(None, Supervisor, args).await.expect("children start");
        for wanted in [5, 7] {
            fail_newest(&log, "b");
            until(|| log.lock().unwrap().len() == wanted).await;
        }
        let order: Vec<String> = log.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(order, ["a", "b", "c", "b", "c", "b", "c"]);
        fail_newest(&log, "b");
        tokio::time::timeout(Duration::from_secs(10), handle)
            .await
            .expect("gives up")
            .expect("no panic");
        assert_eq!(supervisor.get_status(), ractor::ActorStatus::Stopped);
        assert!(why.lock().unwrap().ends_with("told to fail"), "{:?}", why.lock());
    }
}
