//! Published adapters as they come, for people's tools.

use std::time::Duration;

use bytes::Bytes;
use crrl_config::Role;
use crrl_transport::{
    Credentials, Endpoint, NetThread, Options, Purpose, decode, encode_as, read_frame, write_frame,
};
use crrl_types::NodeName;
use crrl_weights::{Offer, Source};
use quinn::RecvStream;

use super::{Answer, Request, Weights, fetch};
use crate::operator::OperatorError;
use crate::run_dir::{OPERATOR, RunDir};

/// Longest offer: a thousand hashes twice, and a manifest of some hundred tensors.
const OFFER_BYTES_MAX: usize = 4 << 20;
/// A parameter server that does not answer within this is hung.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Follows what a run publishes, under the operator's certificate of its folder.
#[derive(Debug)]
pub struct AdapterFeed {
    weights: Weights,
    server: Source,
    offers: RecvStream,
}

impl AdapterFeed {
    /// Connects to the parameter server of a run.
    ///
    /// # Errors
    /// [`OperatorError`], within a few seconds.
    pub async fn connect(run: &RunDir) -> Result<Self, OperatorError> {
        let not_a_run = |error: &dyn std::fmt::Display| OperatorError::NotARun(error.to_string());
        let config = run.config().map_err(|e| not_a_run(&e))?;
        let nodes = config.nodes();
        let server = nodes
            .iter()
            .find(|node| node.roles.contains(&Role::ParameterServer))
            .ok_or_else(|| not_a_run(&"no node is the parameter server"))?;
        let name = NodeName::from(server.name.as_str());
        let addresses = run.dialled().map_err(|e| not_a_run(&e))?;
        let at = addresses
            .get(&name)
            .ok_or_else(|| not_a_run(&format!("nobody knows where {name} listens")))?;
        let credentials =
            Credentials::load(&run.tls(), &OPERATOR.into()).map_err(|e| not_a_run(&e))?;
        let net = NetThread::start(OPERATOR).map_err(|e| unreachable(&e))?;
        let endpoint = Endpoint::bind(&net, &credentials, None, Options::default())
            .map_err(|e| unreachable(&e))?;
        let dialling = endpoint.dial_host(&name, at, Purpose::Weights);
        let (connection, address) = dialling.await.map_err(|e| unreachable(&e))?;
        let (mut send, mut offers) =
            connection.quic.open_bi().await.map_err(|e| unreachable(&e))?;
        let request =
            encode_as(connection.protocol, &Request::Follow).map_err(|e| unreachable(&e))?;
        write_frame(&mut send, &request).await.map_err(|e| unreachable(&e))?;
        let _ = send.finish();
        let answer = tokio::time::timeout(ANSWER_WAIT, read_frame(&mut offers, OFFER_BYTES_MAX))
            .await
            .map_err(|_| unreachable(&"it did not answer in time"))?
            .map_err(|e| unreachable(&e))?;
        match decode(&answer).map_err(|e| unreachable(&e))? {
            Answer::Coming => {}
            Answer::Unknown => return Err(OperatorError::Refused("it has none".into())),
            Answer::Refused(reason) => return Err(OperatorError::Refused(reason)),
        }
        let weights = Weights::new(OPERATOR.into(), endpoint, fetch::PATIENCE);
        weights.keep(&name, connection);
        Ok(Self { weights, server: Source { name, address }, offers })
    }

    /// The next adapter to be published; the newest first. Of several that were published while
    /// nobody asked only the newest.
    ///
    /// # Errors
    /// The parameter server has left.
    pub async fn next(&mut self) -> Result<Offer, OperatorError> {
        let frame = read_frame(&mut self.offers, OFFER_BYTES_MAX).await;
        decode(&frame.map_err(|e| unreachable(&e))?)
            .map_err(|error| OperatorError::Refused(error.to_string()))
    }

    /// The bytes of an adapter, verified against its digest.
    ///
    /// # Errors
    /// They did not come, or a newer one has taken their place meanwhile.
    pub async fn fetch(&self, offer: &Offer) -> Result<Bytes, OperatorError> {
        let (_, bytes) = self.weights.fetch(offer, std::slice::from_ref(&self.server)).await;
        let bytes = bytes.map_err(|e| unreachable(&e))?;
        if crrl_types::Digest::of(&bytes) != offer.manifest.digest {
            return Err(OperatorError::Refused("the bytes are not what the manifest says".into()));
        }
        Ok(bytes)
    }

    /// Leaves.
    pub async fn close(self) {
        self.weights.close("done").await;
    }
}

fn unreachable(error: &dyn std::fmt::Display) -> OperatorError {
    OperatorError::Unreachable(error.to_string())
}
