//! Where a node is reached: an IP address, or a name that is looked up, and a port.
//!
//! A name is kept as it was written. It is looked up by whoever dials, at every dial; never here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name (RFC 1035, section 2.3.4).
const NAME_CHARS_MAX: usize = 253;
/// Longest part of a name, between two dots.
const LABEL_CHARS_MAX: usize = 63;

/// The name of a machine, as DNS or the machine's own `/etc/hosts` knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Host {
    /// By its address.
    Ip(IpAddr),
    /// By its name.
    Name(HostName),
}

/// A port of a machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPort {
    /// By its address.
    Ip(SocketAddr),
    /// By its name.
    Name {
        /// The machine.
        host: HostName,
        /// The port.
        port: u16,
    },
}

/// Text that names no machine, or no port of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseHostError {
    /// No machine.
    #[error(
        "{0:?} is neither an IP address nor a host name: write one such as 10.0.0.5 or trainer.lan"
    )]
    Host(String),
    /// No port of a machine.
    #[error(
        "{0:?} is no address with a port: write IP:PORT, [IPv6]:PORT or NAME:PORT, such as \
         10.0.0.5:7411 or trainer.lan:7411"
    )]
    Port(String),
}

/// The beginning of some text, for an error.
fn shown(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX + 8).collect()
}

impl HostName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it always means the machine that asks (RFC 6761, section 6.3).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let name = self.0.strip_suffix('.').unwrap_or(&self.0).to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost")
    }
}

impl FromStr for HostName {
    type Err = ParseHostError;

    /// Letters, digits, `-` and, as containers are named, `_`; a dot at the end is allowed. A name whose
    /// last part is a number is none: it is an IP address that was mistyped.
    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let is_label = |label: &str| {
            (1..=LABEL_CHARS_MAX).contains(&label.len())
                && label.chars().all(plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let name = text.strip_suffix('.').unwrap_or(text);
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_name = name.len() <= NAME_CHARS_MAX
            && name.split('.').all(is_label)
            && !last.bytes().all(|byte| byte.is_ascii_digit());
        if is_name { Ok(Self(text.to_owned())) } else { Err(ParseHostError::Host(shown(text))) }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Host {
    /// Whether it is the machine that asks.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Ip(ip) => ip.is_loopback(),
            Self::Name(name) => name.is_loopback(),
        }
    }

    /// A port of it.
    #[must_use]
    pub fn with_port(self, port: u16) -> HostPort {
        match self {
            Self::Ip(ip) => HostPort::Ip(SocketAddr::new(ip, port)),
            Self::Name(host) => HostPort::Name { host, port },
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl FromStr for Host {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        match text.parse() {
            Ok(ip) => Ok(Self::Ip(ip)),
            Err(_) => text.parse().map(Self::Name),
        }
    }
}

impl TryFrom<String> for Host {
    type Error = ParseHostError;

    fn try_from(text: String) -> Result<Self, ParseHostError> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.to_string()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl HostPort {
    /// The machine.
    #[must_use]
    pub fn host(&self) -> Host {
        match self {
            Self::Ip(address) => Host::Ip(address.ip()),
            Self::Name { host, .. } => Host::Name(host.clone()),
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Name { port, .. } => *port,
        }
    }

    /// The address, where it needs no looking up.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Name { .. } => None,
        }
    }

    /// Whether it is of the machine that asks.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Ip(address) => address.ip().is_loopback(),
            Self::Name { host, .. } => host.is_loopback(),
        }
    }

    /// Whether it stands for every address of a machine: one to listen at, and none to dial.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.socket_addr().is_some_and(|address| address.ip().is_unspecified())
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl FromStr for HostPort {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let named = || {
            let (host, port) = text.rsplit_once(':')?;
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|_| is_number)?;
            Some(Self::Name { host: host.parse().ok()?, port })
        };
        named().ok_or_else(|| ParseHostError::Port(shown(text)))
    }
}

impl TryFrom<String> for HostPort {
    type Error = ParseHostError;

    fn try_from(text: String) -> Result<Self, ParseHostError> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(at: HostPort) -> Self {
        at.to_string()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_read_back_as_they_were_written() {
        for text in ["10.0.0.5:7411", "[fe80::1%3]:9", "trainer.lan:7411", "crrl_hub:1", "hub.:2"] {
            let at: HostPort = text.parse().expect("an address");
            assert_eq!(at.to_string(), text);
            let json = serde_json::to_string(&at).expect("plain data");
            assert_eq!(json, format!("{text:?}"), "as an address of an earlier build");
            assert_eq!(serde_json::from_str::<HostPort>(&json).expect("own text"), at);
            assert_eq!(at.socket_addr().is_some(), text.parse::<SocketAddr>().is_ok());
        }
        let host: Host = "worker-0.worker.crrl.svc.cluster.local".parse().expect("a name");
        assert_eq!(host.with_port(7411).port(), 7411);
        assert_eq!("::1".parse::<Host>().expect("an address").with_port(5).to_string(), "[::1]:5");
    }

    #[test]
    fn what_is_neither_is_refused_and_not_looked_up() {
        let long = "a".repeat(LABEL_CHARS_MAX + 1);
        let longer = ["abc"; 70].join(".");
        let wrong = ["", ".", "10.0.0.300", "10.0.0", "a..b", "-a", "a-", "a b", "ä", "a:1", "a/b"];
        for text in wrong.into_iter().chain([long.as_str(), longer.as_str()]) {
            let error = text.parse::<Host>().expect_err(text).to_string();
            assert!(error.contains("neither an IP address nor a host name"), "{error}");
        }
        for text in ["hub", "hub:", ":1", "hub:70000", "hub:+1", "10.0.0.300:1", "::1:1", "a:b:1"] {
            let error = text.parse::<HostPort>().expect_err(text).to_string();
            assert!(error.contains("NAME:PORT"), "{error}");
        }
    }

    #[test]
    fn this_very_machine_is_told_from_others() {
        for text in ["127.0.0.1:1", "[::1]:1", "localhost:1", "Localhost.:1", "a.localhost:1"] {
            assert!(text.parse::<HostPort>().expect("an address").is_loopback(), "{text}");
        }
        for text in ["10.0.0.1:1", "0.0.0.0:1", "trainer:1", "localhost.lan:1"] {
            assert!(!text.parse::<HostPort>().expect("an address").is_loopback(), "{text}");
        }
        assert!("0.0.0.0:1".parse::<HostPort>().expect("an address").is_unspecified());
    }
}
