//! What comes over the network: control messages, greetings, frames, heads of blobs, requests.

use std::task::{Context, Poll, Waker};

use crrl_cluster::untrusted;
use crrl_transport::blob;

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
