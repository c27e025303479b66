//! Blobs to and from peers: adapters, batches, and whatever does not fit a control frame.
//!
//! An adapter's bytes travel as they are; its manifest is the blob's head.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crrl_control::wire::Wire;
use crrl_transport::{
    BlobError, BlobReceipt, DecodeError, EncodeError, ReceivedBlob, decode, encode_as,
    receive_blob, send_blob,
};
use crrl_types::{AdapterManifest, Digest};
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

    pub(crate) fn is_adapter(&self) -> bool {
        matches!(self.content, Content::Adapter { .. })
    }

    pub(crate) fn is_awaited(&self) -> bool {
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
