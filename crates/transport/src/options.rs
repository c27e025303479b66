//! Timeouts, sizes and rates of the transport.

use std::time::Duration;

use crate::protocol::Protocols;

/// Every option of this crate.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Time between keep-alive packets. Shorter notices a broken path sooner and costs a packet
    /// each time. Default 500 ms.
    pub keep_alive: Duration,
    /// Silence after which a connection is lost; a peer that was killed is noticed then, at the
    /// latest. Too short and a busy machine drops healthy peers. Default 3 s.
    pub idle_timeout: Duration,
    /// How long a handshake may take, dialling or accepting. Default 5 s.
    pub handshake_timeout: Duration,
    /// Largest blob that is sent or accepted, in bytes; it is held in memory. Default 1 GiB.
    pub blob_bytes_max: u64,
    /// Blobs on their way to one peer at once; also how many a peer may have on its way here.
    /// Default 4.
    pub blobs_at_once: u32,
    /// How fast blobs are sent to one peer, and chunks of adapters to all together, in bytes per
    /// second. Leaves the network thread time for control messages. Default 1 GiB/s.
    pub bulk_bytes_per_s: u64,
    /// How long the receiver of a blob may take to say that it was handled. Default 30 s.
    pub blob_ack_timeout: Duration,
    /// Versions of the protocol that are spoken. Default: this build's and the one before; another
    /// is of use in tests of builds that meet.
    pub protocols: Protocols,
    /// Whether somebody without a certificate may connect, to ask for one and for nothing else.
    /// Default no.
    pub strangers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(5),
            blob_bytes_max: 1 << 30,
            blobs_at_once: 4,
            bulk_bytes_per_s: 1 << 30,
            blob_ack_timeout: Duration::from_secs(30),
            protocols: Protocols::default(),
            strangers: false,
        }
    }
}
