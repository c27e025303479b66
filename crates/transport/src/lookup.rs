//! Hosts by name: looked up at every dial, and all of their addresses tried.
//!
//! Addresses of the two families take turns, and each has a head start over the next (RFC 8305): one at
//! which nobody answers makes a dial longer, and does not end it. Nothing is kept from one dial to the
//! next: a host that has moved is found where it is.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crrl_types::{HostName, HostPort};
use tokio::task::JoinSet;

use crate::net_thread::NetThread;

/// How long a name may take to be looked up. Whoever needs it dials again.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an address is tried before the next one is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// A host name that stands for no address right now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the host name {host} cannot be resolved ({message}): is it spelled right, does this machine's DNS \
     or /etc/hosts know it?"
)]
pub struct Unresolved {
    /// The name.
    pub host: HostName,
    /// What the system said.
    pub message: String,
}

/// Where to dial, the first to be tried first; never nowhere.
pub(crate) async fn addresses(
    net: &NetThread,
    at: &HostPort,
) -> Result<Vec<SocketAddr>, Unresolved> {
    let (host, port) = match at {
        HostPort::Ip(address) => return Ok(vec![*address]),
        HostPort::Name { host, port } => (host, *port),
    };
    let unresolved = |message: String| Unresolved { host: host.clone(), message };
    let found = tokio::time::timeout(LOOKUP_TIMEOUT, net.look_up(host, port))
        .await
        .map_err(|_| unresolved(format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs())))?
        .map_err(|error| unresolved(error.to_string()))?;
    let found = in_turn(&found);
    if found.is_empty() { Err(unresolved("it has no address".into())) } else { Ok(found) }
}

/// Each address once, the two families in turn, beginning with that of the first.
fn in_turn(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = found.first() else { return Vec::new() };
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) =
        found.iter().copied().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut turns: Vec<SocketAddr> = Vec::new();
    while turns.len() < ADDRESSES_MAX
        && let Some(address) = one.pop_front().or_else(|| other.pop_front())
    {
        if !turns.contains(&address) {
            turns.push(address);
            std::mem::swap(&mut one, &mut other);
        }
    }
    turns
}

/// Tries addresses until one is good; the others are let go of then.
///
/// # Errors
/// What went wrong at each, in the order it did.
pub(crate) async fn first_of<T, E, F>(
    addresses: Vec<SocketAddr>,
    dial: impl Fn(SocketAddr) -> F,
) -> Result<T, Vec<E>>
where
    T: Send + 'static,
    E: Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let mut rest = addresses.into_iter();
    let mut tried = JoinSet::new();
    let mut errors = Vec::new();
    loop {
        let next = rest.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            tried.spawn(dial(address));
        }
        let ended = match is_last {
            true => tried.join_next().await,
            false => match tokio::time::timeout(HEAD_START, tried.join_next()).await {
                Ok(ended) => ended,
                // Its head start is over.
                Err(_) => continue,
            },
        };
        match ended {
            Some(Ok(Ok(good))) => return Ok(good),
            Some(Ok(Err(error))) => errors.push(error),
            // Nobody cancels them: it has panicked, and so does whoever waits for it.
            Some(Err(error)) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
            None if is_last => return Err(errors),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_take_turns_and_no_address_is_tried_twice() {
        let found =
            ["[::1]:7", "[::1]:7", "[::2]:7", "10.0.0.1:7", "10.0.0.1:7", "10.0.0.2:7", "[::3]:7"];
        let turns = in_turn(&found.map(at));
        let wanted = ["[::1]:7", "10.0.0.1:7", "[::2]:7", "10.0.0.2:7", "[::3]:7"];
        assert_eq!(turns, wanted.map(at));
        let many: Vec<SocketAddr> = (1..100).map(|port| ([10, 0, 0, 1], port).into()).collect();
        assert_eq!(in_turn(&many), many[..ADDRESSES_MAX]);
        assert!(in_turn(&[]).is_empty());
    }

    #[tokio::test]
    async fn an_address_at_which_nobody_answers_does_not_hold_the_others_up() {
        let addresses = ["[::1]:1", "10.0.0.1:2", "10.0.0.2:3"].map(at).to_vec();
        // The first is silent, the second refuses, the third answers.
        let dial = |address: SocketAddr| async move {
            match address.port() {
                1 => std::future::pending().await,
                2 => Err("refused"),
                port => Ok(port),
            }
        };
        let deadline = Duration::from_secs(20);
        let answered = tokio::time::timeout(deadline, first_of(addresses.clone(), dial)).await;
        assert_eq!(answered.expect("one answers"), Ok(3));
        let never = |address: SocketAddr| async move { Err::<(), _>(address.port()) };
        assert_eq!(first_of(addresses, never).await, Err(vec![1, 2, 3]));
    }
}
