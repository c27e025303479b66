//! One large thing on one stream of a bulk connection.
//!
//! ```text
//! sender                                receiver
//!   header {id, head, length, hash} ->
//!   length bytes, paced             ->  hashed as they come
//!                                   <-  verdict, once the receiver has handled it
//! ```
//!
//! The receiver keeps nothing of a blob whose hash is wrong, and says so; the sender sends it again.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use crrl_types::Digest;
use quinn::{RecvStream, SendStream, VarInt};
use serde::{Deserialize, Serialize};

use crate::codec::{OLDEST, decode, encode_as};
use crate::frame::{FrameError, read_frame, write_frame};
use crate::options::Options;
use crate::pacing::Pacing;

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

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    id: u64,
    head: Vec<u8>,
    length: u64,
    digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Verdict {
    Handled,
    Corrupt,
    Refused(String),
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
    connection: &quinn::Connection,
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
    connection: &quinn::Connection,
    options: &Options,
    id: u64,
    head: &[u8],
    digest: Digest,
    body: &Bytes,
) -> Result<(), BlobError> {
    let broken = |error: &dyn std::fmt::Display| BlobError::Broken(error.to_string());
    let opened = tokio::time::timeout(options.blob_ack_timeout, connection.open_bi()).await;
    let (mut send, mut recv) = opened
        .map_err(|_| BlobError::Stalled(options.blob_ack_timeout))?
        .map_err(|error| broken(&error))?;
    let header = Header { id, head: head.to_vec(), length: body.len() as u64, digest };
    // A blob's envelope is the same in every version.
    let header = encode_as(OLDEST, &header).map_err(|error| broken(&error))?;
    if header.len() > HEADER_BYTES_MAX {
        return Err(BlobError::TooLarge { len: header.len() as u64, max: HEADER_BYTES_MAX as u64 });
    }
    write_frame(&mut send, &header).await?;
    let start = Instant::now();
    let mut pacing = Pacing::new(options.bulk_bytes_per_s, Duration::ZERO);
    let mut offset = 0;
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
    let verdict =
        tokio::time::timeout(options.blob_ack_timeout, read_frame(&mut recv, VERDICT_BYTES_MAX))
            .await
            .map_err(|_| BlobError::Stalled(options.blob_ack_timeout))??;
    match decode(&verdict).map_err(|error| broken(&error))? {
        Verdict::Handled => Ok(()),
        Verdict::Corrupt => Err(BlobError::Corrupt),
        Verdict::Refused(reason) => Err(BlobError::Refused(reason)),
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
    /// Answers the sender.
    pub receipt: BlobReceipt,
}

/// Answers the sender of a blob.
#[derive(Debug)]
pub struct BlobReceipt(SendStream);

impl BlobReceipt {
    /// Tells the sender that the blob was handled.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn accept(mut self) -> Result<(), BlobError> {
        answer(&mut self.0, Verdict::Handled).await
    }

    /// Tells the sender that the blob is not wanted, and why.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn refuse(mut self, reason: &str) -> Result<(), BlobError> {
        let reason = reason.chars().take(REASON_CHARS_MAX).collect();
        answer(&mut self.0, Verdict::Refused(reason)).await
    }
}

async fn answer(send: &mut SendStream, verdict: Verdict) -> Result<(), BlobError> {
    let verdict =
        encode_as(OLDEST, &verdict).map_err(|error| BlobError::Broken(error.to_string()))?;
    write_frame(send, &verdict).await?;
    let _ = send.finish();
    // Dropping a stream whose data was not acknowledged yet does not lose it: `finish` has closed it.
    Ok(())
}

/// What a header says: id, head, length and hash. For tests that read whatever they like as one.
///
/// # Errors
/// As [`decode`].
#[doc(hidden)]
pub fn read_header(bytes: &[u8]) -> Result<(u64, Vec<u8>, u64, Digest), crate::DecodeError> {
    let Header { id, head, length, digest } = decode(bytes)?;
    Ok((id, head, length, digest))
}

/// Reads a blob from a stream the peer has opened. `expected` judges length and head before a byte
/// of the content is read.
///
/// # Errors
/// [`BlobError`]; the sender was told where it can be.
pub async fn receive_blob(
    (mut send, mut recv): (SendStream, RecvStream),
    options: &Options,
    expected: impl FnOnce(&[u8], u64) -> Result<(), String>,
) -> Result<ReceivedBlob, BlobError> {
    let header = tokio::time::timeout(STALL, read_frame(&mut recv, HEADER_BYTES_MAX))
        .await
        .map_err(|_| BlobError::Stalled(STALL))??;
    let header: Header = decode(&header).map_err(|error| BlobError::Broken(error.to_string()))?;
    let verdict = if header.length > options.blob_bytes_max {
        Err(format!("{} bytes where {} are allowed", header.length, options.blob_bytes_max))
    } else {
        expected(&header.head, header.length)
    };
    if let Err(reason) = verdict {
        let _ = recv.stop(VarInt::from_u32(1));
        answer(&mut send, Verdict::Refused(reason.clone())).await?;
        return Err(BlobError::Refused(reason));
    }
    let length = usize::try_from(header.length)
        .map_err(|_| BlobError::TooLarge { len: header.length, max: usize::MAX as u64 })?;
    let body = read_body(&mut recv, length).await?;
    match body {
        Some((body, digest)) if digest == header.digest => Ok(ReceivedBlob {
            id: header.id,
            head: header.head,
            body,
            digest,
            receipt: BlobReceipt(send),
        }),
        _ => {
            let _ = recv.stop(VarInt::from_u32(1));
            answer(&mut send, Verdict::Corrupt).await?;
            Err(BlobError::Corrupt)
        }
    }
}

/// The content and its hash; `None` if the stream holds more or less than `length` bytes.
async fn read_body(
    recv: &mut RecvStream,
    length: usize,
) -> Result<Option<(Bytes, Digest)>, BlobError> {
    // Grown as bytes arrive: a claimed length allocates nothing.
    let mut body = BytesMut::new();
    let mut hasher = blake3::Hasher::new();
    loop {
        let chunk = tokio::time::timeout(STALL, recv.read_chunk(CHUNK_BYTES, true))
            .await
            .map_err(|_| BlobError::Stalled(STALL))?
            .map_err(|error| BlobError::Broken(error.to_string()))?;
        let Some(chunk) = chunk else { break };
        if body.len() + chunk.bytes.len() > length {
            return Ok(None);
        }
        hasher.update(&chunk.bytes);
        body.extend_from_slice(&chunk.bytes);
    }
    let whole = body.len() == length;
    Ok(whole.then(|| (body.freeze(), Digest(*hasher.finalize().as_bytes()))))
}

#[cfg(test)]
#[path = "blob_tests.rs"]
mod tests;
