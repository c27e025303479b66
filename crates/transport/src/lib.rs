//! How nodes reach each other: QUIC with mutual TLS from a private authority.
//!
//! - [`options`]: timeouts, sizes and rates
//! - [`authority`]: the cluster's certificate authority, and what it issues
//! - [`revocation`]: certificates that count no more
//! - [`identity`]: who a certificate says its holder is; credentials read from a folder
//! - [`request`]: a key that was made here, and the certificate that is asked for it
//! - [`net_thread`]: the one thread QUIC runs on, apart from whatever keeps the others busy
//! - [`lookup`]: hosts by name, looked up at every dial
//! - [`protocol`]: which versions of the protocol two peers have in common
//! - `keys`: what an endpoint proves itself with, replaced while it runs
//! - [`stranger`]: somebody without a certificate, who asks for one
//! - [`endpoint`]: listens, dials, and refuses whoever has no certificate of ours
//! - [`entropy`]: random bytes nobody can guess
//! - [`faults`]: packets lost, late, doubled and damaged on purpose
//! - [`stream`]: a QUIC stream as the byte stream `ractor_cluster` runs on
//! - [`frame`]: length-prefixed frames
//! - [`blob`]: one large thing on one stream: length, hash, acknowledgement
//! - [`partials`]: what had come of a blob whose connection broke
//! - [`pacing`]: how fast blobs may be sent
//! - [`codec`]: bytes of a message, versioned and bounded
//!
//! This crate never knows what a message means, nor who may send which.

pub mod authority;
pub mod blob;
pub mod codec;
pub mod endpoint;
pub mod entropy;
pub mod faults;
pub mod frame;
pub mod identity;
mod keys;
pub mod lookup;
pub mod net_thread;
pub mod options;
pub mod pacing;
pub mod partials;
pub mod protocol;
pub mod request;
pub mod revocation;
pub mod stranger;
pub mod stream;

pub use authority::{Authority, AuthorityError, Validity};
pub use blob::{BlobError, BlobReceipt, ReceivedBlob, receive_blob, send_blob};
pub use codec::{DecodeError, EncodeError, decode, encode, encode_as};
pub use crrl_types::HostName;
pub use endpoint::{
    Arrival, BindError, CLOSED_BY_PEER, Connection, DialError, Endpoint, Handshake, Purpose, why,
};
pub use entropy::{NoEntropy, random_bytes};
pub use faults::Faults;
pub use frame::{FrameError, read_frame, write_frame};
pub use identity::{Credentials, CredentialsError, Facts, Identity};
pub use lookup::Unresolved;
pub use net_thread::{Lookup, NetThread, Sockets};
pub use options::Options;
pub use pacing::Pacing;
pub use partials::Partials;
pub use protocol::Protocols;
pub use request::Pending;
pub use revocation::{
    Revocations, Revoked, RevokedList, is_revoked, issued, readmit, revoke, revoke_all, revoked,
};
pub use stranger::{Door, KnockError, Pin, Stranger, pin};
pub use stream::QuicStream;
