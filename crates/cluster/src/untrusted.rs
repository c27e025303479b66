//! What this crate makes of bytes from a peer or an operator: for tests that feed it any. Never used
//! by a node.

use crrl_control::wire::Wire;
use crrl_transport::{DecodeError, decode, encode};
use crrl_types::fault::{Fault, Injection};
use crrl_types::{AdapterManifest, NodeName, TaskId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bulk::Head;
use crate::join::{Answer, Hello};
use crate::operator::Request;
use crate::peer::{Packet, Token};

/// What is read, written and read again is the same, byte for byte, the second time.
fn reads<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(message) = decode::<T>(bytes) else { return false };
    let once = encode(&message).expect("what was read can be written");
    let again: Result<T, DecodeError> = decode(&once);
    let again = again.expect("what was written can be read");
    assert_eq!(encode(&again).expect("as before"), once);
    true
}

/// Whether bytes are a control message with its envelope.
#[must_use]
pub fn is_packet(bytes: &[u8]) -> bool {
    reads::<Packet<Wire>>(bytes)
}

/// Whether bytes are a greeting of either side.
#[must_use]
pub fn is_greeting(bytes: &[u8]) -> bool {
    reads::<Hello>(bytes) | reads::<Answer>(bytes)
}

/// Whether bytes are the head of a blob.
#[must_use]
pub fn is_head(bytes: &[u8]) -> bool {
    reads::<Head>(bytes)
}

/// Whether bytes are what a person's tool may ask.
#[must_use]
pub fn is_request(bytes: &[u8]) -> bool {
    let Ok(request) = serde_json::from_slice::<Request>(bytes) else { return false };
    let once = serde_json::to_vec(&request).expect("plain data has a text");
    let again: Request = serde_json::from_slice(&once).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("as before"), once);
    true
}

/// A message in its envelope.
#[must_use]
pub fn packet(wire: Wire) -> Vec<u8> {
    let packet = Packet { token: Token::default(), handled: 77, message: Some(wire) };
    encode(&packet).expect("plain data")
}

/// Greetings, to begin with.
#[must_use]
pub fn greetings() -> Vec<Vec<u8>> {
    let name = NodeName::from("rollout-0");
    let hello = Hello {
        protocol: crrl_transport::codec::VERSION,
        name,
        incarnation: 3,
        token: Token::default(),
    };
    let welcome = Answer::Welcome { incarnation: 2, token: Token::default() };
    [encode(&hello), encode(&welcome), encode(&Answer::Refused("another life".into()))]
        .map(|bytes| bytes.expect("plain data"))
        .to_vec()
}

/// Heads of blobs, to begin with.
#[must_use]
pub fn heads(manifest: AdapterManifest) -> Vec<Vec<u8>> {
    [Head::Message, Head::Adapter(manifest)].map(|head| encode(&head).expect("plain data")).to_vec()
}

/// Requests of a person's tool, to begin with.
#[must_use]
pub fn requests() -> Vec<Vec<u8>> {
    let injection = Injection { id: 5, fault: Fault::Pause, duration_ms: 100, seed: 1 };
    [
        Request::Status,
        Request::Subscribe,
        Request::Stop { reason: "enough".into() },
        Request::Release { task: TaskId::from("t") },
        Request::Inject { node: "learner".into(), injection },
    ]
    .map(|request| serde_json::to_vec(&request).expect("plain data has a text"))
    .to_vec()
}
