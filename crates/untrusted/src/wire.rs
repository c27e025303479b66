//! What comes over the network: control messages, greetings, frames, heads of blobs, requests, and what
//! strangers say at the door.

use std::task::{Context, Poll, Waker};

use crrl_cluster::untrusted;
use crrl_transport::blob;
use crrl_weights::delta::{self, Word};

/// Longest frame that is let through here.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// A control message in its envelope.
#[must_use]
pub fn packet(bytes: &[u8]) -> bool {
    untrusted::is_packet(bytes)
}

/// What two nodes say to each other first.
#[must_use]
pub fn greeting(bytes: &[u8]) -> bool {
    untrusted::is_greeting(bytes)
}

/// A length and a content of that length; what is longer than allowed, or ends early, is refused.
#[must_use]
pub fn frame(bytes: &[u8]) -> bool {
    let read = std::pin::pin!(async {
        let mut stream = bytes;
        crrl_transport::read_frame(&mut stream, FRAME_BYTES_MAX).await.map(|c| (c, stream.len()))
    });
    // Bytes in memory are there at once.
    let Poll::Ready(read) = read.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("a frame in memory is waited for")
    };
    let Ok((content, left)) = read else { return false };
    let used = bytes.len() - left;
    let mut written = u32::try_from(content.len()).expect("bounded").to_be_bytes().to_vec();
    written.extend_from_slice(&content);
    assert_eq!(written, bytes[..used]);
    true
}

/// What announces a blob, and the head in it; or what its receiver says of it.
#[must_use]
pub fn blob_header(bytes: &[u8]) -> bool {
    match blob::read_header(bytes) {
        Ok((_, head, ..)) => untrusted::is_head(&head),
        Err(_) => blob::is_verdict(bytes),
    }
}

/// What a person's tool asks of the coordinator.
#[must_use]
pub fn operator_request(bytes: &[u8]) -> bool {
    untrusted::is_request(bytes)
}

/// What a trace says, as a person's tool reads it.
#[must_use]
pub fn traced(bytes: &[u8]) -> bool {
    untrusted::is_traced(bytes)
}

/// What somebody without a certificate asks for at the door, or is answered.
#[must_use]
pub fn admission(bytes: &[u8]) -> bool {
    untrusted::is_admission(bytes)
}

/// What a certificate is asked for with, in PEM.
#[must_use]
pub fn certificate_request(bytes: &[u8]) -> bool {
    untrusted::is_certificate_request(bytes)
}

/// The line that lets a node in; bytes that do not begin as one are taken for what is in it.
#[must_use]
pub fn token(bytes: &[u8]) -> bool {
    untrusted::is_token(bytes)
}

/// What is asked and answered where adapters are fetched.
#[must_use]
pub fn weights(bytes: &[u8]) -> bool {
    untrusted::is_weights(bytes)
}

/// The difference between two adapters, behind the earlier of them and that one's length in two bytes.
#[must_use]
pub fn delta(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return false };
    let length = usize::from(u16::from_le_bytes(*length));
    let Some((base, difference)) = rest.split_at_checked(length) else { return false };
    let Ok(new) = delta::decode(base, difference) else { return false };
    assert_eq!(new.len(), base.len());
    for word in [Word::Two, Word::Four] {
        let again = delta::encode(base, &new, word).expect("of one length");
        assert_eq!(delta::decode(base, &again).expect("what was written can be read"), new);
    }
    true
}
