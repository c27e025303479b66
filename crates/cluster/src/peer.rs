//! One peer: its connections, what is owed to it, how it is watched; and the table of them all.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crrl_control::wire::{FRAME_BYTES_MAX, NodeRole, Wire};
use crrl_transport::{BlobError, Connection, Endpoint, Partials, encode_as};
use crrl_types::{AdapterManifest, NodeName};
use ractor::ActorRef;
use ractor_cluster::NodeServerMessage;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, broadcast, oneshot, watch};

use crate::admission::Doorkeeper;
use crate::board::StatusBoard;
use crate::bulk::{BlobQueue, Outgoing};
use crate::inbox::{self, InboxMsg};
use crate::mesh::{CastError, DeliverError, MeshError, MeshEvent, MeshOptions, PeerInfo};
use crate::operator;
use crate::operator::desk::Desk;
use crate::order_log::OrderLog;
use crate::renewal::Renewal;
use crate::router::{Inbound, Receipt, Routed, Router};
use crate::run_dir::RunDir;
use crate::session::{self, SessionState};
use crate::weights::Weights;

/// What a peer shows with every message so that the inbox knows whose it is: agreed on inside the
/// peer's own verified connection, and worth nothing once that connection is gone.
pub(crate) type Token = [u8; 16];

/// Events a slow listener may lag behind.
const EVENTS_MAX: usize = 1024;

/// One control message on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Packet<M> {
    /// The token the receiver gave the sender.
    pub(crate) token: Token,
    /// Bytes of control messages of the receiver that the sender has handled in this session.
    pub(crate) handled: u64,
    /// The message; none is a sign of life.
    pub(crate) message: Option<M>,
}

/// One connected peer.
pub(crate) struct Peer {
    pub(crate) info: PeerInfo,
    pub(crate) control: Connection,
    pub(crate) bulk: Connection,
    /// The token the peer shows us.
    pub(crate) token: Token,
    /// The token we show the peer.
    their_token: Token,
    inbox: OnceLock<ActorRef<InboxMsg>>,
    unhandled_bytes_max: u64,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    handled: AtomicU64,
    reported: AtomicU64,
    started: Instant,
    heard_ms: AtomicU64,
    /// Rung when the peer should hear soon how much was handled.
    pub(crate) report: Notify,
    blobs: Mutex<BlobQueue>,
    blobs_queued_max: usize,
    /// Rung when a blob waits.
    pub(crate) blob_waits: Notify,
    gone: watch::Sender<Option<String>>,
}

impl Peer {
    pub(crate) fn new(
        info: PeerInfo,
        control: Connection,
        bulk: Connection,
        token: Token,
        their_token: Token,
        options: &MeshOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            info,
            control,
            bulk,
            token,
            their_token,
            inbox: OnceLock::new(),
            unhandled_bytes_max: options.unhandled_bytes_max,
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            handled: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            started: Instant::now(),
            heard_ms: AtomicU64::new(0),
            report: Notify::new(),
            blobs: Mutex::default(),
            blobs_queued_max: options.blobs_queued_max,
            blob_waits: Notify::new(),
            gone: watch::Sender::new(None),
        })
    }

    /// The peer's inbox, once its session is ready.
    pub(crate) fn set_inbox(&self, inbox: ActorRef<InboxMsg>) {
        let _ = self.inbox.set(inbox);
    }

    pub(crate) fn cast(&self, wire: Wire) -> Result<(), CastError> {
        self.knows(&wire)?;
        let as_blob = |wire: &Wire| {
            matches!(wire, Wire::Adapter { .. } | Wire::AdapterDraft { .. } | Wire::Batch { .. })
        };
        if as_blob(&wire) {
            return self.queue(Outgoing::new(wire, None));
        }
        let bytes = self.packet(Some(&wire))?;
        if bytes.len() > FRAME_BYTES_MAX {
            return self.queue(Outgoing::new(wire, None));
        }
        let len = bytes.len() as u64;
        let unhandled = self.sent.fetch_add(len, Ordering::AcqRel) + len;
        let unhandled = unhandled.saturating_sub(self.acknowledged.load(Ordering::Acquire));
        if unhandled > self.unhandled_bytes_max {
            self.sent.fetch_sub(len, Ordering::AcqRel);
            return Err(CastError::Congested(self.info.name.clone()));
        }
        self.post(bytes).inspect_err(|_| {
            self.sent.fetch_sub(len, Ordering::AcqRel);
        })
    }

    /// Tells the peer that this node lives and how much it has handled.
    pub(crate) fn pulse(&self) -> Result<(), CastError> {
        let bytes = self.packet(None)?;
        self.post(bytes)
    }

    /// Whether the peer's protocol has this message.
    fn knows(&self, wire: &Wire) -> Result<(), CastError> {
        match wire.since() <= self.control.protocol {
            true => Ok(()),
            false => Err(CastError::TooOld(self.info.name.clone())),
        }
    }

    pub(crate) async fn deliver(&self, wire: Wire) -> Result<(), DeliverError> {
        self.knows(&wire)?;
        let (done, outcome) = oneshot::channel();
        self.queue(Outgoing::new(wire, Some(done)))?;
        let lost = || Err(BlobError::Broken("the connection was lost".into()));
        outcome
            .await
            .unwrap_or_else(|_| lost())
            .map_err(|source| DeliverError::Blob { to: self.info.name.clone(), source })
    }

    pub(crate) fn cast_adapter(
        &self,
        manifest: AdapterManifest,
        payload: Bytes,
    ) -> Result<(), CastError> {
        self.queue(Outgoing::adapter(manifest, payload))
    }

    fn packet(&self, message: Option<&Wire>) -> Result<Vec<u8>, CastError> {
        let handled = self.handled.load(Ordering::Acquire);
        self.reported.store(handled, Ordering::Release);
        let packet = Packet { token: self.their_token, handled, message };
        encode_as(self.control.protocol, &packet)
            .map_err(|error| CastError::Encode(error.to_string()))
    }

    fn post(&self, bytes: Vec<u8>) -> Result<(), CastError> {
        let not_connected = || CastError::NotConnected(self.info.name.clone());
        let inbox = self.inbox.get().ok_or_else(not_connected)?;
        inbox.cast(InboxMsg::Frame(bytes)).map_err(|_| not_connected())
    }

    fn queue(&self, blob: Outgoing) -> Result<(), CastError> {
        if self.gone.borrow().is_some() {
            return Err(CastError::NotConnected(self.info.name.clone()));
        }
        if !lock(&self.blobs).put(blob, self.blobs_queued_max) {
            return Err(CastError::Congested(self.info.name.clone()));
        }
        self.blob_waits.notify_one();
        Ok(())
    }

    pub(crate) fn next_blob(&self) -> Option<Outgoing> {
        let mut blobs = lock(&self.blobs);
        let next = blobs.take();
        if !blobs.is_empty() {
            self.blob_waits.notify_one();
        }
        next
    }

    /// A blob was sent, or could not be.
    pub(crate) fn blob_over(&self, blob: &Outgoing) {
        lock(&self.blobs).over(blob);
    }

    /// A message of the peer came in: it lives, and has handled this much of ours.
    pub(crate) fn heard(&self, handled: u64) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.fetch_max(now_ms, Ordering::AcqRel);
        // Never more than was sent: a peer cannot buy itself room.
        let sent = self.sent.load(Ordering::Acquire);
        self.acknowledged.fetch_max(handled.min(sent), Ordering::AcqRel);
    }

    /// How long ago the peer's application was last heard.
    pub(crate) fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Acquire));
        self.started.elapsed().saturating_sub(heard)
    }

    /// A message of the peer of that many bytes was handled.
    pub(crate) fn handled(&self, len: u64) {
        let handled = self.handled.fetch_add(len, Ordering::AcqRel) + len;
        let unreported = handled.saturating_sub(self.reported.load(Ordering::Acquire));
        if unreported > self.unhandled_bytes_max / 4 {
            self.report.notify_one();
        }
    }

    /// Ends this peer: its tasks stop, its connections close. The first reason stays.
    pub(crate) fn end(&self, reason: &str) {
        self.gone.send_if_modified(|gone| {
            let first = gone.is_none();
            gone.get_or_insert_with(|| reason.to_owned());
            first
        });
        self.control.close(reason);
        self.bulk.close(reason);
        lock(&self.blobs).clear();
    }

    /// Resolves when the peer has ended, to the reason.
    pub(crate) async fn ended(&self) -> String {
        let mut gone = self.gone.subscribe();
        match gone.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "dropped".into(),
        }
    }
}

type Watcher = Box<dyn Fn(MeshEvent) -> bool + Send + Sync>;

#[derive(Default)]
struct Table {
    /// Who has a name: it was admitted, and may not be ready yet.
    names: HashMap<NodeName, Arc<Peer>>,
    /// Those of them that can be reached.
    peers: HashMap<NodeName, Arc<Peer>>,
    tokens: HashMap<Token, Arc<Peer>>,
    watchers: Vec<Watcher>,
}

/// What all tasks of a mesh share.
pub(crate) struct Shared {
    pub(crate) options: MeshOptions,
    pub(crate) roles: Vec<NodeRole>,
    pub(crate) endpoint: Endpoint,
    pub(crate) router: Router,
    pub(crate) board: StatusBoard,
    pub(crate) weights: Weights,
    /// What had come of blobs whose connection broke.
    pub(crate) partials: Partials,
    pub(crate) events: broadcast::Sender<MeshEvent>,
    /// Places of viewers.
    pub(crate) viewers: Semaphore,
    /// Bytes that were sent to them.
    pub(crate) viewer_bytes: AtomicU64,
    /// Orders and traces of people's tools that are under way.
    pub(crate) desk: Desk,
    /// Bulk connections that a greeted peer was told to open, by the token it was given.
    pub(crate) awaited: Mutex<HashMap<Token, (NodeName, oneshot::Sender<Connection>)>>,
    pub(crate) sessions: ActorRef<NodeServerMessage>,
    pub(crate) session_states: session::States,
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) renewal: Renewal,
    inbox: OnceLock<ActorRef<InboxMsg>>,
    /// Why peers that are dialled were not reached the last time.
    unreached: Mutex<BTreeMap<NodeName, String>>,
    table: Mutex<Table>,
    stopping: watch::Sender<bool>,
}

impl Shared {
    pub(crate) async fn start(
        options: MeshOptions,
        roles: Vec<NodeRole>,
        endpoint: Endpoint,
        router: Router,
        board: StatusBoard,
    ) -> Result<Arc<Self>, MeshError> {
        let failed = |error: &dyn std::fmt::Display| MeshError::Start(error.to_string());
        let session_states = session::States::default();
        // Sessions live on the network thread: their handshakes have short deadlines of their own.
        let watched = options.probes.carrying("sessions", "Sessions");
        let spawning = endpoint.net().handle().spawn(session::spawn(
            options.name.clone(),
            session_states.clone(),
            watched,
        ));
        let sessions = spawning.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        let weights = Weights::new(options.name.clone(), endpoint.clone(), options.source_patience);
        let desk = Desk::new(OrderLog::new(run_of(&options)), options.incarnation);
        let shared = Arc::new(Self {
            options,
            roles,
            endpoint,
            router,
            board,
            weights,
            partials: Partials::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
            viewers: Semaphore::new(operator::VIEWERS_MAX),
            viewer_bytes: AtomicU64::new(0),
            desk,
            awaited: Mutex::default(),
            sessions,
            session_states,
            doorkeeper: Doorkeeper::default(),
            renewal: Renewal::default(),
            inbox: OnceLock::new(),
            unreached: Mutex::default(),
            table: Mutex::default(),
            stopping: watch::Sender::new(false),
        });
        // The inbox lives on the node's own runtime: a node whose runtime hangs must fall silent.
        let inbox = inbox::spawn(&shared).await.map_err(|e| failed(&e))?;
        let _ = shared.inbox.set(inbox);
        Ok(shared)
    }

    /// The folder of the run this node is of.
    pub(crate) fn run(&self) -> RunDir {
        run_of(&self.options)
    }

    /// Sends a message and does not wait. To this node itself it is routed at once.
    pub(crate) fn cast(&self, to: &NodeName, wire: Wire) -> Result<(), CastError> {
        if *to == self.options.name {
            return self.to_self(wire);
        }
        let peer = self.peer(to).ok_or_else(|| CastError::NotConnected(to.clone()))?;
        peer.cast(wire)
    }

    pub(crate) fn to_self(&self, wire: Wire) -> Result<(), CastError> {
        let inbound = Inbound {
            from: self.options.name.clone(),
            roles: self.roles.clone(),
            wire,
            receipt: Receipt::none(),
        };
        match self.router.route(inbound) {
            Routed::Delivered(_) | Routed::Held => Ok(()),
            Routed::Refused | Routed::Unrouted => Err(CastError::Unrouted),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    pub(crate) fn peer(&self, name: &NodeName) -> Option<Arc<Peer>> {
        self.table().peers.get(name).cloned()
    }

    pub(crate) fn by_token(&self, token: &Token) -> Option<Arc<Peer>> {
        self.table().tokens.get(token).cloned()
    }

    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        self.table().peers.values().cloned().collect()
    }

    pub(crate) fn peer_infos(&self) -> Vec<PeerInfo> {
        let mut infos: Vec<_> = self.table().peers.values().map(|p| p.info.clone()).collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    /// Whoever has a name, ready or not.
    pub(crate) fn holder(&self, name: &NodeName) -> Option<Arc<Peer>> {
        self.table().names.get(name).cloned()
    }

    /// Gives the peer its name and lets the inbox know it; done before its session opens. Ends the one that
    /// had the name and was found `dead`.
    ///
    /// # Errors
    /// Who has the name, if that is another.
    pub(crate) fn admit(
        &self,
        peer: &Arc<Peer>,
        dead: Option<&Arc<Peer>>,
    ) -> Result<(), Arc<Peer>> {
        let mut table = self.table();
        let name = &peer.info.name;
        if let Some(held) = table.names.get(name).cloned() {
            if dead.is_none_or(|dead| !Arc::ptr_eq(dead, &held)) {
                return Err(held);
            }
            let reason = "a newer connection took its place";
            held.end(reason);
            self.forget(&mut table, &held, reason);
        }
        table.names.insert(name.clone(), Arc::clone(peer));
        table.tokens.insert(peer.token, Arc::clone(peer));
        Ok(())
    }

    /// A dialled peer was not reached.
    pub(crate) fn missed(&self, name: &NodeName, why: &str) {
        lock(&self.unreached).insert(name.clone(), why.to_owned());
    }

    pub(crate) fn unreached(&self) -> Vec<(NodeName, String)> {
        lock(&self.unreached).iter().map(|(name, why)| (name.clone(), why.clone())).collect()
    }

    /// The peer can be reached. `false` where it was ended meanwhile: its name is another's.
    pub(crate) fn install(&self, peer: &Arc<Peer>) -> bool {
        let mut table = self.table();
        let PeerInfo { name, roles, incarnation } = peer.info.clone();
        if table.names.get(&name).is_none_or(|held| !Arc::ptr_eq(held, peer)) {
            return false;
        }
        lock(&self.unreached).remove(&name);
        table.peers.insert(name.clone(), Arc::clone(peer));
        self.emit(&mut table, MeshEvent::PeerUp { name, roles, incarnation });
        true
    }

    /// The peer is lost, if it was not replaced already.
    pub(crate) fn remove(&self, peer: &Arc<Peer>, reason: &str) {
        peer.end(reason);
        self.forget(&mut self.table(), peer, reason);
    }

    fn forget(&self, table: &mut Table, peer: &Arc<Peer>, reason: &str) {
        table.tokens.remove(&peer.token);
        let name = &peer.info.name;
        let is_it = |held: Option<&Arc<Peer>>| held.is_some_and(|held| Arc::ptr_eq(held, peer));
        if is_it(table.names.get(name)) {
            table.names.remove(name);
        }
        if is_it(table.peers.get(name)) {
            table.peers.remove(name);
            let event = MeshEvent::PeerDown { name: name.clone(), reason: reason.into() };
            self.emit(table, event);
        }
    }

    pub(crate) fn watch(&self, watcher: Watcher) {
        let mut table = self.table();
        for peer in table.peers.values() {
            let PeerInfo { name, roles, incarnation } = peer.info.clone();
            if !watcher(MeshEvent::PeerUp { name, roles, incarnation }) {
                return;
            }
        }
        table.watchers.push(watcher);
    }

    /// Under the table's lock, so that everyone sees events in the order they happened.
    fn emit(&self, table: &mut Table, event: MeshEvent) {
        match &event {
            MeshEvent::PeerUp { name, incarnation, .. } => {
                tracing::info!(peer = %name, incarnation, "peer up");
            }
            MeshEvent::PeerDown { name, reason } => {
                tracing::info!(peer = %name, reason, "peer down");
            }
        }
        table.watchers.retain(|watcher| watcher(event.clone()));
        // No receiver is no error: events() may never have been called.
        let _ = self.events.send(event);
    }

    /// Resolves when this node leaves.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        let _ = stopping.wait_for(|stop| *stop).await;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    pub(crate) async fn stop(&self, reason: &str) {
        self.stopping.send_replace(true);
        let peers: Vec<_> = self.table().tokens.values().cloned().collect();
        for peer in peers {
            peer.end(reason);
        }
        self.endpoint.close(reason).await;
        self.sessions.stop(None);
        if let Some(inbox) = self.inbox.get() {
            inbox.stop(None);
        }
    }

    /// Follows the session with this label.
    pub(crate) fn follow(&self, label: &str) -> watch::Receiver<SessionState> {
        let (sender, receiver) = watch::channel(SessionState::Opening);
        lock(&self.session_states).insert(label.to_owned(), sender);
        receiver
    }
}

/// Certificates lie in the run's folder.
fn run_of(options: &MeshOptions) -> RunDir {
    let beside = || RunDir::new(options.tls.parent().unwrap_or(&options.tls));
    options.signs.clone().unwrap_or_else(beside)
}

/// A poisoned lock guards plain data that is valid between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
