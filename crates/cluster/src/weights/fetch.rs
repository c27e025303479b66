//! Gets the chunks that are missing, from one source after the other. What fails at one is fetched
//! from the next; what came stays in the depot whatever happens.

use std::time::{Duration, Instant};

use bytes::Bytes;
use crrl_transport::{Connection, Purpose, decode, encode_as, read_frame, write_frame};
use crrl_types::Digest;
use crrl_weights::{Blame, Leg, Offer, Payload, Report, Source, delta};
use quinn::RecvStream;

use super::{ANSWER_BYTES_MAX, Answer, Request, Weights, ranges};
use crate::aside;
use crate::peer::lock;

/// Times all sources are gone through, as long as each brings something.
const ROUNDS_MAX: usize = 3;
/// A source that sends nothing for this long is left for the next, unless another time is asked for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// The last source is waited for longer: there is no other.
const LAST_PATIENCE: Duration = Duration::from_secs(10);
/// Connections kept for the next adapter.
const CONNECTIONS_MAX: usize = 16;

/// An adapter that could not be fetched. Whom to blame is in the report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The offer contradicts itself, or is of more than is accepted.
    #[error("the offer of adapter {0} is not sound, or of more bytes than are accepted")]
    Offer(crrl_types::AdapterVersion),
    /// No source gave what was missing.
    #[error("{missing} of {chunks} chunks are missing; {last}")]
    Incomplete {
        /// Chunks that did not come.
        missing: usize,
        /// All of them.
        chunks: usize,
        /// What the last source said.
        last: String,
    },
}

impl Weights {
    /// Gets an adapter: from the depot if it is there, as a difference where one is offered and its
    /// base is at hand, else whole. Dropping the future keeps what has come.
    ///
    /// # Errors
    /// [`FetchError`]; the report says what came from whom either way.
    pub async fn fetch(
        &self,
        offer: &Offer,
        sources: &[Source],
    ) -> (Report, Result<Bytes, FetchError>) {
        let mut report = Report::default();
        let bytes = self.get(offer, sources, &mut report).await;
        (report, bytes)
    }

    async fn get(
        &self,
        offer: &Offer,
        sources: &[Source],
        report: &mut Report,
    ) -> Result<Bytes, FetchError> {
        let accepted = self.0.endpoint.options().blob_bytes_max;
        if !offer.is_sound() || offer.whole.bytes > accepted {
            return Err(FetchError::Offer(offer.manifest.version));
        }
        let digest = offer.whole.digest;
        if let Some(bytes) = self.depot().whole(digest) {
            return Ok(bytes);
        }
        // Others may ask for it from now on.
        self.depot().expect(&offer.whole);
        if let Some(bytes) = self.by_delta(offer, sources, report).await {
            return Ok(bytes);
        }
        self.gather(&offer.whole, sources, report).await
    }

    /// `None`: whole, then.
    async fn by_delta(
        &self,
        offer: &Offer,
        sources: &[Source],
        report: &mut Report,
    ) -> Option<Bytes> {
        let offered = offer.delta.as_ref()?;
        let base = self.depot().whole(offered.base)?;
        self.depot().expect_delta(&offered.payload);
        let difference = self.gather(&offered.payload, sources, report).await.ok()?;
        let digest = offer.whole.digest;
        let made = aside(move || {
            let made = delta::decode(&base, &difference).map_err(|error| error.to_string())?;
            if Digest::of(&made) == digest { Ok(made) } else { Err("another adapter".to_owned()) }
        })
        .await;
        match made.unwrap_or_else(|| Err("it panicked".to_owned())) {
            Ok(made) => {
                let made = Bytes::from(made);
                self.depot().put(&offer.whole, &made);
                Some(made)
            }
            Err(error) => {
                tracing::warn!(%digest, error, "a difference gave no adapter; fetching it whole");
                None
            }
        }
    }

    /// Gets what is missing of a payload.
    async fn gather(
        &self,
        payload: &Payload,
        sources: &[Source],
        report: &mut Report,
    ) -> Result<Bytes, FetchError> {
        let mut last = "nobody was asked".to_owned();
        for _ in 0..ROUNDS_MAX {
            let before = report.legs.len();
            for (n, source) in sources.iter().enumerate() {
                let missing = self.depot().missing(payload);
                if missing.is_empty() {
                    break;
                }
                let is_last = n + 1 == sources.len();
                let patience =
                    if is_last { self.0.patience.max(LAST_PATIENCE) } else { self.0.patience };
                let started = Instant::now();
                let mut bytes = 0;
                let ended = self.from(source, payload, &missing, patience, &mut bytes).await;
                let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                if bytes > 0 {
                    report.legs.push(Leg { from: source.name.clone(), bytes, micros });
                }
                if let Err(reason) = ended {
                    tracing::info!(source = %source.name, reason, "left for another source");
                    last = format!("{}: {reason}", source.name);
                    report.blamed.push(Blame { node: source.name.clone(), reason });
                }
            }
            // `None` also where it had to make room for others meanwhile: fetched again.
            if let Some(bytes) = self.depot().whole(payload.digest) {
                return Ok(bytes);
            }
            let damaged = report.blamed.last().is_some_and(|blame| blame.reason.contains(DAMAGED));
            if report.legs.len() == before && !damaged {
                break;
            }
        }
        let missing = self.depot().missing(payload).len();
        Err(FetchError::Incomplete { missing, chunks: payload.count(), last })
    }

    /// Asks one source for chunks; those that come and are right go to the depot.
    async fn from(
        &self,
        source: &Source,
        payload: &Payload,
        missing: &[usize],
        patience: Duration,
        bytes: &mut u64,
    ) -> Result<(), String> {
        if source.name == self.0.name {
            return Err("this node has no more of it itself".into());
        }
        let connection = self.connection(source, patience).await?;
        let (mut send, mut recv) = within(patience, connection.quic.open_bi()).await?;
        let request = Request::Fetch { digest: payload.digest, ranges: ranges(missing) };
        let request = encode_as(connection.protocol, &request).map_err(text)?;
        within(patience, write_frame(&mut send, &request)).await?;
        let _ = send.finish();
        let answer = within(patience, read_frame(&mut recv, ANSWER_BYTES_MAX)).await?;
        match decode(&answer).map_err(text)? {
            Answer::Coming => {}
            Answer::Unknown => return Err("it has nothing of it".into()),
            Answer::Refused(reason) => return Err(format!("it refused: {reason}")),
        }
        let (mut damaged, mut chunk) = (Vec::new(), Vec::new());
        for index in missing {
            let len = payload.range(*index).len();
            read_chunk(&mut recv, &mut chunk, len, patience).await?;
            if self.depot().add(payload, *index, &chunk) {
                *bytes += len as u64;
            } else {
                damaged.push(*index);
            }
        }
        match damaged.as_slice() {
            [] => Ok(()),
            [first, ..] => Err(format!("chunk {first} {DAMAGED}; {} in all", damaged.len())),
        }
    }

    async fn connection(&self, source: &Source, patience: Duration) -> Result<Connection, String> {
        let held = lock(&self.0.connections).get(&source.name).cloned();
        if let Some(held) = held
            && held.quic.close_reason().is_none()
            && held.quic.remote_address() == source.address
        {
            return Ok(held);
        }
        let dialling = self.0.endpoint.dial(&source.name, source.address, Purpose::Weights);
        let fresh = within(patience, dialling).await?;
        let mut connections = lock(&self.0.connections);
        connections.retain(|_, held| held.quic.close_reason().is_none());
        if connections.len() >= CONNECTIONS_MAX {
            // Whichever: it is dialled again when it is wanted.
            let name = connections.keys().next().cloned();
            name.and_then(|name| connections.remove(&name));
        }
        connections.insert(source.name.clone(), fresh.clone());
        Ok(fresh)
    }
}

/// What is said of a chunk whose hash is wrong.
const DAMAGED: &str = "did not match its hash";

/// Reads a chunk into a buffer, in place of what was in it.
async fn read_chunk(
    recv: &mut RecvStream,
    chunk: &mut Vec<u8>,
    len: usize,
    stall: Duration,
) -> Result<(), String> {
    // Grown as bytes arrive: a claimed length allocates nothing.
    chunk.clear();
    while chunk.len() < len {
        let piece = within(stall, recv.read_chunk(len - chunk.len(), true)).await?;
        chunk.extend_from_slice(&piece.ok_or("it ended in the middle")?.bytes);
    }
    Ok(())
}

async fn within<T, E: std::fmt::Display>(
    patience: Duration,
    what: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    tokio::time::timeout(patience, what)
        .await
        .map_err(|_| format!("nothing came for {} ms", patience.as_millis()))?
        .map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
