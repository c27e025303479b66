//! The door for nodes without a certificate: a token there, a certificate and the run's settings back.
//!
//! This is the one thing that can be reached without a certificate. It is bounded in how many are
//! served at once, in all and for each address, how long each may take, how much each may say and how many
//! wrong tokens of an address are looked at in a minute. What is said is JSON in one frame each way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crrl_control::wire::NodeRole;
use crrl_transport::{
    Authority, AuthorityError, Door, KnockError, NetThread, Pending, Stranger, Validity,
    is_revoked, read_frame, readmit, write_frame,
};
use crrl_types::{Digest, Host, NodeName};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::crowd::{Shares, origin};
use crate::invitation::{Guest, Invitation, InvitationError};
use crate::mesh::roles_of;
use crate::peer::Shared;
use crate::renewal::now_s;
use crate::run_dir::RunDir;
use crate::token::{NotTaken, Ticket, Token, Tokens};

/// Longest question: a token and a request for a certificate.
const QUESTION_BYTES_MAX: usize = 8 << 10;
/// Longest answer: certificates and a configuration.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Strangers that are served at once; others are told to come again.
const SERVED_AT_ONCE: usize = 64;
/// Those of them that come from one address: half, and room for 32 nodes of one machine.
const SERVED_OF_ORIGIN: usize = SERVED_AT_ONCE / 2;
/// How long one may say nothing. Whoever knocks has its question at hand.
const SILENT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one may take in all.
const SERVED_TIMEOUT: Duration = Duration::from_secs(10);
/// Wrong tokens from an address within [`WRONG_WINDOW`] after which nobody from there is looked at for the
/// rest of it.
const WRONG_MAX: u32 = 30;
/// See [`WRONG_MAX`].
const WRONG_WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose wrong tokens are counted. Past it the one that was wrong longest ago is forgotten: what
/// keeps anybody from finding a token is its 128 bits, and this only keeps a disk from being asked for ever.
const WRONG_ORIGINS_MAX: usize = 1024;
/// How long a node waits for an answer at the door.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// What a stranger says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    pub(crate) token: String,
    pub(crate) secret: String,
    pub(crate) request: String,
}

/// What a stranger is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Welcome(Box<Invitation>),
    Refused(String),
}

/// Why a node was not let in.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The door was not found.
    #[error(transparent)]
    Knock(#[from] KnockError),
    /// Whoever answered is a member, but not the coordinator.
    #[error("{0} answered, which is not the coordinator: the token names a wrong address")]
    NotCoordinator(NodeName),
    /// The door was found and stayed shut.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// The connection broke, or the answer was none.
    #[error("the coordinator's answer was not understood: {0}")]
    Broken(String),
    /// A file here.
    #[error(transparent)]
    Invitation(#[from] InvitationError),
    /// A thread.
    #[error("cannot start the network thread: {0}")]
    Thread(std::io::Error),
}

/// As [`token`], for whoever an operator invites: a name that was revoked is let in again.
///
/// # Errors
/// As [`Invitation::issue`].
pub fn invite(
    run: &RunDir,
    name: &NodeName,
    address: Option<&Host>,
    hours: u32,
    good_for: Duration,
) -> Result<Token, InvitationError> {
    Invitation::door(run, name, address)?;
    readmit(&run.tls(), name)?;
    token(run, name, address, hours, good_for)
}

/// Makes a token with which a node joins once, within `good_for`. The run must have been prepared.
///
/// # Errors
/// As [`Invitation::issue`]; also [`AuthorityError::Revoked`].
pub fn token(
    run: &RunDir,
    name: &NodeName,
    address: Option<&Host>,
    hours: u32,
    good_for: Duration,
) -> Result<Token, InvitationError> {
    let door = Invitation::door(run, name, address)?;
    let authority = Authority::pin_of(&run.tls())?;
    let now_s = now_s();
    let good_s = i64::try_from(good_for.as_secs()).unwrap_or(i64::MAX);
    let ticket = Ticket {
        name: name.clone(),
        address: door.host(),
        hours,
        good_until_s: now_s.saturating_add(good_s),
    };
    let tokens = Tokens::of(&run.tls());
    let token = tokens.mint(ticket, door, authority, now_s)?;
    // After it is there: whoever revokes the name at this moment takes it away, or is seen here.
    if is_revoked(&run.tls(), name)? {
        tokens.withdraw(name)?;
        return Err(AuthorityError::Revoked(name.clone()).into());
    }
    Ok(token)
}

/// Whether somebody is looked at, by how many wrong tokens came from there: a window for each origin, that
/// begins with its first wrong one. Pure: time is passed in.
#[derive(Debug, Default)]
struct Patience(HashMap<IpAddr, Wrong>);

#[derive(Debug)]
struct Wrong {
    since: Instant,
    count: u32,
}

impl Wrong {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WRONG_WINDOW
    }
}

impl Patience {
    fn allows(&self, from: IpAddr, now: Instant) -> bool {
        self.0.get(&from).is_none_or(|wrong| wrong.is_over(now) || wrong.count < WRONG_MAX)
    }

    fn wrong(&mut self, from: IpAddr, now: Instant) {
        self.0.retain(|_, wrong| !wrong.is_over(now));
        if self.0.len() >= WRONG_ORIGINS_MAX && !self.0.contains_key(&from) {
            let oldest = self.0.iter().min_by_key(|(_, wrong)| wrong.since).map(|(ip, _)| *ip);
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
        self.0.entry(from).or_insert(Wrong { since: now, count: 0 }).count += 1;
    }
}

/// What the door of a node remembers.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    slots: Semaphore,
    shares: Shares,
    patience: Mutex<Patience>,
}

impl Default for Doorkeeper {
    fn default() -> Self {
        Self {
            slots: Semaphore::new(SERVED_AT_ONCE),
            shares: Shares::of_each(SERVED_OF_ORIGIN),
            patience: Mutex::default(),
        }
    }
}

/// Answers a stranger's one question.
pub(crate) async fn serve(shared: &Arc<Shared>, stranger: &Stranger) -> Result<(), String> {
    let doorkeeper = &shared.doorkeeper;
    let refuse = |reason: &str| {
        stranger.close(reason);
        Err(format!("a stranger was turned away: {reason}"))
    };
    let from = origin(stranger.quic.remote_address());
    let share = doorkeeper.shares.of(from).try_acquire_owned();
    let (Ok(_share), Ok(_slot)) = (share, doorkeeper.slots.try_acquire()) else {
        return refuse("too many are asking at once; try again");
    };
    let Some(run) = shared.options.signs.clone() else {
        return refuse("this node lets nobody in");
    };
    let patient = {
        let patience = doorkeeper.patience.lock().unwrap_or_else(PoisonError::into_inner);
        patience.allows(from, Instant::now())
    };
    if !patient {
        return refuse("there were too many wrong tokens; try again in a minute");
    }
    match tokio::time::timeout(SERVED_TIMEOUT, answer(shared, run, stranger)).await {
        Err(_) => refuse("it took too long"),
        Ok(Err(reason)) => refuse(&reason),
        Ok(Ok(())) => {
            stranger.close("done");
            Ok(())
        }
    }
}

async fn answer(shared: &Shared, run: RunDir, stranger: &Stranger) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (mut send, mut recv) = tokio::time::timeout(SILENT_TIMEOUT, stranger.quic.accept_bi())
        .await
        .map_err(|_| "nothing was asked in time".to_owned())?
        .map_err(|e| text(&e))?;
    let bytes = read_frame(&mut recv, QUESTION_BYTES_MAX).await.map_err(|e| text(&e))?;
    let question: Question = serde_json::from_slice(&bytes).map_err(|e| text(&e))?;
    let token = question.token.clone();
    // Files are written and synced.
    let judged = tokio::task::spawn_blocking(move || admit(&run, &question));
    let judged = judged.await.map_err(|e| text(&e))?;
    let answer = match judged {
        Ok(invitation) => {
            tracing::info!(node = %invitation.name, token, from = %stranger.quic.remote_address(), "let in with a token");
            Answer::Welcome(Box::new(invitation))
        }
        Err(refusal) => {
            if matches!(refusal, Refusal::Token(NotTaken::Unknown)) {
                let mut patience =
                    shared.doorkeeper.patience.lock().unwrap_or_else(PoisonError::into_inner);
                patience.wrong(origin(stranger.quic.remote_address()), Instant::now());
            }
            tracing::warn!(%refusal, from = %stranger.quic.remote_address(), "a token was refused");
            Answer::Refused(refusal.to_string())
        }
    };
    let json = serde_json::to_vec(&answer).map_err(|e| text(&e))?;
    write_frame(&mut send, &json).await.map_err(|e| text(&e))?;
    let _ = send.finish();
    // Closing before it was read would take it back.
    let _ = send.stopped().await;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Token(#[from] NotTaken),
    #[error(transparent)]
    Invitation(#[from] InvitationError),
}

/// Takes the token and signs what was asked for.
fn admit(run: &RunDir, question: &Question) -> Result<Invitation, Refusal> {
    let Question { token, secret, request } = question;
    // Whoever asks again with the same key sends the same public key, though another signature.
    let key = Invitation::key_of(request)?;
    let ticket = Tokens::of(&run.tls()).take(token, secret, &key, now_s())?;
    let guest = Guest {
        name: ticket.name,
        address: Some(ticket.address),
        validity: Validity::hours(ticket.hours),
    };
    Ok(Invitation::grant(run, &guest, request)?)
}

/// Asks for a certificate with a token, for the key that waits in `tls`. The key stays there.
///
/// # Errors
/// [`JoinError`], with what to do about it.
pub async fn knock(token: &Token, pending: &Pending) -> Result<Invitation, JoinError> {
    let broken = |error: &dyn std::fmt::Display| JoinError::Broken(error.to_string());
    let net = NetThread::start("join").map_err(JoinError::Thread)?;
    let door = Door::knock_host(&net, &token.at, token.pin, KNOCK_TIMEOUT).await?;
    if !roles_of(&door.host.roles).contains(&NodeRole::Coordinator) {
        return Err(JoinError::NotCoordinator(door.host.name.clone()));
    }
    let question = Question {
        token: token.id(),
        secret: token.secret(),
        request: pending.request().to_owned(),
    };
    let json = serde_json::to_vec(&question).map_err(|error| broken(&error))?;
    let asking = async {
        let (mut send, mut recv) = door.quic.open_bi().await.map_err(|e| broken(&e))?;
        write_frame(&mut send, &json).await.map_err(|e| broken(&e))?;
        let _ = send.finish();
        read_frame(&mut recv, ANSWER_BYTES_MAX).await.map_err(|e| broken(&e))
    };
    let asked = tokio::time::timeout(SERVED_TIMEOUT, asking).await;
    let asked = asked.unwrap_or_else(|_| Err(broken(&"none came in time")));
    // Whoever is turned away learns why from how the connection was closed.
    let closed = door.quic.close_reason().map(|reason| crrl_transport::why(&reason));
    door.close().await;
    let answer = match (asked, closed) {
        (Err(_), Some(reason)) => return Err(JoinError::Refused(reason)),
        (asked, _) => asked?,
    };
    match serde_json::from_slice(&answer).map_err(|error| broken(&error))? {
        Answer::Welcome(invitation) => Ok(*invitation),
        Answer::Refused(reason) => Err(JoinError::Refused(reason)),
    }
}

/// What a request's key is known by.
pub(crate) fn digest_of_key(der: &[u8]) -> String {
    Digest::of(der).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_tokens_shut_the_door_for_the_rest_of_a_minute() {
        let mut patience = Patience::default();
        let start = Instant::now();
        let [from, other] = [[10_u8, 0, 0, 66], [10, 0, 0, 5]].map(IpAddr::from);
        for n in 0..WRONG_MAX {
            assert!(patience.allows(from, start), "after {n}");
            patience.wrong(from, start);
        }
        assert!(!patience.allows(from, start + WRONG_WINDOW / 2));
        assert!(patience.allows(other, start + WRONG_WINDOW / 2), "it was not there");
        assert!(patience.allows(from, start + WRONG_WINDOW));
        patience.wrong(from, start + WRONG_WINDOW);
        assert!(patience.allows(from, start + WRONG_WINDOW));
    }

    #[test]
    fn wrong_tokens_are_counted_for_a_bounded_number_of_addresses() {
        let mut patience = Patience::default();
        let start = Instant::now();
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 0..5000 {
            patience.wrong(address(n), start + Duration::from_millis(n.into()));
        }
        assert_eq!(patience.0.len(), WRONG_ORIGINS_MAX);
        assert!(patience.0.contains_key(&address(4999)), "the newest was forgotten");
    }
}
