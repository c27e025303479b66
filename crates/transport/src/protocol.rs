//! Which versions of the protocol two peers have in common.
//!
//! A connection's version is negotiated with it: whoever dials offers `crrl/N control` for every
//! version it speaks, and the newest that both know is spoken. Where there is none, the two meet
//! under a name without a version, tell each other what they speak, and part.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::{OLDEST, VERSION};
use crate::frame::{read_frame, write_frame};

/// What a connection is for. The protocol's version is part of the name that is negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Actors' messages.
    Control,
    /// Blobs.
    Bulk,
    /// A person's tool.
    Operator,
    /// Adapters, chunk by chunk.
    Weights,
}

/// Under which peers meet that have no version in common.
const NO_VERSION: &[u8] = b"crrl control";
/// A person's tool; its requests are JSON and have no version of their own.
const OPERATOR: &[u8] = b"crrl-operator/1";
/// Somebody without a certificate who asks for one.
pub(crate) const STRANGER: &[u8] = b"crrl-join/1";
/// Longest word about what is spoken.
const WORD_BYTES_MAX: usize = 128;

/// The versions a node speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocols {
    /// The newest.
    pub newest: u8,
    /// The oldest; every one between as well.
    pub oldest: u8,
}

impl Default for Protocols {
    fn default() -> Self {
        Self { newest: VERSION, oldest: OLDEST }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.newest.checked_sub(self.oldest) {
            None | Some(0) => write!(f, "{}", self.newest),
            Some(1) => write!(f, "{} and {}", self.newest, self.oldest),
            Some(_) => write!(f, "{} to {}", self.newest, self.oldest),
        }
    }
}

impl Protocols {
    /// Newest first.
    fn versions(self) -> impl Iterator<Item = u8> {
        (self.oldest..=self.newest).rev()
    }
}

/// What a negotiated name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// A connection between members, in this version.
    Member(Purpose, u8),
    /// Members that have no version in common.
    NoVersion,
    /// Somebody who asks for a certificate.
    Stranger,
}

/// Names that are offered, or accepted, for a purpose; the first that both sides know is taken.
pub(crate) fn names(purpose: Purpose, protocols: Protocols) -> Vec<Vec<u8>> {
    let versions = |what: &'static str| {
        protocols.versions().map(move |version| format!("crrl/{version} {what}").into_bytes())
    };
    match purpose {
        Purpose::Control => versions("control").chain([NO_VERSION.to_vec()]).collect(),
        Purpose::Bulk => versions("bulk").collect(),
        Purpose::Operator => vec![OPERATOR.to_vec()],
        Purpose::Weights => versions("weights").collect(),
    }
}

/// Names an acceptor takes.
pub(crate) fn accepted(protocols: Protocols, strangers: bool) -> Vec<Vec<u8>> {
    let members = [Purpose::Bulk, Purpose::Weights, Purpose::Operator, Purpose::Control];
    let mut all: Vec<_> =
        members.into_iter().flat_map(|purpose| names(purpose, protocols)).collect();
    if strangers {
        all.insert(0, STRANGER.to_vec());
    }
    all
}

/// What a name stands for; none for one that is not ours.
pub(crate) fn spoken(name: &[u8], protocols: Protocols) -> Option<Spoken> {
    if name == NO_VERSION {
        return Some(Spoken::NoVersion);
    }
    if name == STRANGER {
        return Some(Spoken::Stranger);
    }
    if name == OPERATOR {
        return Some(Spoken::Member(Purpose::Operator, protocols.newest));
    }
    protocols.versions().find_map(|version| {
        let is = |what: &str| name == format!("crrl/{version} {what}").as_bytes();
        let purposes =
            [("control", Purpose::Control), ("bulk", Purpose::Bulk), ("weights", Purpose::Weights)];
        let purpose = purposes.into_iter().find(|(what, _)| is(what))?.1;
        Some(Spoken::Member(purpose, version))
    })
}

/// Tells the peer what is spoken here and hears what is spoken there. `None` where it does not say.
pub(crate) async fn compare(
    quic: &quinn::Connection,
    ours: Protocols,
    dialled: bool,
    within: Duration,
) -> Option<Protocols> {
    let exchange = async {
        let (mut send, mut recv) =
            if dialled { quic.open_bi().await.ok()? } else { quic.accept_bi().await.ok()? };
        let word = serde_json::to_vec(&ours).ok()?;
        write_frame(&mut send, &word).await.ok()?;
        let theirs = read_frame(&mut recv, WORD_BYTES_MAX).await.ok()?;
        let _ = send.finish();
        // Closing before it was read would take it back.
        let _ = send.stopped().await;
        serde_json::from_slice(&theirs).ok()
    };
    tokio::time::timeout(within, exchange).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_comes_first_and_the_name_without_one_last() {
        let ours = accepted(Protocols { newest: 3, oldest: 2 }, false);
        let first = |theirs: Protocols| {
            let offered = names(Purpose::Control, theirs);
            ours.iter().find(|name| offered.contains(name)).expect("one in common").clone()
        };
        assert_eq!(first(Protocols { newest: 2, oldest: 1 }), b"crrl/2 control");
        assert_eq!(first(Protocols { newest: 4, oldest: 3 }), b"crrl/3 control");
        assert_eq!(first(Protocols { newest: 9, oldest: 8 }), NO_VERSION);
    }

    #[test]
    fn what_is_spoken_reads_as_people_say_it() {
        assert_eq!(Protocols { newest: 2, oldest: 1 }.to_string(), "2 and 1");
        assert_eq!(Protocols { newest: 5, oldest: 5 }.to_string(), "5");
    }
}
