//! Which local actor gets which message, and who may send it.
//!
//! A message that its sender's certificate does not allow is counted, logged once for each peer and
//! kind, and dropped; so is one that nobody here waits for. One for an actor that is yet to start
//! ([`Router::expect`]) is held until it does.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crrl_control::wire::{NodeRole, Wire};
use crrl_types::NodeName;
use ractor::{ActorRef, Message};

/// Kinds of refusals that are remembered, so that each is logged once.
const LOGGED_MAX: usize = 256;

/// Messages held for an actor that is yet to start. What they weigh is bounded by what each peer
/// may have unhandled.
pub const HELD_MAX: usize = 256;

/// A message that has arrived.
#[derive(Debug)]
pub struct Inbound {
    /// Its sender, by the sender's certificate.
    pub from: NodeName,
    /// The sender's roles, by its certificate.
    pub roles: Vec<NodeRole>,
    /// The message.
    pub wire: Wire,
    /// Tells the sender that the message was handled, when it is dropped.
    pub receipt: Receipt,
}

/// The duty to say that a message was handled. Dropping it says so; until then the message counts
/// against what its sender may have on its way here. Keep it until the work is done.
pub struct Receipt(Option<Done>);

type Done = Box<dyn FnOnce(Result<(), String>) + Send>;

impl Receipt {
    /// A receipt that reports to `done`.
    pub(crate) fn new(done: impl FnOnce(Result<(), String>) + Send + 'static) -> Self {
        Self(Some(Box::new(done)))
    }

    /// A receipt nobody waits for: for tests, and for messages of a node to itself.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Says that the message was handled. The same as dropping the receipt.
    pub fn accept(self) {}

    /// Says that the message is not wanted, and why. The sender of a blob learns it.
    pub fn refuse(mut self, reason: impl Into<String>) {
        if let Some(done) = self.0.take() {
            done(Err(reason.into()));
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            let panicking = std::thread::panicking();
            done(if panicking { Err("the receiver failed".into()) } else { Ok(()) });
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}

type Accepts = Box<dyn Fn(&Wire) -> bool + Send + Sync>;
type Deliver = Box<dyn Fn(Inbound) -> Result<(), String> + Send + Sync>;

struct Route {
    name: String,
    accepts: Accepts,
    to: Target,
}

enum Target {
    /// Whoever registered.
    Actor(Deliver),
    /// Nobody yet: what came so far, oldest first.
    Expected(Mutex<VecDeque<Inbound>>),
}

impl Route {
    fn deliver(&self, inbound: Inbound) -> Delivery {
        match &self.to {
            Target::Actor(deliver) => match deliver(inbound) {
                Ok(()) => Delivery::Delivered,
                Err(_) => Delivery::Lost,
            },
            Target::Expected(held) => {
                hold(&mut held.lock().unwrap_or_else(PoisonError::into_inner), inbound)
            }
        }
    }
}

enum Delivery {
    Delivered,
    Held,
    Lost,
}

/// Keeps a message for later. Of what is said again and again only the last is kept, and of
/// adapters only the newest.
fn hold(held: &mut VecDeque<Inbound>, inbound: Inbound) -> Delivery {
    let stands_for = |old: &Inbound| {
        let adapters = |wire: &Wire| matches!(wire, Wire::Adapter { .. });
        old.from == inbound.from
            && (old.wire == inbound.wire || (adapters(&old.wire) && adapters(&inbound.wire)))
    };
    if let Some(at) = held.iter().position(stands_for)
        && let Some(old) = held.remove(at)
    {
        old.receipt.refuse("a later one took its place");
    }
    if held.len() >= HELD_MAX {
        inbound.receipt.refuse("too much is waiting for an actor that is yet to start");
        return Delivery::Lost;
    }
    held.push_back(inbound);
    Delivery::Held
}

/// The routes of a node. Cloning gives another handle to the same routes.
#[derive(Clone, Default)]
pub struct Router(Arc<Inner>);

#[derive(Default)]
struct Inner {
    routes: RwLock<Vec<Route>>,
    refused: AtomicU64,
    unrouted: AtomicU64,
    logged: Mutex<HashSet<(NodeName, String)>>,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed {
    /// That many actors got it.
    Delivered(usize),
    /// Whoever takes it is yet to start, and gets it then.
    Held,
    /// Its sender may not send it.
    Refused,
    /// Nobody here waits for it, or whoever does is gone.
    Unrouted,
}

impl Router {
    /// No routes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that an actor of this name will register and what it will take. Until then its messages
    /// are held, at most [`HELD_MAX`].
    pub fn expect<A>(&self, name: &str, accepts: A)
    where
        A: Fn(&Wire) -> bool + Send + Sync + 'static,
    {
        let mut routes = self.0.routes.write().unwrap_or_else(PoisonError::into_inner);
        if !routes.iter().any(|route| route.name == name) {
            let to = Target::Expected(Mutex::default());
            routes.push(Route { name: name.to_owned(), accepts: Box::new(accepts), to });
        }
    }

    /// Sends every message that `accepts` takes to `actor`, as `wrap` turns it into the actor's own
    /// message. Several actors may take one kind; each gets a copy. Registering a name again
    /// replaces its route: an actor that was restarted registers again. What was held for the name
    /// comes first.
    pub fn register<M, A, W>(&self, name: &str, actor: &ActorRef<M>, accepts: A, wrap: W)
    where
        M: Message,
        A: Fn(&Wire) -> bool + Send + Sync + 'static,
        W: Fn(Inbound) -> M + Send + Sync + 'static,
    {
        let actor = actor.clone();
        self.register_fn(name, accepts, move |inbound| {
            actor.cast(wrap(inbound)).map_err(|error| error.to_string())
        });
    }

    /// As [`Router::register`], with a function for the actor. It must not block.
    pub fn register_fn<A, D>(&self, name: &str, accepts: A, deliver: D)
    where
        A: Fn(&Wire) -> bool + Send + Sync + 'static,
        D: Fn(Inbound) -> Result<(), String> + Send + Sync + 'static,
    {
        let mut routes = self.0.routes.write().unwrap_or_else(PoisonError::into_inner);
        let at = routes.iter().position(|route| route.name == name);
        // Under the lock, so that nothing newer overtakes it.
        if let Some(Route { to: Target::Expected(held), .. }) = at.map(|at| &mut routes[at]) {
            let held = held.get_mut().unwrap_or_else(PoisonError::into_inner);
            for inbound in held.drain(..).filter(|inbound| accepts(&inbound.wire)) {
                if let Err(error) = deliver(inbound) {
                    tracing::debug!(name, error, "a held message was not delivered");
                }
            }
        }
        let to = Target::Actor(Box::new(deliver));
        let route = Route { name: name.to_owned(), accepts: Box::new(accepts), to };
        match at {
            Some(at) => routes[at] = route,
            None => routes.push(route),
        }
    }

    /// Takes a route away.
    pub fn unregister(&self, name: &str) {
        let mut routes = self.0.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|route| route.name != name);
    }

    /// Messages that were dropped because their sender's certificate does not allow them.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Messages that were dropped because nobody here waits for them.
    #[must_use]
    pub fn unrouted(&self) -> u64 {
        self.0.unrouted.load(Ordering::Relaxed)
    }

    /// Whether a peer of these roles may send this message.
    #[must_use]
    pub fn allows(wire: &Wire, roles: &[NodeRole]) -> bool {
        roles.iter().any(|role| wire.allowed_from(*role))
    }

    /// Routes one message to everyone who takes it.
    pub fn route(&self, inbound: Inbound) -> Routed {
        let Inbound { from, roles, wire, receipt } = inbound;
        let kind = kind(&wire);
        if !Self::allows(&wire, &roles) {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            if self.first_time(&from, &kind) {
                tracing::warn!(peer = %from, ?roles, message = kind, "dropped: the peer's certificate does not allow it");
            }
            receipt.refuse(format!("{kind} may not be sent by {roles:?}"));
            return Routed::Refused;
        }
        let routes = self.0.routes.read().unwrap_or_else(PoisonError::into_inner);
        let takers: Vec<&Route> = routes.iter().filter(|route| (route.accepts)(&wire)).collect();
        let Some((last, others)) = takers.split_last() else {
            return self.nobody(&from, &kind, receipt);
        };
        let (mut delivered, mut held) = (0, false);
        let mut count = |delivery| match delivery {
            Delivery::Delivered => delivered += 1,
            Delivery::Held => held = true,
            Delivery::Lost => {}
        };
        for route in others {
            let copy = Inbound {
                from: from.clone(),
                roles: roles.clone(),
                wire: wire.clone(),
                receipt: Receipt::none(),
            };
            count(route.deliver(copy));
        }
        count(last.deliver(Inbound { from, roles, wire, receipt }));
        match (delivered, held) {
            (0, false) => Routed::Unrouted,
            (0, true) => Routed::Held,
            (delivered, _) => Routed::Delivered(delivered),
        }
    }

    fn nobody(&self, from: &NodeName, kind: &str, receipt: Receipt) -> Routed {
        self.0.unrouted.fetch_add(1, Ordering::Relaxed);
        if self.first_time(from, kind) {
            tracing::warn!(peer = %from, message = kind, "dropped: no actor of this node takes it");
        }
        receipt.refuse(format!("no actor takes {kind}"));
        Routed::Unrouted
    }

    fn first_time(&self, from: &NodeName, kind: &str) -> bool {
        let mut logged = self.0.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() < LOGGED_MAX && logged.insert((from.clone(), kind.to_owned()))
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.0.routes.read().unwrap_or_else(PoisonError::into_inner);
        let names: HashMap<_, _> = routes.iter().map(|route| (&route.name, ())).collect();
        f.debug_tuple("Router").field(&names.keys()).finish()
    }
}

/// Name of a message's variant. Stops formatting after the name, whatever follows.
#[must_use]
pub fn kind(message: &impl fmt::Debug) -> String {
    struct FirstWord(String);
    impl Write for FirstWord {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
            self.0.push_str(&text[..end]);
            if end < text.len() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut word = FirstWord(String::new());
    let _ = write!(word, "{message:?}");
    word.0
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use crrl_types::EpisodeId;

    use super::*;

    fn inbound(wire: Wire, role: NodeRole) -> (Inbound, mpsc::Receiver<Result<(), String>>) {
        let (said, heard) = mpsc::channel();
        let receipt = Receipt::new(move |outcome| {
            // Dropped unheard at the end of a test that does not ask.
            let _ = said.send(outcome);
        });
        (Inbound { from: "node".into(), roles: vec![role], wire, receipt }, heard)
    }

    fn listening(router: &Router, name: &str) -> mpsc::Receiver<Inbound> {
        let (sender, receiver) = mpsc::channel();
        router.register_fn(
            name,
            |wire| matches!(wire, Wire::Ack { .. } | Wire::Credit { .. }),
            move |inbound| sender.send(inbound).map_err(|error| error.to_string()),
        );
        receiver
    }

    #[test]
    fn the_certificate_decides_and_not_the_message() {
        let router = Router::new();
        let got = listening(&router, "rollout");
        let (message, heard) =
            inbound(Wire::Ack { episode: EpisodeId(1), attempt: 1 }, NodeRole::Rollout);
        assert_eq!(router.route(message), Routed::Refused);
        assert!(heard.recv().expect("said").is_err());
        assert!(got.try_recv().is_err());
        assert_eq!(router.refused(), 1);
        let (message, _) =
            inbound(Wire::Ack { episode: EpisodeId(1), attempt: 1 }, NodeRole::Coordinator);
        assert_eq!(router.route(message), Routed::Delivered(1));
    }

    #[test]
    fn the_sender_hears_of_it_once_the_message_was_handled() {
        let router = Router::new();
        let got = listening(&router, "coordinator");
        let (message, heard) = inbound(Wire::Credit { episodes: 1 }, NodeRole::Rollout);
        router.route(message);
        let waiting = got.recv().expect("delivered");
        assert!(heard.try_recv().is_err(), "said before it was handled");
        drop(waiting);
        assert_eq!(heard.recv().expect("said"), Ok(()));
    }

    #[test]
    fn registering_a_name_again_replaces_it() {
        let router = Router::new();
        let first = listening(&router, "coordinator");
        let second = listening(&router, "coordinator");
        let (message, _) = inbound(Wire::Credit { episodes: 1 }, NodeRole::Rollout);
        assert_eq!(router.route(message), Routed::Delivered(1));
        assert!(first.try_recv().is_err());
        assert!(second.try_recv().is_ok());
    }

    #[test]
    fn what_comes_before_its_actor_is_held_for_it_and_bounded() {
        let router = Router::new();
        router.expect("coordinator", |wire| matches!(wire, Wire::Credit { .. }));
        let credit = |episodes| inbound(Wire::Credit { episodes }, NodeRole::Rollout);
        let many = u32::try_from(HELD_MAX).expect("a small number");
        let mut heard = Vec::new();
        for episodes in 0..many {
            let (message, said) = credit(episodes);
            assert_eq!(router.route(message), Routed::Held);
            heard.push(said);
        }
        // Said again: the last one counts.
        assert_eq!(router.route(credit(0).0), Routed::Held);
        assert_eq!(heard[0].recv().expect("said"), Err("a later one took its place".into()));
        assert!(heard[1].try_recv().is_err(), "said before it was handled");
        let (message, said) = credit(many);
        assert_eq!(router.route(message), Routed::Unrouted, "more than is held");
        assert!(said.recv().expect("said").is_err());

        let got = listening(&router, "coordinator");
        router.route(credit(many + 1).0);
        let order: Vec<Wire> = got.try_iter().map(|inbound| inbound.wire).collect();
        let wanted = (1..many).chain([0, many + 1]);
        let wanted: Vec<Wire> = wanted.map(|episodes| Wire::Credit { episodes }).collect();
        assert_eq!(order, wanted);
    }

    #[test]
    fn a_kind_is_the_name_alone() {
        assert_eq!(kind(&Wire::Drain), "Drain");
        assert_eq!(kind(&Wire::Credit { episodes: 3 }), "Credit");
    }
}
