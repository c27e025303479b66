//! Join tokens: one line of text that lets one node in once.
//!
//! A token says where to knock, the pin of the authority to trust there, and a secret. The run's
//! folder keeps a file for each token, `tls/tokens/ID.json`, with the secret's hash only. Taking one
//! renames the file, which only one taker can do; whoever took it may take it again with the same
//! key, since the answer may have been lost.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crrl_transport::{NoEntropy, Pin, random_bytes};
use crrl_types::{Host, HostName, HostPort, NodeName};
use data_encoding::BASE32_NOPAD_NOCASE;
use serde::{Deserialize, Serialize};

/// How a token begins.
pub const PREFIX: &str = "crrl1";
/// Bytes of its checksum, which tells a token that was cut or mistyped.
const CHECK_BYTES: usize = 2;
/// Longest text that is read as one: with the longest name of a host.
const TEXT_CHARS_MAX: usize = 600;
/// How long a token that has expired or was taken is remembered, so that it can be said.
const KEPT_S: i64 = 7 * 24 * 3600;

/// What a token's first byte says of where to knock: an IPv4 address.
const FOUR: u8 = 4;
/// An IPv6 address.
const SIX: u8 = 6;
/// A host's name, after a byte that says how long it is. No earlier build knows it.
const NAMED: u8 = 1;

type Id = [u8; 8];
type Secret = [u8; 16];

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Who is let in.
    pub name: NodeName,
    /// Where.
    pub at: HostPort,
    /// The authority's pin.
    pub pin: Pin,
    id: Id,
    secret: Secret,
}

/// Text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no token: {0}; `crrl cluster invite NAME --token` prints one")]
pub struct NotAToken(&'static str);

/// Who is to be let in with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The node.
    pub name: NodeName,
    /// The machine it knocks at: others it dials are reached there too.
    pub address: Host,
    /// Hours its certificate is valid.
    pub hours: u32,
    /// Last second the token is good for, since the Unix epoch.
    pub good_until_s: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    ticket: Ticket,
    /// BLAKE3 of the secret.
    secret: String,
}

/// Why nobody is let in with a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Unknown here, or with another secret; which of the two is not said.
    #[error("the token is not known here")]
    Unknown,
    /// Somebody had it before.
    #[error("the token was used already; ask for another: crrl cluster invite {0} --token")]
    Used(NodeName),
    /// Too late.
    #[error("the token has expired; ask for another: crrl cluster invite {0} --token")]
    Expired(NodeName),
    /// The folder of tokens.
    #[error("tokens cannot be looked up: {0}")]
    Folder(String),
}

/// A token that could not be made, or taken back.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The system's randomness.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    /// A file.
    #[error("cannot write or remove {path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Token {
    /// The token's number, which is no secret.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// The secret, as it is shown at the door.
    #[must_use]
    pub fn secret(&self) -> String {
        hex(&self.secret)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(80);
        match self.at.host() {
            Host::Ip(IpAddr::V4(ip)) => {
                bytes.push(FOUR);
                bytes.extend(ip.octets());
            }
            Host::Ip(IpAddr::V6(ip)) => {
                bytes.push(SIX);
                bytes.extend(ip.octets());
            }
            Host::Name(name) => {
                bytes.push(NAMED);
                // A name has 254 characters at most.
                bytes.push(u8::try_from(name.as_str().len()).unwrap_or(u8::MAX));
                bytes.extend(name.as_str().bytes());
            }
        }
        bytes.extend(self.at.port().to_be_bytes());
        bytes.extend(self.pin);
        bytes.extend(self.id);
        bytes.extend(self.secret);
        bytes.extend(self.name.as_str().as_bytes());
        bytes
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::hash(bytes);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash.as_bytes()[..CHECK_BYTES]);
    check
}

/// Bytes of a token as text, with their checksum.
pub(crate) fn text(mut bytes: Vec<u8>) -> String {
    bytes.extend(check(&bytes));
    format!("{PREFIX}{}", BASE32_NOPAD_NOCASE.encode(&bytes).to_lowercase())
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self.bytes()))
    }
}

/// Without the secret: tokens end up in logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} at {}, {})", self.name, self.at, self.id())
    }
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let text = text.trim();
        if text.len() > TEXT_CHARS_MAX {
            return Err(NotAToken("it is too long"));
        }
        let body = text.strip_prefix(PREFIX).ok_or(NotAToken("it begins with something else"))?;
        let damaged = NotAToken("it was cut or mistyped");
        let bytes = BASE32_NOPAD_NOCASE.decode(body.as_bytes()).map_err(|_| damaged.clone())?;
        let (bytes, sum) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(damaged.clone())?;
        if check(bytes) != *sum {
            return Err(damaged);
        }
        let mut rest = bytes;
        let host = match take::<1>(&mut rest).ok_or(damaged.clone())? {
            [FOUR] => take::<4>(&mut rest).map(|four| Host::Ip(Ipv4Addr::from(four).into())),
            [SIX] => take::<16>(&mut rest).map(|six| Host::Ip(Ipv6Addr::from(six).into())),
            [NAMED] => take_name(&mut rest).map(Host::Name),
            _ => return Err(NotAToken("it is of another build")),
        };
        let host = host.ok_or(damaged.clone())?;
        let mut parts =
            || Some((take(&mut rest)?, take(&mut rest)?, take(&mut rest)?, take(&mut rest)?));
        let (port, pin, id, secret) = parts().ok_or(damaged.clone())?;
        let name = std::str::from_utf8(rest).ok().filter(|name| crrl_config::is_node_name(name));
        let name = name.ok_or(damaged)?;
        let at = host.with_port(u16::from_be_bytes(port));
        Ok(Self { name: name.into(), at, pin, id, secret })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn take_name(bytes: &mut &[u8]) -> Option<HostName> {
    let [len] = take::<1>(bytes)?;
    let (name, rest) = bytes.split_at_checked(len.into())?;
    *bytes = rest;
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// The tokens of a run.
#[derive(Debug, Clone)]
pub struct Tokens(PathBuf);

impl Tokens {
    /// Of a folder of certificates.
    #[must_use]
    pub fn of(tls: &Path) -> Self {
        Self(tls.join("tokens"))
    }

    fn path(&self, id: &str, suffix: &str) -> PathBuf {
        self.0.join(format!("{id}.{suffix}"))
    }

    /// Makes a token for whoever is to be let in there, on disk before it is returned.
    ///
    /// # Errors
    /// [`MintError`].
    pub fn mint(
        &self,
        ticket: Ticket,
        at: HostPort,
        pin: Pin,
        now_s: i64,
    ) -> Result<Token, MintError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| MintError::File { path, source }
        };
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&self.0).map_err(file(&self.0))?;
        self.forget(now_s);
        let (id, secret) = (random_bytes()?, random_bytes()?);
        let token = Token { name: ticket.name.clone(), at, pin, id, secret };
        let kept = Kept { ticket, secret: blake3::hash(&secret).to_string() };
        let json = serde_json::to_vec(&kept).expect("plain data has a text");
        let path = self.path(&token.id(), "json");
        let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = written.and_then(|mut file| {
            file.write_all(&json)?;
            file.sync_all()?;
            fs::File::open(&self.0)?.sync_all()
        });
        written.map_err(file(&path))?;
        Ok(token)
    }

    /// Takes a token for whoever shows its secret, with the digest of the key a certificate is asked
    /// for. Only one key gets it.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn take(&self, id: &str, secret: &str, key: &str, now_s: i64) -> Result<Ticket, NotTaken> {
        let odd = |error: &std::io::Error| NotTaken::Folder(error.to_string());
        // It becomes part of a path.
        if id.len() != 2 * size_of::<Id>() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotTaken::Unknown);
        }
        let shown: Secret = data_encoding::HEXLOWER
            .decode(secret.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(NotTaken::Unknown)?;
        let (open, used) = (self.path(id, "json"), self.path(id, "used"));
        let (kept, fresh) = match read(&open).map_err(|error| odd(&error))? {
            Some(kept) => (kept, true),
            None => (read(&used).map_err(|error| odd(&error))?.ok_or(NotTaken::Unknown)?, false),
        };
        // Hashes of `blake3` compare in constant time.
        let right =
            blake3::Hash::from_str(&kept.secret).is_ok_and(|held| held == blake3::hash(&shown));
        if !right {
            return Err(NotTaken::Unknown);
        }
        let ticket = kept.ticket;
        if ticket.good_until_s < now_s {
            return Err(NotTaken::Expired(ticket.name));
        }
        let by = self.path(id, "by");
        if !fresh {
            return match fs::read_to_string(&by) {
                Ok(taker) if taker == key => Ok(ticket),
                _ => Err(NotTaken::Used(ticket.name)),
            };
        }
        match fs::rename(&open, &used) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(NotTaken::Used(ticket.name));
            }
            Err(error) => return Err(odd(&error)),
        }
        let noted = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&by);
        let noted = noted.and_then(|mut file| {
            file.write_all(key.as_bytes())?;
            file.sync_all()?;
            fs::File::open(&self.0)?.sync_all()
        });
        noted.map_err(|error| odd(&error))?;
        Ok(ticket)
    }

    /// Takes back every token of a name, those that were taken included: nobody is let in with one. How many
    /// there were.
    ///
    /// # Errors
    /// [`MintError::File`]: the folder cannot be read, or one cannot be removed.
    pub fn withdraw(&self, name: &NodeName) -> Result<usize, MintError> {
        let ids = self.ids_of(name)?;
        for id in &ids {
            // In this order: whoever takes it at this moment makes the second of the first.
            for suffix in ["json", "used", "by"] {
                remove(&self.path(id, suffix))?;
            }
        }
        Ok(ids.len())
    }

    /// Whether there are tokens of a name, used or not.
    ///
    /// # Errors
    /// [`MintError::File`]: the folder cannot be read.
    pub fn has(&self, name: &NodeName) -> Result<bool, MintError> {
        Ok(!self.ids_of(name)?.is_empty())
    }

    fn ids_of(&self, name: &NodeName) -> Result<BTreeSet<String>, MintError> {
        let folder = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeSet::new());
            }
            folder => folder,
        };
        let folder = folder.map_err(|source| MintError::File { path: self.0.clone(), source })?;
        // What cannot be read lets nobody in.
        let is_of = |path: &PathBuf| {
            read(path).ok().flatten().is_some_and(|kept| kept.ticket.name == *name)
        };
        let paths = folder.flatten().map(|entry| entry.path()).filter(is_of);
        Ok(paths.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect())
    }

    /// Removes what nobody will ask for any more.
    fn forget(&self, now_s: i64) {
        for path in fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path())
        {
            let old = read(&path).ok().flatten();
            if old.is_some_and(|kept| kept.ticket.good_until_s + KEPT_S < now_s) {
                let _ = fs::remove_file(path.with_extension("by"));
                let _ = fs::remove_file(&path);
            }
        }
    }
}

fn remove(path: &Path) -> Result<(), MintError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(MintError::File { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> std::io::Result<Option<Kept>> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(std::io::Error::other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        let address = Host::Ip([10, 0, 0, 5].into());
        Ticket { name: "gpu-box".into(), address, hours: 1, good_until_s: 1000 }
    }

    fn minted() -> (tempfile::TempDir, Tokens, Token) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tokens = Tokens::of(folder.path());
        let at = "10.0.0.5:7411".parse().expect("an address");
        let token = tokens.mint(ticket(), at, [3; 16], 0).expect("writable");
        (folder, tokens, token)
    }

    #[test]
    fn a_token_reads_back_and_a_damaged_one_does_not() {
        let at = "10.0.0.5:7411".parse().expect("an address");
        let (id, secret) = ([1; 8], [2; 16]);
        let token = Token { name: "gpu-box".into(), at, pin: [3; 16], id, secret };
        let text = token.to_string();
        assert!(text.len() < 110, "{} characters", text.len());
        assert_eq!(text.parse::<Token>(), Ok(token.clone()));
        assert_eq!(
            format!("  {}\n", text.to_uppercase().replacen("CRRL1", "crrl1", 1)).parse(),
            Ok(token.clone())
        );
        let longest = format!("{}:7411", vec!["n".repeat(62); 4].join("."));
        for other in ["[fe80::1]:9", "trainer.crrl.svc.cluster.local:7411", &longest] {
            let at = other.parse().expect("an address");
            let other = Token { at, ..token.clone() };
            assert_eq!(other.to_string().parse(), Ok(other));
        }
        for at in PREFIX.len()..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'a' { b'b' } else { b'a' };
            let damaged = String::from_utf8(damaged).expect("was ASCII");
            assert!(damaged.parse::<Token>().is_err(), "{damaged}");
            assert!(text[..at].parse::<Token>().is_err(), "cut at {at}");
        }
        assert!(!format!("{token:?}").contains(&token.secret()), "the secret would be logged");
        let long = Token { name: "n".repeat(49).into(), ..token };
        assert!(long.to_string().parse::<Token>().is_err(), "no node may be named so");
    }

    #[test]
    fn a_token_is_taken_once_in_time_and_with_its_secret() {
        let (folder, tokens, token) = minted();
        let (id, secret) = (token.id(), token.secret());
        let take = |id: &str, secret: &str, key, now| tokens.take(id, secret, key, now);
        let wrong = "00".repeat(16);
        assert_eq!(take(&id, &wrong, "key", 5), Err(NotTaken::Unknown));
        assert_eq!(take("0011223344556677", &secret, "key", 5), Err(NotTaken::Unknown));
        assert_eq!(take("../../../etc/pass", &secret, "key", 5), Err(NotTaken::Unknown));
        assert_eq!(take(&id, &secret, "key", 1001), Err(NotTaken::Expired("gpu-box".into())));
        assert_eq!(take(&id, &secret, "key", 5), Ok(ticket()));
        assert_eq!(take(&id, &secret, "other", 5), Err(NotTaken::Used("gpu-box".into())));
        assert_eq!(take(&id, &secret, "key", 6), Ok(ticket()), "the answer was lost");
        assert_eq!(take(&id, &wrong, "key", 6), Err(NotTaken::Unknown));
        // Nothing on disk lets anybody in.
        for file in fs::read_dir(folder.path().join("tokens")).expect("is there").flatten() {
            let text = fs::read_to_string(file.path()).expect("text");
            assert!(!text.contains(&secret), "{}", file.path().display());
        }
        // Long after, it is forgotten.
        let later = 1001 + KEPT_S;
        tokens
            .mint(Ticket { good_until_s: later + 9, ..ticket() }, token.at, [0; 16], later)
            .expect("writable");
        assert_eq!(take(&id, &secret, "key", 6), Err(NotTaken::Unknown));
    }

    #[test]
    fn a_token_that_was_taken_back_lets_nobody_in_whether_it_was_used_or_not() {
        let (folder, tokens, used) = minted();
        let unused = tokens.mint(ticket(), used.at.clone(), [3; 16], 0).expect("writable");
        let another = Ticket { name: "other".into(), ..ticket() };
        let another = tokens.mint(another, used.at.clone(), [3; 16], 0).expect("writable");
        let take = |token: &Token| tokens.take(&token.id(), &token.secret(), "key", 5);
        assert_eq!(take(&used), Ok(ticket()));
        assert_eq!(tokens.withdraw(&"gpu-box".into()).expect("writable"), 2);
        // The same key may ask again as long as the token is there.
        assert_eq!(take(&used), Err(NotTaken::Unknown));
        assert_eq!(take(&unused), Err(NotTaken::Unknown));
        assert!(take(&another).is_ok(), "it is of another name");
        assert_eq!(tokens.withdraw(&"gpu-box".into()).expect("writable"), 0);
        let empty = Tokens::of(&folder.path().join("nothing"));
        assert_eq!(empty.withdraw(&"gpu-box".into()).expect("no folder is no token"), 0);
    }
}
