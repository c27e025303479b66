//! One large thing on one stream of a bulk connection.
//!
//! ```text
//! sender                                receiver
//!   header {id, head, length, hash} ->
//!                                   <-  how many bytes are there already, of a long one
//!   the others, paced               ->  hashed as they come
//!                                   <-  verdict, once the receiver has handled it
//! ```
//!
//! The receiver keeps nothing of a blob whose hash is wrong, and says so; the sender sends it again.
//! What has come of a blob whose connection broke stays for the next attempt ([`Partials`]).

use std::time::{Duration, Instant};

use bytes::Bytes;
use crrl_types::Digest;
use quinn::{RecvStream, SendStream, VarInt};
use serde::{Deserialize, Serialize};

use crate::codec::{decode_since, encode_as};
use crate::endpoint::Connection;
use crate::frame::{FrameError, read_frame, write_frame};
use crate::options::Options;
use crate::pacing::Pacing;
use crate::partials::{Partial, Partials};

/// Bytes handed to QUIC at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Longest header: the head is an encoded manifest, some hundred tensors.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// Longest verdict.
const VERDICT_BYTES_MAX: usize = 4096;
/// Longest reason inside a verdict.
const REASON_CHARS_MAX: usize = 500;
/// How often a blob is sent before it is given up as corrupt.
const ATTEMPTS_MAX: u32 = 3;
/// A receiver that accepts no byte for this long is hung.
const STALL: Duration = Duration::from_secs(10);
/// The oldest version that what goes with a blob may be marked with: builds that speak version 3 mark it
/// with 2. Neither has changed since but for what was appended.
const MARK_OLDEST: u8 = 2;
/// Of a blob from this size on the receiver is asked what it has of it already. A shorter one is sent
/// in about the time the question takes.
const ASK_BYTES_MIN: usize = 2 << 20;
/// The version of the protocol since which that can be asked.
const ASK_SINCE: u8 = 4;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    id: u64,
    head: Vec<u8>,
    length: u64,
    digest: Digest,
}

impl Header {
    /// Whether the sender waits for [`Verdict::From`]; both ends know it by the length.
    fn asks(&self, protocol: u8) -> bool {
        protocol >= ASK_SINCE && self.length >= ASK_BYTES_MIN as u64
    }
}

/// What the receiver says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Verdict {
    Handled,
    Corrupt,
    Refused(String),
    /// Not yet the verdict: so many bytes are here, go on from there.
    From(u64),
}

/// A blob that was not delivered, or not received.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Larger than [`Options::blob_bytes_max`].
    #[error("a blob of {len} bytes where {max} are allowed")]
    TooLarge {
        /// Its length.
        len: u64,
        /// What is allowed.
        max: u64,
    },
    /// Its hash was wrong at the receiver.
    #[error("the content did not match its hash")]
    Corrupt,
    /// The receiver did not want it.
    #[error("refused: {0}")]
    Refused(String),
    /// The receiver took no byte, or gave no verdict, for too long.
    #[error("no progress for {} ms", .0.as_millis())]
    Stalled(Duration),
    /// The connection or the protocol broke.
    #[error("{0}")]
    Broken(String),
}

impl From<FrameError> for BlobError {
    fn from(error: FrameError) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Sends a blob and waits until its receiver has handled it. `head` says what it is; `digest` is the
/// content's hash.
///
/// # Errors
/// [`BlobError`]; a corrupt transfer is tried three times before it is one.
pub async fn send_blob(
    connection: &Connection,
    options: &Options,
    id: u64,
    head: &[u8],
    digest: Digest,
    body: &Bytes,
) -> Result<(), BlobError> {
    let len = body.len() as u64;
    if len > options.blob_bytes_max {
        return Err(BlobError::TooLarge { len, max: options.blob_bytes_max });
    }
    let mut outcome = Err(BlobError::Corrupt);
    for _ in 0..ATTEMPTS_MAX {
        outcome = attempt(connection, options, id, head, digest, body).await;
        if !matches!(outcome, Err(BlobError::Corrupt)) {
            break;
        }
    }
    outcome
}

async fn attempt(
    connection: &Connection,
    options: &Options,
    id: u64,
    head: &[u8],
    digest: Digest,
    body: &Bytes,
) -> Result<(), BlobError> {
    let broken = |error: &dyn std::fmt::Display| BlobError::Broken(error.to_string());
    let opened = tokio::time::timeout(options.blob_ack_timeout, connection.quic.open_bi()).await;
    let (mut send, mut recv) = opened
        .map_err(|_| BlobError::Stalled(options.blob_ack_timeout))?
        .map_err(|error| broken(&error))?;
    let header = Header { id, head: head.to_vec(), length: body.len() as u64, digest };
    let asks = header.asks(connection.protocol);
    let header = encode_as(connection.protocol, &header).map_err(|error| broken(&error))?;
    if header.len() > HEADER_BYTES_MAX {
        return Err(BlobError::TooLarge { len: header.len() as u64, max: HEADER_BYTES_MAX as u64 });
    }
    tokio::time::timeout(STALL, write_frame(&mut send, &header))
        .await
        .map_err(|_| BlobError::Stalled(STALL))??;
    let start = Instant::now();
    let mut pacing = Pacing::new(options.bulk_bytes_per_s, Duration::ZERO);
    let mut offset = 0;
    if asks {
        match verdict(&mut recv, options).await? {
            Verdict::From(there) => {
                // More than there is of it makes no sense; the verdict will say so.
                offset = usize::try_from(there).unwrap_or(usize::MAX).min(body.len());
            }
            verdict => return said(verdict),
        }
    }
    while offset < body.len() {
        let end = body.len().min(offset + CHUNK_BYTES);
        let wait = pacing.take(end - offset, start.elapsed());
        // A timer cannot wait for less than about a millisecond; shorter waits add up in the bucket.
        if wait >= Duration::from_millis(1) {
            tokio::time::sleep(wait).await;
        }
        match tokio::time::timeout(STALL, send.write_chunk(body.slice(offset..end))).await {
            Err(_) => return Err(BlobError::Stalled(STALL)),
            // The receiver has stopped reading: its verdict says why.
            Ok(Err(quinn::WriteError::Stopped(_))) => break,
            Ok(written) => written.map_err(|error| broken(&error))?,
        }
        offset = end;
    }
    let _ = send.finish();
    said(verdict(&mut recv, options).await?)
}

/// What the receiver says next.
async fn verdict(recv: &mut RecvStream, options: &Options) -> Result<Verdict, BlobError> {
    let wait = options.blob_ack_timeout;
    let verdict = tokio::time::timeout(wait, read_frame(recv, VERDICT_BYTES_MAX))
        .await
        .map_err(|_| BlobError::Stalled(wait))??;
    decode_since(MARK_OLDEST, &verdict).map_err(|error| BlobError::Broken(error.to_string()))
}

/// What a verdict comes to for the sender.
fn said(verdict: Verdict) -> Result<(), BlobError> {
    match verdict {
        Verdict::Handled => Ok(()),
        Verdict::Corrupt => Err(BlobError::Corrupt),
        Verdict::Refused(reason) => Err(BlobError::Refused(reason)),
        Verdict::From(_) => Err(BlobError::Broken("asked to go on after the end".to_owned())),
    }
}

/// A blob whose hash was right, and the duty to say what became of it.
#[derive(Debug)]
pub struct ReceivedBlob {
    /// The sender's number for it; the same when it is sent again.
    pub id: u64,
    /// What it is.
    pub head: Vec<u8>,
    /// Its content.
    pub body: Bytes,
    /// The content's hash, as it was computed here.
    pub digest: Digest,
    /// Bytes of it that an earlier attempt had brought.
    pub resumed: u64,
    /// Answers the sender.
    pub receipt: BlobReceipt,
}

/// Answers the sender of a blob.
#[derive(Debug)]
pub struct BlobReceipt {
    send: SendStream,
    protocol: u8,
}

impl BlobReceipt {
    /// Tells the sender that the blob was handled.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn accept(mut self) -> Result<(), BlobError> {
        answer(&mut self.send, self.protocol, Verdict::Handled).await
    }

    /// Tells the sender that the blob is not wanted, and why.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn refuse(mut self, reason: &str) -> Result<(), BlobError> {
        let reason = reason.chars().take(REASON_CHARS_MAX).collect();
        answer(&mut self.send, self.protocol, Verdict::Refused(reason)).await
    }
}

async fn say(send: &mut SendStream, protocol: u8, verdict: &Verdict) -> Result<(), BlobError> {
    let verdict =
        encode_as(protocol, verdict).map_err(|error| BlobError::Broken(error.to_string()))?;
    let written = tokio::time::timeout(STALL, write_frame(send, &verdict)).await;
    Ok(written.map_err(|_| BlobError::Stalled(STALL))??)
}

async fn answer(send: &mut SendStream, protocol: u8, verdict: Verdict) -> Result<(), BlobError> {
    say(send, protocol, &verdict).await?;
    let _ = send.finish();
    // Dropping a stream whose data was not acknowledged yet does not lose it: `finish` has closed it.
    Ok(())
}

/// Whether these bytes are a receiver's word on a blob; what can be read can be written and read again.
/// For tests that read whatever they like as one.
#[doc(hidden)]
#[must_use]
pub fn is_verdict(bytes: &[u8]) -> bool {
    let Ok(verdict) = decode_since::<Verdict>(MARK_OLDEST, bytes) else { return false };
    let written = encode_as(MARK_OLDEST, &verdict).expect("plain data");
    assert_eq!(decode_since::<Verdict>(MARK_OLDEST, &written), Ok(verdict));
    true
}

/// One of each word of a receiver. For the corpus of tests that read such.
#[doc(hidden)]
#[must_use]
pub fn verdicts() -> Vec<Vec<u8>> {
    let all = [Verdict::Handled, Verdict::Corrupt, Verdict::Refused("no".into()), Verdict::From(7)];
    all.iter().map(|verdict| encode_as(ASK_SINCE, verdict).expect("plain data")).collect()
}

/// What a header says: id, head, length and hash. For tests that read whatever they like as one.
///
/// # Errors
/// As [`decode`].
#[doc(hidden)]
pub fn read_header(bytes: &[u8]) -> Result<(u64, Vec<u8>, u64, Digest), crate::DecodeError> {
    let Header { id, head, length, digest } = decode_since(MARK_OLDEST, bytes)?;
    Ok((id, head, length, digest))
}

/// Reads a blob from a stream the peer has opened on a connection of this `protocol`. `expected` judges
/// length and head before a byte of the content is read; what had come of it before is in `partials`.
///
/// # Errors
/// [`BlobError`]; the sender was told where it can be.
pub async fn receive_blob(
    (mut send, mut recv): (SendStream, RecvStream),
    protocol: u8,
    options: &Options,
    partials: &Partials,
    expected: impl FnOnce(&[u8], u64) -> Result<(), String>,
) -> Result<ReceivedBlob, BlobError> {
    let header = tokio::time::timeout(STALL, read_frame(&mut recv, HEADER_BYTES_MAX))
        .await
        .map_err(|_| BlobError::Stalled(STALL))??;
    let header: Header =
        decode_since(MARK_OLDEST, &header).map_err(|error| BlobError::Broken(error.to_string()))?;
    let verdict = if header.length > options.blob_bytes_max {
        Err(format!("{} bytes where {} are allowed", header.length, options.blob_bytes_max))
    } else {
        expected(&header.head, header.length)
    };
    if let Err(reason) = verdict {
        let _ = recv.stop(VarInt::from_u32(1));
        answer(&mut send, protocol, Verdict::Refused(reason.clone())).await?;
        return Err(BlobError::Refused(reason));
    }
    let length = usize::try_from(header.length)
        .map_err(|_| BlobError::TooLarge { len: header.length, max: usize::MAX as u64 })?;
    let asks = header.asks(protocol);
    let mut part = match asks {
        true => partials.take(header.digest, length, Instant::now()),
        false => Partial::new(header.digest, length),
    };
    let resumed = part.body.len() as u64;
    let read = async {
        if asks {
            say(&mut send, protocol, &Verdict::From(resumed)).await?;
        }
        read_body(&mut recv, &mut part).await
    };
    let whole = match read.await {
        Ok(whole) => whole && part.hasher.finalize().as_bytes() == &header.digest.0,
        Err(error) => {
            if asks {
                partials.keep(part, Instant::now());
                partials.let_go_in_time();
            }
            return Err(error);
        }
    };
    if !whole {
        let _ = recv.stop(VarInt::from_u32(1));
        answer(&mut send, protocol, Verdict::Corrupt).await?;
        return Err(BlobError::Corrupt);
    }
    // Another attempt may have been cut off meanwhile.
    partials.forget(header.digest);
    Ok(ReceivedBlob {
        id: header.id,
        head: header.head,
        body: part.body.freeze(),
        digest: header.digest,
        resumed,
        receipt: BlobReceipt { send, protocol },
    })
}

/// What is missing of the content, hashed as it comes; false if the stream holds more or less.
async fn read_body(recv: &mut RecvStream, part: &mut Partial) -> Result<bool, BlobError> {
    loop {
        let chunk = tokio::time::timeout(STALL, recv.read_chunk(CHUNK_BYTES, true))
            .await
            .map_err(|_| BlobError::Stalled(STALL))?
            .map_err(|error| BlobError::Broken(error.to_string()))?;
        let Some(chunk) = chunk else { break };
        if part.body.len() + chunk.bytes.len() > part.length {
            return Ok(false);
        }
        part.hasher.update(&chunk.bytes);
        part.body.extend_from_slice(&chunk.bytes);
    }
    Ok(part.body.len() == part.length)
}

#[cfg(test)]
#[path = "blob_tests.rs"]
mod tests;
