//! A QUIC stream as the byte stream `ractor_cluster` runs on.

use quinn::{RecvStream, SendStream};
use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};

/// One bidirectional stream of a control connection.
#[derive(Debug)]
pub struct QuicStream {
    /// Names the session: what the session's owner finds it by.
    pub label: String,
    /// Towards the peer.
    pub send: SendStream,
    /// From the peer.
    pub recv: RecvStream,
}

impl ClusterBidiStream for QuicStream {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        (Box::new(self.recv), Box::new(self.send))
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}
