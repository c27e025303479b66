//! Which local actor gets which message, and who may send it.
//!
//! A message that its sender's certificate does not allow is counted, logged once for each peer and
//! kind, and dropped; so is one that nobody here waits for.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crrl_control::wire::{NodeRole, Wire};
use crrl_types::NodeName;
use ractor::{ActorRef, Message};

/// Kinds of refusals that are remembered, so that each is logged once.
const LOGGED_MAX: usize = 256;

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
    deliver: Deliver,
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

    /// Sends every message that `accepts` takes to `actor`, as `wrap` turns it into the actor's own
    /// message. Several actors may take one kind; each gets a copy. Registering a name again
    /// replaces its route: an actor that was restarted registers again.
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
        let route =
            Route { name: name.to_owned(), accepts: Box::new(accepts), deliver: Box::new(deliver) };
        let mut routes = self.0.routes.write().unwrap_or_else(PoisonError::into_inner);
        match routes.iter_mut().find(|held| held.name == name) {
            Some(held) => *held = route,
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
        let mut delivered = 0;
        for route in others {
            let copy = Inbound {
                from: from.clone(),
                roles: roles.clone(),
                wire: wire.clone(),
                receipt: Receipt::none(),
            };
            delivered += usize::from((route.deliver)(copy).is_ok());
        }
        delivered += usize::from((last.deliver)(Inbound { from, roles, wire, receipt }).is_ok());
        if delivered == 0 { Routed::Unrouted } else { Routed::Delivered(delivered) }
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

/// Name of a message's variant, for logs. Stops formatting after the name, whatever follows.
#[must_use]
pub fn kind(wire: &Wire) -> String {
    struct FirstWord(String);
    impl Write for FirstWord {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
            self.0.push_str(&text[..end]);
            if end < text.len() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut word = FirstWord(String::new());
    let _ = write!(word, "{wire:?}");
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
        let (message, heard) = inbound(Wire::Ack { episode: EpisodeId(1) }, NodeRole::Rollout);
        assert_eq!(router.route(message), Routed::Refused);
        assert!(heard.recv().expect("said").is_err());
        assert!(got.try_recv().is_err());
        assert_eq!(router.refused(), 1);
        let (message, _) = inbound(Wire::Ack { episode: EpisodeId(1) }, NodeRole::Coordinator);
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
    fn a_kind_is_the_name_alone() {
        assert_eq!(kind(&Wire::Drain), "Drain");
        assert_eq!(kind(&Wire::Credit { episodes: 3 }), "Credit");
    }
}
