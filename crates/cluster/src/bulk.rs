//! Blobs to and from peers: adapters, batches, and whatever does not fit a control frame.
//!
//! An adapter's bytes travel as they are; its manifest is the blob's head.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crrl_control::wire::Wire;
use crrl_transport::{
    BlobError, BlobReceipt, DecodeError, EncodeError, ReceivedBlob, decode, encode_as,
    receive_blob, send_blob,
};
use crrl_types::{AdapterManifest, AdapterVersion, Digest};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::peer::{Peer, Shared};
use crate::router::{Inbound, Receipt, Router, kind};

/// Numbers blobs in logs and on the wire.
static BLOB_IDS: AtomicU64 = AtomicU64::new(1);

/// What a blob's body is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Head {
    /// An encoded message.
    Message,
    /// The safetensors bytes of an adapter.
    Adapter(AdapterManifest),
    /// The same, while the learner's checkpoint of it is not on disk yet.
    Draft(AdapterManifest),
}

enum Content {
    Message(Wire),
    Adapter { manifest: AdapterManifest, payload: Bytes, draft: bool },
}

/// A blob on its way to a peer.
pub(crate) struct Outgoing {
    content: Content,
    done: Option<oneshot::Sender<Result<(), BlobError>>>,
}

impl Outgoing {
    pub(crate) fn new(wire: Wire, done: Option<oneshot::Sender<Result<(), BlobError>>>) -> Self {
        let content = match wire {
            Wire::Adapter { manifest, payload } => {
                Content::Adapter { manifest, payload: payload.into(), draft: false }
            }
            Wire::AdapterDraft { manifest, payload } => {
                Content::Adapter { manifest, payload: payload.into(), draft: true }
            }
            other => Content::Message(other),
        };
        Self { content, done }
    }

    pub(crate) fn adapter(manifest: AdapterManifest, payload: Bytes) -> Self {
        Self { content: Content::Adapter { manifest, payload, draft: false }, done: None }
    }

    fn is_adapter(&self) -> bool {
        matches!(self.content, Content::Adapter { .. })
    }

    /// Which adapter it is, as a draft or not: the bytes are the same.
    fn adapter_id(&self) -> Option<AdapterId> {
        match &self.content {
            Content::Adapter { manifest, .. } => Some((manifest.version, manifest.digest)),
            Content::Message(_) => None,
        }
    }

    fn is_awaited(&self) -> bool {
        self.done.is_some()
    }

    /// Head, hash and content. An adapter's hash is its manifest's: were the two apart, the
    /// receiver would refuse it.
    fn encoded(&self, protocol: u8) -> Result<(Vec<u8>, Digest, Bytes), EncodeError> {
        let head = |head: &Head| encode_as(protocol, head);
        match &self.content {
            Content::Message(wire) => {
                let body = Bytes::from(encode_as(protocol, wire)?);
                Ok((head(&Head::Message)?, Digest::of(&body), body))
            }
            Content::Adapter { manifest, payload, draft } => {
                let of = if *draft { Head::Draft } else { Head::Adapter };
                Ok((head(&of(manifest.clone()))?, manifest.digest, payload.clone()))
            }
        }
    }

    fn what(&self) -> String {
        match &self.content {
            Content::Message(wire) => kind(wire),
            Content::Adapter { manifest, .. } => format!("adapter {}", manifest.version),
        }
    }
}

type AdapterId = (AdapterVersion, Digest);

/// Blobs for one peer: those that wait, and the adapters that are on their way.
#[derive(Default)]
pub(crate) struct BlobQueue {
    waiting: VecDeque<Outgoing>,
    /// Of each copy that is being sent.
    under_way: Vec<AdapterId>,
}

impl BlobQueue {
    /// Lets a blob wait; false where there is no room for it. An adapter takes the place of those that wait.
    /// One that is on its way is not sent a second time beside itself, unless somebody waits for that very
    /// copy: it is offered again until it is answered, and a large one takes longer than that.
    pub(crate) fn put(&mut self, blob: Outgoing, waiting_max: usize) -> bool {
        if let Some(adapter) = blob.adapter_id() {
            self.waiting.retain(|waiting| !waiting.is_adapter() || waiting.is_awaited());
            if self.under_way.contains(&adapter) && !blob.is_awaited() {
                return true;
            }
        }
        if self.waiting.len() >= waiting_max {
            return false;
        }
        self.waiting.push_back(blob);
        true
    }

    /// The next to send. Once it has arrived, or has not, it is [`BlobQueue::over`].
    pub(crate) fn take(&mut self) -> Option<Outgoing> {
        let next = self.waiting.pop_front()?;
        self.under_way.extend(next.adapter_id());
        Some(next)
    }

    /// A blob that was taken is on its way no more.
    pub(crate) fn over(&mut self, blob: &Outgoing) {
        let sent = blob.adapter_id();
        if let Some(at) = self.under_way.iter().position(|adapter| Some(*adapter) == sent) {
            self.under_way.swap_remove(at);
        }
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets those that wait.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }
}

/// Sends what waits for a peer, one blob after the other, until the peer has ended. Several of
/// these run for one peer: a blob that takes long to handle does not hold the others up.
pub(crate) async fn send_to(shared: Arc<Shared>, peer: Arc<Peer>) {
    loop {
        let Some(blob) = peer.next_blob() else {
            tokio::select! {
                () = peer.blob_waits.notified() => continue,
                _ = peer.ended() => return,
            }
        };
        let outcome = send(&shared, &peer, &blob).await;
        peer.blob_over(&blob);
        if let Err(error) = &outcome {
            tracing::warn!(peer = %peer.info.name, blob = blob.what(), %error, "not delivered");
        }
        if let Some(done) = blob.done {
            let _ = done.send(outcome);
        }
    }
}

async fn send(shared: &Shared, peer: &Peer, blob: &Outgoing) -> Result<(), BlobError> {
    let (head, digest, body) = blob
        .encoded(peer.control.protocol)
        .map_err(|error| BlobError::Broken(error.to_string()))?;
    let body = if blob.is_adapter() { shared.endpoint.faults().adapter(body) } else { body };
    let id = BLOB_IDS.fetch_add(1, Ordering::Relaxed);
    send_blob(&peer.bulk, shared.endpoint.options(), id, &head, digest, &body).await
}

/// Takes the blobs of a peer until it has ended. QUIC lets a peer open only so many streams.
pub(crate) async fn receive_from(shared: Arc<Shared>, peer: Arc<Peer>) {
    loop {
        let stream = tokio::select! {
            stream = peer.bulk.quic.accept_bi() => stream,
            _ = peer.ended() => return,
        };
        let Ok(stream) = stream else { return };
        let (shared, peer) = (Arc::clone(&shared), Arc::clone(&peer));
        tokio::spawn(async move {
            let options = shared.endpoint.options().clone();
            let judge = |head: &[u8], len: u64| judge(&peer, head, len);
            match receive_blob(stream, peer.bulk.protocol, &options, &shared.partials, judge).await
            {
                Ok(blob) => handle(&shared, &peer, blob, options.blob_ack_timeout).await,
                Err(error) => {
                    tracing::warn!(peer = %peer.info.name, %error, "a blob was not received");
                }
            }
        });
    }
}

/// Whether the peer may send a blob, as far as its head tells.
fn judge(peer: &Peer, head: &[u8], length: u64) -> Result<(), String> {
    match decode(head).map_err(|error: DecodeError| error.to_string())? {
        Head::Message => Ok(()),
        Head::Adapter(manifest) | Head::Draft(manifest) if manifest.bytes != length => {
            Err(format!("the manifest says {} bytes, the blob has {length}", manifest.bytes))
        }
        // Who may send the one may send the other.
        Head::Adapter(manifest) | Head::Draft(manifest) => {
            let wire = Wire::Adapter { manifest, payload: Vec::new() };
            let allowed = Router::allows(&wire, &peer.info.roles);
            if allowed { Ok(()) } else { Err("this peer may not send adapters".into()) }
        }
    }
}

async fn handle(shared: &Shared, peer: &Peer, blob: ReceivedBlob, deadline: std::time::Duration) {
    let ReceivedBlob { head, body, digest, receipt, resumed, .. } = blob;
    if resumed > 0 {
        let (peer, bytes) = (&peer.info.name, body.len());
        tracing::info!(%peer, resumed, bytes, "a blob went on where its connection had broken");
    }
    let wire = match message(&head, digest, &body) {
        Ok(wire) => wire,
        Err(reason) => return answer(receipt, Err(reason)).await,
    };
    drop(body);
    let (said, outcome) = oneshot::channel();
    shared.router.route(Inbound {
        from: peer.info.name.clone(),
        roles: peer.info.roles.clone(),
        wire,
        receipt: Receipt::new(move |outcome| {
            let _ = said.send(outcome);
        }),
    });
    let outcome = tokio::time::timeout(deadline, outcome).await;
    let outcome = outcome.map_or_else(
        |_| Err("it was not handled in time".into()),
        |said| said.unwrap_or_else(|_| Err("its receiver is gone".into())),
    );
    answer(receipt, outcome).await;
}

fn message(head: &[u8], digest: Digest, body: &Bytes) -> Result<Wire, String> {
    match decode(head).map_err(|error| error.to_string())? {
        Head::Message => decode(body).map_err(|error| error.to_string()),
        Head::Adapter(manifest) | Head::Draft(manifest) if manifest.digest != digest => {
            Err("the adapter does not match its manifest".into())
        }
        Head::Adapter(manifest) => Ok(Wire::Adapter { manifest, payload: body.to_vec() }),
        Head::Draft(manifest) => Ok(Wire::AdapterDraft { manifest, payload: body.to_vec() }),
    }
}

async fn answer(receipt: BlobReceipt, outcome: Result<(), String>) {
    let answered = match outcome {
        Ok(()) => receipt.accept().await,
        Err(reason) => receipt.refuse(&reason).await,
    };
    if let Err(error) = answered {
        tracing::debug!(%error, "a blob was handled, but its sender is gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 2;

    fn adapter(version: u64, draft: bool) -> Outgoing {
        let payload = vec![7; 16];
        let manifest = AdapterManifest {
            version: AdapterVersion(version),
            digest: Digest::of(&payload),
            base_digest: Digest::default(),
            bytes: payload.len() as u64,
            rank: 1,
            alpha_milli: 1000,
            tensors: Vec::new(),
            finite: true,
        };
        let wire = match draft {
            true => Wire::AdapterDraft { manifest, payload },
            false => Wire::Adapter { manifest, payload },
        };
        Outgoing::new(wire, None)
    }

    fn version(blob: Option<Outgoing>) -> Option<u64> {
        Some(blob?.adapter_id()?.0.0)
    }

    #[test]
    fn an_adapter_on_its_way_is_not_sent_a_second_time_beside_itself() {
        let mut queue = BlobQueue::default();
        assert!(queue.put(adapter(1, true), ROOM));
        let sending = queue.take().expect("it waits");
        // Offered again while it travels, as a draft or not.
        for draft in [true, false, false] {
            assert!(queue.put(adapter(1, draft), ROOM), "the sender is told to try again");
            assert!(queue.is_empty(), "a second copy shares the link");
        }
        // Another version is another adapter, though its bytes are the same.
        assert!(queue.put(adapter(2, false), ROOM));
        assert_eq!(version(queue.take()), Some(2));
        // Whoever waits for a copy of its own gets one.
        let (done, _outcome) = oneshot::channel();
        assert!(queue.put(Outgoing { done: Some(done), ..adapter(1, false) }, ROOM));
        assert_eq!(version(queue.take()), Some(1));
        // It has not arrived: offered once more, it is sent once more.
        queue.over(&sending);
        queue.over(&sending);
        assert!(queue.put(adapter(1, false), ROOM));
        assert_eq!(version(queue.take()), Some(1));
    }

    #[test]
    fn only_the_newest_adapter_waits_and_a_full_queue_says_so() {
        let mut queue = BlobQueue::default();
        let message = || Outgoing::new(Wire::JoinWanted, None);
        assert!(queue.put(message(), ROOM) && queue.put(adapter(1, false), ROOM));
        assert!(!queue.put(message(), ROOM), "there is no room");
        assert!(queue.put(adapter(2, false), ROOM));
        assert_eq!(version(queue.take()), None);
        assert_eq!(version(queue.take()), Some(2));
        assert!(queue.take().is_none() && queue.is_empty());
    }
}
