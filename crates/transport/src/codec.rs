//! Bytes of a message: a versioned envelope around bincode.
//!
//! Replacing bincode is a change to this file alone. Decoding never panics, never allocates more
//! than a small multiple of the message, and refuses trailing bytes. Tensors never come through here.

use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// First bytes of everything this codec writes.
const MAGIC: [u8; 2] = *b"cr";
/// Newest version of the envelope and of every message type in it. It grows when a message is added;
/// one that is there never changes, so that a version is read by the next one too.
pub const VERSION: u8 = 4;
/// Oldest version that is still read and written: that of the build before.
pub const OLDEST: u8 = 3;
/// Bytes of the envelope.
pub const ENVELOPE_BYTES: usize = 3;
/// Most bytes a decoded message may claim. A batch of long trajectories is some tens of MiB.
pub const DECODED_BYTES_MAX: usize = 1 << 30;

/// A message that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be encoded: {0}")]
pub struct EncodeError(String);

/// Bytes that are not a message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Too short, or not ours.
    #[error("{0} bytes that are no message of this protocol")]
    Foreign(usize),
    /// Another version of the protocol.
    #[error("a message of protocol version {found}; this node speaks {OLDEST} to {VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The envelope is ours; what is inside is not.
    #[error("the message is malformed: {0}")]
    Malformed(String),
    /// More bytes than the message has.
    #[error("{0} bytes after the end of the message")]
    Trailing(usize),
}

/// A number of one byte may stand for one of sixteen: a message of so many bytes claims at most this
/// many times as much.
const CLAIMED_PER_BYTE: usize = 16;
/// Messages up to these sizes are held to a bound of their own, so that a few bytes that claim a long
/// text are given no room for it.
const SMALL: [usize; 4] = [4 << 10, 64 << 10, 1 << 20, 16 << 20];

type Format<const CLAIMED_MAX: usize> = Configuration<LittleEndian, Varint, Limit<CLAIMED_MAX>>;

fn config<const CLAIMED_MAX: usize>() -> Format<CLAIMED_MAX> {
    standard().with_limit::<CLAIMED_MAX>()
}

/// Reads a message whose bytes may claim no more than such a message can.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<(T, usize), bincode::error::DecodeError> {
    use bincode::serde::decode_from_slice as read;
    match body.len() {
        len if len <= SMALL[0] => read(body, config::<{ CLAIMED_PER_BYTE * SMALL[0] }>()),
        len if len <= SMALL[1] => read(body, config::<{ CLAIMED_PER_BYTE * SMALL[1] }>()),
        len if len <= SMALL[2] => read(body, config::<{ CLAIMED_PER_BYTE * SMALL[2] }>()),
        len if len <= SMALL[3] => read(body, config::<{ CLAIMED_PER_BYTE * SMALL[3] }>()),
        _ => read(body, config::<DECODED_BYTES_MAX>()),
    }
}

/// Bytes of a message.
///
/// # Errors
/// A type that cannot be written without names (none of ours).
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, EncodeError> {
    encode_as(VERSION, message)
}

/// As [`encode`], for a peer that speaks this version. The message must be one that it knows.
///
/// # Errors
/// As [`encode`].
pub fn encode_as<T: Serialize>(version: u8, message: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(version);
    bincode::serde::encode_into_std_write(message, &mut bytes, config::<DECODED_BYTES_MAX>())
        .map_err(|error| EncodeError(error.to_string()))?;
    Ok(bytes)
}

/// The message in some bytes.
///
/// # Errors
/// [`DecodeError`]; whatever the bytes are, never a panic.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_since(OLDEST, bytes)
}

/// As [`decode`], of a message that has been the same since `oldest`, whatever is spoken otherwise.
pub(crate) fn decode_since<T: DeserializeOwned>(
    oldest: u8,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    let Some((envelope, body)) = bytes.split_first_chunk::<ENVELOPE_BYTES>() else {
        return Err(DecodeError::Foreign(bytes.len()));
    };
    let [first, second, version] = *envelope;
    if [first, second] != MAGIC {
        return Err(DecodeError::Foreign(bytes.len()));
    }
    if !(oldest..=VERSION).contains(&version) {
        return Err(DecodeError::Version { found: version });
    }
    let (message, used) = read(body).map_err(|error| DecodeError::Malformed(error.to_string()))?;
    match body.len() - used {
        0 => Ok(message),
        trailing => Err(DecodeError::Trailing(trailing)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Message {
        Empty,
        Numbers(Vec<u32>),
        Named { text: String, maybe: Option<f64>, flags: Vec<bool> },
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            Just(Message::Empty),
            proptest::collection::vec(any::<u32>(), 0..50).prop_map(Message::Numbers),
            (
                ".*",
                proptest::option::of(-1e9..1e9f64),
                proptest::collection::vec(any::<bool>(), 0..9)
            )
                .prop_map(|(text, maybe, flags)| Message::Named { text, maybe, flags }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in message()) {
            let bytes = encode(&message).expect("own type");
            prop_assert_eq!(decode::<Message>(&bytes).expect("own bytes"), message);
        }

        #[test]
        fn any_bytes_are_an_error_or_a_message(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = vec![MAGIC[0], MAGIC[1], VERSION];
            framed.extend_from_slice(&bytes);
            let _ = decode::<Message>(&framed);
            let _ = decode::<Message>(&bytes);
        }

        #[test]
        fn a_cut_or_longer_message_is_refused(message in message(), cut in 0usize..40) {
            let mut bytes = encode(&message).expect("own type");
            bytes.push(0);
            prop_assert_eq!(decode::<Message>(&bytes), Err(DecodeError::Trailing(1)));
            bytes.truncate((bytes.len() - 2).saturating_sub(cut));
            prop_assert!(decode::<Message>(&bytes).is_err());
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encode(&Message::Empty).expect("own type");
        bytes[2] = 9;
        assert_eq!(decode::<Message>(&bytes), Err(DecodeError::Version { found: 9 }));
    }

    #[test]
    fn what_is_written_for_the_version_before_is_read() {
        let message = Message::Numbers(vec![1, 2]);
        let bytes = encode_as(OLDEST, &message).expect("own type");
        assert_eq!(bytes[2], OLDEST);
        assert_eq!(decode::<Message>(&bytes), Ok(message));
    }

    #[test]
    fn a_claimed_length_does_not_allocate() {
        // Variant 1 (numbers) claiming 2^62 elements.
        let mut bytes = vec![MAGIC[0], MAGIC[1], VERSION, 1, 253];
        bytes.extend_from_slice(&(1u64 << 62).to_le_bytes());
        assert!(matches!(decode::<Message>(&bytes), Err(DecodeError::Malformed(_))));
        // Variant 2 (named) claiming a text of 256 MiB: within what a message may be at most, and more
        // than this one can.
        let mut bytes = vec![MAGIC[0], MAGIC[1], VERSION, 2, 252];
        bytes.extend_from_slice(&(1u32 << 28).to_le_bytes());
        let error = decode::<Message>(&bytes).expect_err("is not there").to_string();
        assert!(error.contains("LimitExceeded"), "{error}");
    }

    #[test]
    fn numbers_that_take_few_bytes_are_within_the_bound_of_every_size() {
        for len in SMALL.iter().flat_map(|max| [max - 8, max + 8]).filter(|len| *len < 1 << 21) {
            let message = Message::Numbers(vec![7; len]);
            let bytes = encode(&message).expect("own type");
            assert_eq!(decode::<Message>(&bytes).expect("own bytes"), message, "{len}");
        }
    }
}
