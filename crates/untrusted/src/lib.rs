//! What any bytes may do to the decoders of this project: each entry of [`DECODERS`] reads some and
//! holds them to what must be true of every input.
//!
//! - [`memory`]: how much room a decoder takes for how many bytes
//! - [`wire`]: what peers, guests, strangers and people's tools send
//! - [`policy`]: what the policy writes, and patches
//! - [`files`]: what lies on a disk: configurations, invitations, histories, recordings
//! - [`inside`]: what comes out of a sandbox, and what goes in
//!
//! A test replays the corpus of `fuzz/corpus` through all of them; the fuzzer of `fuzz/` looks for
//! more. This crate never opens a socket, and knows nothing of tensors.

pub mod files;
pub mod inside;
pub mod memory;
pub mod policy;
pub mod wire;

/// One decoder.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// Its name, and that of the folder of its corpus.
    pub name: &'static str,
    /// Reads bytes: whether they are what it reads. Panics where something is wrong with the decoder.
    pub check: fn(&[u8]) -> bool,
}

/// Every decoder that reads what comes from elsewhere.
pub const DECODERS: [Decoder; 24] = [
    Decoder { name: "packet", check: wire::packet },
    Decoder { name: "greeting", check: wire::greeting },
    Decoder { name: "frame", check: wire::frame },
    Decoder { name: "blob-header", check: wire::blob_header },
    Decoder { name: "operator-request", check: wire::operator_request },
    Decoder { name: "traced", check: wire::traced },
    Decoder { name: "admission", check: wire::admission },
    Decoder { name: "certificate-request", check: wire::certificate_request },
    Decoder { name: "token", check: wire::token },
    Decoder { name: "weights", check: wire::weights },
    Decoder { name: "delta", check: wire::delta },
    Decoder { name: "tool-call", check: policy::tool_call },
    Decoder { name: "patch", check: policy::patch },
    Decoder { name: "configuration", check: files::configuration },
    Decoder { name: "faults", check: files::faults },
    Decoder { name: "invitation", check: files::invitation },
    Decoder { name: "task", check: files::task },
    Decoder { name: "event", check: files::event },
    Decoder { name: "plan", check: files::plan },
    Decoder { name: "recording", check: files::recording },
    Decoder { name: "revoked", check: files::revoked },
    Decoder { name: "order", check: files::order },
    Decoder { name: "sandbox-frame", check: inside::frame },
    Decoder { name: "sandbox-image", check: inside::image },
];

/// The decoder of this name.
#[must_use]
pub fn decoder(name: &str) -> Option<Decoder> {
    DECODERS.into_iter().find(|decoder| decoder.name == name)
}

/// Holds a decoder to its room for bytes, and to what it says of itself.
///
/// # Panics
/// The decoder is wrong about these bytes.
pub fn check(decoder: Decoder, bytes: &[u8]) -> bool {
    let (is_one, taken) = memory::peak_of(|| (decoder.check)(bytes));
    let room = memory::room_for(bytes.len());
    assert!(
        taken <= room,
        "{} took {taken} bytes of memory for {} of input; {room} are allowed",
        decoder.name,
        bytes.len()
    );
    is_one
}
