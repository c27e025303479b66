//! Gives chunks to whoever may have them. A chunk that is itself still on its way here is waited
//! for, so that a relay passes an adapter on while it is coming in.

use std::time::Duration;

use crrl_control::wire::NodeRole;
use crrl_transport::{Connection, decode, encode_as, read_frame, write_frame};
use crrl_types::Digest;
use quinn::{RecvStream, SendStream, VarInt};

use super::{Answer, REQUEST_BYTES_MAX, Request, Weights};
use crate::join::next_stream;
use crate::mesh::roles_of;

/// A request must have come by then.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// How long a payload nobody here has heard of is waited for: the offer that names it may come a
/// moment later than the one who asks.
const KNOWN_WAIT: Duration = Duration::from_secs(2);
/// How long the next chunk is waited for. Whoever asked has long gone elsewhere by then.
const CHUNK_WAIT: Duration = Duration::from_secs(5);
/// A receiver that accepts no byte for this long is hung.
const STALL: Duration = Duration::from_secs(10);

/// Answers a peer until it leaves.
pub(crate) async fn serve(weights: &Weights, connection: &Connection) {
    let roles = roles_of(&connection.peer.roles);
    let revocations = weights.0.endpoint.revocations();
    while let Some((send, recv)) = next_stream(connection, revocations).await {
        let (weights, roles, protocol) = (weights.clone(), roles.clone(), connection.protocol);
        let peer = connection.peer.name.clone();
        // QUIC bounds the streams a peer may have open.
        tokio::spawn(async move {
            if let Err(error) = answer(&weights, (&roles, protocol), send, recv).await {
                tracing::debug!(%peer, error, "a request for chunks ended early");
            }
        });
    }
}

async fn answer(
    weights: &Weights,
    (roles, protocol): (&[NodeRole], u8),
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), String> {
    let request = tokio::time::timeout(REQUEST_WAIT, read_frame(&mut recv, REQUEST_BYTES_MAX))
        .await
        .map_err(|_| "no request came".to_owned())?
        .map_err(text)?;
    let allowed: &[NodeRole] = match decode(&request) {
        Ok(Request::Fetch { .. }) => &[NodeRole::Rollout, NodeRole::Operator],
        Ok(Request::Follow) => &[NodeRole::Operator],
        Err(_) => &[],
    };
    match decode(&request).map_err(text) {
        Ok(_) if !roles.iter().any(|role| allowed.contains(role)) => {
            let reason = format!("a certificate for {roles:?} does not allow it");
            say(protocol, &mut send, &Answer::Refused(reason)).await?;
        }
        Ok(Request::Fetch { digest, ranges }) => {
            chunks(weights, protocol, &mut send, digest, &ranges).await?;
        }
        Ok(Request::Follow) => follow(weights, protocol, &mut send).await?,
        Err(error) => say(protocol, &mut send, &Answer::Refused(error)).await?,
    }
    let _ = send.finish();
    Ok(())
}

async fn chunks(
    weights: &Weights,
    protocol: u8,
    send: &mut SendStream,
    digest: Digest,
    ranges: &[(u32, u32)],
) -> Result<(), String> {
    let depot = weights.depot();
    let Some(count) = depot.known(digest, KNOWN_WAIT).await else {
        return say(protocol, send, &Answer::Unknown).await;
    };
    if ranges.iter().any(|(first, end)| first >= end || *end as usize > count) {
        return say(protocol, send, &Answer::Refused("there are no such chunks".into())).await;
    }
    say(protocol, send, &Answer::Coming).await?;
    depot.answers();
    let mut first_of_all = true;
    for index in ranges.iter().flat_map(|(first, end)| *first..*end) {
        let Some(chunk) = depot.chunk(digest, index as usize, CHUNK_WAIT).await else {
            let _ = send.reset(VarInt::from_u32(1));
            return Err(format!("chunk {index} did not come in time"));
        };
        // One bit of an adapter is damaged, as on a bad line, and not one of every chunk.
        let faults = weights.0.endpoint.faults();
        let chunk = if first_of_all { faults.adapter(chunk) } else { chunk };
        first_of_all = false;
        let bytes = chunk.len() as u64;
        weights.pace(chunk.len()).await;
        tokio::time::timeout(STALL, send.write_chunk(chunk))
            .await
            .map_err(|_| "the receiver takes nothing".to_owned())?
            .map_err(text)?;
        depot.gave(digest, bytes);
    }
    Ok(())
}

/// What is published, now and whenever that changes, until the receiver leaves.
async fn follow(weights: &Weights, protocol: u8, send: &mut SendStream) -> Result<(), String> {
    say(protocol, send, &Answer::Coming).await?;
    let mut announced = weights.depot().announced();
    loop {
        let offer = announced.borrow_and_update().clone();
        if let Some(offer) = offer {
            say(protocol, send, &*offer).await?;
        }
        tokio::select! {
            changed = announced.changed() => changed.map_err(text)?,
            stopped = send.stopped() => return stopped.map(|_| ()).map_err(text),
        }
    }
}

async fn say<T: serde::Serialize>(
    protocol: u8,
    send: &mut SendStream,
    what: &T,
) -> Result<(), String> {
    let frame = encode_as(protocol, what).map_err(text)?;
    tokio::time::timeout(STALL, write_frame(send, &frame))
        .await
        .map_err(|_| "the receiver takes nothing".to_owned())?
        .map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
