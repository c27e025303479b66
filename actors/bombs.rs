//! What is meant to do harm from inside a sandbox, on purpose: to see that it ends there.
//!
//! The next episode of the node sets it off in its sandbox before its first turn, as a command of the
//! policy's would. What comes of it is the sandbox's business; nobody outside is to notice.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crrl_agent::Invocation;
use crrl_types::fault::{Bomb, Fault, FaultSeen};
use tokio::time::{Instant, timeout_at};

use crate::sandboxes::Lease;

/// Bombs that may wait, and bombs that are still told of.
const BOMBS_MAX: usize = 16;
/// What a way out to the network says of itself.
const OPEN: &str = "A WAY OUT";

/// The bombs of one node. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Bombs(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    waiting: VecDeque<(u64, Bomb)>,
    seen: VecDeque<FaultSeen>,
}

/// A bomb that some episode has taken.
#[derive(Debug)]
pub struct Lit {
    id: u64,
    bomb: Bomb,
    bombs: Bombs,
}

impl Bombs {
    /// For the next episode.
    pub fn add(&self, id: u64, bomb: Bomb) {
        self.change(|held| {
            if held.waiting.len() < BOMBS_MAX {
                held.waiting.push_back((id, bomb));
                held.seen.push_back(FaultSeen {
                    id,
                    fault: Fault::Bomb(bomb),
                    fired: 0,
                    active: true,
                });
            }
            while held.seen.len() > BOMBS_MAX {
                held.seen.pop_front();
            }
        });
    }

    /// The bomb that waits, if one does.
    #[must_use]
    pub fn take(&self) -> Option<Lit> {
        let (id, bomb) = self.change(|held| held.waiting.pop_front())?;
        Some(Lit { id, bomb, bombs: self.clone() })
    }

    /// What is known of each.
    #[must_use]
    pub fn seen(&self) -> Vec<FaultSeen> {
        self.change(|held| held.seen.iter().copied().collect())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn say(&self, id: u64, fired: u64, active: bool) {
        self.change(|held| {
            for seen in held.seen.iter_mut().filter(|seen| seen.id == id) {
                (seen.fired, seen.active) = (fired, active);
            }
        });
    }
}

impl Lit {
    /// Sets it off. One that found a way out is not counted: that it did is an error of ours.
    pub(crate) async fn set_off(self, sandbox: &mut Lease, deadline: Instant) {
        let Self { id, bomb, bombs } = self;
        tracing::warn!(?bomb, "set off in a sandbox");
        bombs.say(id, 1, true);
        let command = Invocation::Shell { cmd: command(bomb).to_owned() };
        let ended = timeout_at(deadline, sandbox.run(&command)).await;
        let escaped = match ended {
            Ok(Ok((output, _))) => {
                let last = output.lines().last().unwrap_or_default();
                tracing::warn!(?bomb, bytes = output.len(), last, "is over");
                output.contains(OPEN)
            }
            Ok(Err(error)) => {
                tracing::warn!(?bomb, %error, "its sandbox is over");
                false
            }
            Err(_) => {
                tracing::warn!(?bomb, "was still going when its episode's time was up");
                false
            }
        };
        if escaped {
            tracing::error!("A SANDBOX REACHED THE NETWORK");
        }
        bombs.say(id, u64::from(!escaped), false);
    }
}

/// As an agent would type it, out of the restricted shell first.
fn command(bomb: Bomb) -> &'static str {
    match bomb {
        Bomb::Fork => "env bash -c 'f() { f | f & }; f; while :; do :; done'",
        Bomb::Memory => "env bash -c 'for i in 1 2 3 4 5 6 7 8; do tail /dev/zero & done; wait'",
        Bomb::Output => "yes bomb",
        Bomb::Disk => {
            "env bash -c 'for i in $(seq 99); do head -c 4M /dev/zero > /tmp/$i; done; \
             touch $(seq 20000)'"
        }
        // Addresses that belong to nobody, and the machine itself.
        Bomb::Egress => {
            "env bash -c 'for to in tcp/127.0.0.1/22 tcp/192.0.2.1/80 udp/192.0.2.1/53; do \
             (exec 3<>/dev/$to) && echo A WAY OUT to $to; done'"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bomb_is_for_one_episode() {
        let bombs = Bombs::default();
        assert!(bombs.take().is_none());
        bombs.add(7, Bomb::Fork);
        let lit = bombs.take().expect("waits");
        assert!(bombs.take().is_none());
        assert_eq!((lit.id, lit.bomb), (7, Bomb::Fork));
        let seen = FaultSeen { id: 7, fault: Fault::Bomb(Bomb::Fork), fired: 0, active: true };
        assert_eq!(bombs.seen(), [seen]);
    }
}
