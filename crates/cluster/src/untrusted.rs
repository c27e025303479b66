//! What this crate makes of bytes from a peer, a stranger or an operator: for tests that feed it any.
//! Never used by a node.

use crrl_control::wire::Wire;
use crrl_transport::{DecodeError, decode, encode};
use crrl_types::fault::{Fault, Injection};
use crrl_types::{
    Action, AdapterManifest, Digest, NodeName, Order, Target, TaskId, TraceEnd, TraceEvent,
    TraceRequest, TraceStop, Traced,
};
use crrl_weights::{DeltaOffer, Offer, Payload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admission::{self, Question};
use crate::bulk::Head;
use crate::invitation::Invitation;
use crate::join::{Answer, Hello};
use crate::operator::{self, Request};
use crate::order_log;
use crate::peer::{Packet, Token};
use crate::{token, weights};

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

/// As [`reads`], of JSON.
fn reads_json<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return false };
    let once = serde_json::to_vec(&value).expect("plain data has a text");
    let again: T = serde_json::from_slice(&once).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("as before"), once);
    true
}

/// Whether bytes are what a person's tool may ask.
#[must_use]
pub fn is_request(bytes: &[u8]) -> bool {
    reads_json::<Request>(bytes)
}

/// Whether bytes are what somebody without a certificate says at the door, or is answered there.
#[must_use]
pub fn is_admission(bytes: &[u8]) -> bool {
    reads_json::<Question>(bytes) || reads_json::<admission::Answer>(bytes)
}

/// Whether bytes are what a certificate is asked for with.
#[must_use]
pub fn is_certificate_request(bytes: &[u8]) -> bool {
    Invitation::key_of(&String::from_utf8_lossy(bytes)).is_ok()
}

/// Whether bytes are a token, as text or as what is in it: nobody guesses a checksum.
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if text.trim_start().starts_with(token::PREFIX) => text.to_owned(),
        _ => token::text(bytes.to_vec()),
    };
    let Ok(read) = text.parse::<token::Token>() else { return false };
    // Files are named after it.
    assert!(crrl_config::is_node_name(read.name.as_str()), "{:?}", read.name);
    assert_eq!(read.to_string().parse(), Ok(read));
    true
}

/// Whether bytes are a request for chunks, its answer, or an offer.
#[must_use]
pub fn is_weights(bytes: &[u8]) -> bool {
    if let Ok(offer) = decode::<Offer>(bytes) {
        // Asked of each that comes from outside, whatever it says.
        let _ = offer.is_sound();
    }
    reads::<weights::Request>(bytes) | reads::<weights::Answer>(bytes) | reads::<Offer>(bytes)
}

/// Whether bytes are what a trace says.
#[must_use]
pub fn is_traced(bytes: &[u8]) -> bool {
    let Ok(traced) = operator::read_traced(bytes) else { return false };
    let once = serde_json::to_vec(&traced).expect("plain data has a text");
    assert_eq!(operator::read_traced(&once).expect("what was written can be read"), traced);
    true
}

/// Whether bytes are a line of the log of orders.
#[must_use]
pub fn is_order(bytes: &[u8]) -> bool {
    let Some(record) = order_log::record(bytes) else { return false };
    let once = serde_json::to_vec(&record).expect("plain data has a text");
    assert_eq!(order_log::record(&once), Some(record));
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
    let target = Target::actor("rollout-0", "rollout");
    let action = Action::Log { filter: "crrl_actors=debug".into(), for_ms: Some(1000) };
    let injection = Injection { id: 5, fault: Fault::Pause, duration_ms: 100, seed: 1 };
    [
        Request::Status,
        Request::Subscribe,
        Request::StatusTimed,
        Request::SubscribeTimed,
        Request::StatusFull,
        Request::SubscribeFull,
        Request::Stop { reason: "enough".into() },
        Request::Release { task: TaskId::from("t") },
        Request::Inject { node: "learner".into(), injection },
        Request::Drain { node: "rollout-0".into() },
        Request::Order(Order { target, action }),
        Request::Trace(TraceRequest::of(Target::node("rollout-0"))),
        Request::Snapshot { target: Target::actor("rollout-0", "rollout") },
    ]
    .map(|request| serde_json::to_vec(&request).expect("plain data has a text"))
    .to_vec()
}

/// What is said at the door, to begin with.
#[must_use]
pub fn questions() -> Vec<Vec<u8>> {
    let question = Question {
        token: "0011223344556677".into(),
        secret: "00112233445566778899aabbccddeeff".into(),
        request: "-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n"
            .into(),
    };
    let refused = admission::Answer::Refused("the token is not known here".into());
    let text = "plain data has a text";
    vec![serde_json::to_vec(&question).expect(text), serde_json::to_vec(&refused).expect(text)]
}

/// Tokens, as text and as what is in it, to begin with.
#[must_use]
pub fn tokens() -> Vec<Vec<u8>> {
    let head =
        |family: u8, address: &[u8]| [&[family][..], address, &[0x1c, 0xf3], &[7; 40]].concat();
    let named = |head: Vec<u8>| [&head[..], b"guest-1"].concat();
    let (four, six) = (named(head(4, &[10, 0, 0, 5])), named(head(6, &[9; 16])));
    let by_name = named(head(1, b"\x0btrainer.lan"));
    vec![token::text(four.clone()).into_bytes(), four, six, by_name]
}

/// Requests for chunks, answers and offers of an adapter of these bytes, to begin with.
#[must_use]
pub fn weights(manifest: AdapterManifest, adapter: &[u8]) -> Vec<Vec<u8>> {
    let fetch = weights::Request::Fetch { digest: manifest.digest, ranges: vec![(0, 3), (5, 6)] };
    let base = Digest::of(b"base");
    let whole = Offer::whole(manifest, adapter);
    let delta = Some(DeltaOffer { base, payload: Payload::of(b"a difference") });
    let offers = [whole.clone(), Offer { delta, ..whole }];
    let refused = weights::Answer::Refused("there are no such chunks".into());
    let requests = [fetch, weights::Request::Follow].map(|request| encode(&request));
    let answers =
        [weights::Answer::Coming, weights::Answer::Unknown, refused].map(|answer| encode(&answer));
    let offers = offers.map(|offer| encode(&offer));
    requests
        .into_iter()
        .chain(answers)
        .chain(offers)
        .map(|bytes| bytes.expect("plain data"))
        .collect()
}

/// Frames of a trace, to begin with.
#[must_use]
pub fn traced() -> Vec<Vec<u8>> {
    let event = TraceEvent {
        at_ms: 1_700_000_000_000,
        node: "rollout-0".into(),
        actor: "rollout".into(),
        message: "Assign".into(),
        from: Some("coordinator".into()),
        handled_us: Some(17),
    };
    let received = TraceEvent { handled_us: None, from: None, ..event.clone() };
    let end = TraceEnd { why: TraceStop::Count, events: 2 };
    [Traced::Events(vec![event, received]), Traced::End(end)]
        .map(|traced| serde_json::to_vec(&traced).expect("plain data has a text"))
        .to_vec()
}
