//! Certificates renewed while the cluster runs.
//!
//! A node whose certificate has a third of its time left makes a new key and asks the coordinator for
//! a certificate, over the connection that its present one has opened. The coordinator signs for the
//! name and the roles which that connection has proven, and for nobody who was revoked; whoever asks again
//! soon is given what it was given, and nothing is signed for another key. The new certificate counts for
//! connections to come; those that are there go on.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use crrl_control::wire::{NodeRole, Wire};
use crrl_transport::{Authority, Credentials, Facts, Pending};
use crrl_types::NodeName;
use tokio::sync::watch;

use crate::invitation::Invitation;
use crate::mesh::{CastError, MeshOptions, role_text};
use crate::peer::{Peer, Shared, lock};
use crate::router::Inbound;
use crate::run_dir::RunDir;

/// Longest time between two looks at the certificate.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// Shortest.
const LOOK_MIN: Duration = Duration::from_millis(100);
/// Looks there are in the time in which a certificate may be renewed.
const LOOKS: u32 = 20;
/// Name of the route.
const ROUTE: &str = "renewal";

/// What a node knows of its certificate.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    valid_until_s: Mutex<i64>,
    /// What went wrong last; said once.
    trouble: Mutex<String>,
    /// Whether the certificate has expired and nobody is left who could give another.
    expired: watch::Sender<bool>,
    /// What this node has signed for others.
    grants: Mutex<Grants>,
}

/// The certificate that was signed last for each peer: every one is a line of a list that is kept for good.
/// Pure: time is passed in.
#[derive(Debug, Default)]
struct Grants(HashMap<NodeName, Grant>);

#[derive(Debug)]
struct Grant {
    at: Instant,
    /// Of the key it was asked for.
    key: String,
    /// None while it is being signed.
    certificate: Option<String>,
}

impl Grants {
    /// Whether one is to be signed; the last one where it was for the same key and the answer was lost.
    ///
    /// # Errors
    /// The last one is younger than `young`, and for another key or not there yet.
    fn begin(
        &mut self,
        name: &NodeName,
        key: &str,
        young: Duration,
        now: Instant,
    ) -> Result<Option<String>, String> {
        if let Some(last) = self.0.get(name).filter(|last| now.duration_since(last.at) < young) {
            let again = last.certificate.clone().filter(|_| last.key == key);
            return again.map(Some).ok_or_else(|| "it was given one a moment ago".to_owned());
        }
        let begun = Grant { at: now, key: key.to_owned(), certificate: None };
        self.0.insert(name.clone(), begun);
        Ok(None)
    }

    /// What came of it: where nothing was signed, it may be asked for again at once.
    fn done(&mut self, name: &NodeName, signed: Option<&str>) {
        match signed {
            None => drop(self.0.remove(name)),
            Some(certificate) => {
                if let Some(grant) = self.0.get_mut(name) {
                    grant.certificate = Some(certificate.to_owned());
                }
            }
        }
    }
}

impl Renewal {
    fn awaits(&self, options: &MeshOptions) -> bool {
        is_due(*lock(&self.valid_until_s), options.certificate.renewed_at(), now_s())
    }

    /// Resolves once the certificate has expired while the coordinator was away: nobody lets this
    /// node in any more.
    pub(crate) async fn expired(&self) {
        let mut expired = self.expired.subscribe();
        let _ = expired.wait_for(|expired| *expired).await;
    }
}

/// Seconds since the Unix epoch.
#[must_use]
pub fn now_s() -> i64 {
    let since =
        crrl_machine::clock::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Whether it is time to ask for another certificate.
fn is_due(valid_until_s: i64, renewed_at: Duration, now_s: i64) -> bool {
    let left = valid_until_s.saturating_sub(now_s);
    left <= i64::try_from(renewed_at.as_secs()).unwrap_or(i64::MAX)
}

/// Starts renewing this node's certificate and, on the node that signs, those of others.
pub(crate) fn start(shared: &Arc<Shared>, valid_until_s: i64) {
    *lock(&shared.renewal.valid_until_s) = valid_until_s;
    // The router belongs to what it would point at.
    let (weak, runtime) = (Arc::downgrade(shared), tokio::runtime::Handle::current());
    shared.router.register_fn(
        ROUTE,
        |wire| {
            matches!(wire, Wire::Renew { .. } | Wire::Renewed { .. } | Wire::RenewRefused { .. })
        },
        move |inbound| {
            let shared = Weak::upgrade(&weak).ok_or("this node has left")?;
            // Files are written and synced.
            runtime.spawn_blocking(move || hear(&shared, inbound));
            Ok(())
        },
    );
    tokio::spawn(keep_valid(Arc::clone(shared)));
}

async fn keep_valid(shared: Arc<Shared>) {
    let renewed_at = shared.options.certificate.renewed_at();
    let every = (renewed_at / LOOKS).clamp(LOOK_MIN, LOOK_MAX);
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shared.stopped() => return,
        }
        if !shared.renewal.awaits(&shared.options) {
            continue;
        }
        let asking = Arc::clone(&shared);
        let asked = tokio::task::spawn_blocking(move || ask(&asking)).await;
        trouble(&shared, asked.unwrap_or_else(|panic| Err(panic.to_string())).err());
        let late = *lock(&shared.renewal.valid_until_s) < now_s();
        if late && coordinator(&shared).is_none() {
            shared.renewal.expired.send_replace(true);
        }
    }
}

/// The coordinator, where it is another node and connected.
fn coordinator(shared: &Shared) -> Option<Arc<Peer>> {
    shared.peers().into_iter().find(|peer| peer.info.roles.contains(&NodeRole::Coordinator))
}

/// The same trouble over and over is one line.
fn trouble(shared: &Shared, error: Option<String>) {
    let mut last = lock(&shared.renewal.trouble);
    if let Some(error) = &error
        && *error != *last
    {
        tracing::warn!(error, "the certificate of this node is not renewed");
    }
    *last = error.unwrap_or_default();
}

fn ask(shared: &Shared) -> Result<(), String> {
    let name = &shared.options.name;
    let pending = Pending::open(&shared.options.tls, name).map_err(|error| error.to_string())?;
    if let Some(run) = &shared.options.signs {
        let own = fs::read(shared.options.tls.join(format!("{name}.pem"))).ok();
        let own = own.and_then(|pem| Facts::from_pem(&pem).ok());
        if own.is_some_and(|own| shared.endpoint.revocations().now_contains(own.fingerprint)) {
            return Err("it was revoked".to_owned());
        }
        let roles: Vec<String> =
            shared.roles.iter().map(|role| role_text(*role).to_owned()).collect();
        let signed = sign(shared, run, name, &roles, pending.request())?;
        return take_up(shared, pending, &signed);
    }
    let coordinator = coordinator(shared).ok_or("the coordinator is not connected")?;
    let request = pending.request().to_owned();
    match coordinator.cast(Wire::Renew { request }) {
        Ok(()) | Err(CastError::Congested(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn hear(shared: &Shared, inbound: Inbound) {
    let Inbound { from, wire, .. } = inbound;
    match wire {
        Wire::Renew { request } => {
            let answer = match grant(shared, &from, &request) {
                Ok(certificate) => Wire::Renewed { certificate },
                Err(reason) => {
                    tracing::warn!(node = %from, reason, "a certificate is not renewed");
                    Wire::RenewRefused { reason }
                }
            };
            if let Some(Err(error)) = shared.peer(&from).map(|peer| peer.cast(answer)) {
                tracing::info!(node = %from, %error, "it was not told; it asks again");
            }
        }
        // Another answer to a question that was asked twice is of no use any more.
        Wire::Renewed { certificate } if shared.renewal.awaits(&shared.options) => {
            let taken = Pending::open(&shared.options.tls, &shared.options.name)
                .map_err(|error| error.to_string())
                .and_then(|pending| take_up(shared, pending, &certificate));
            trouble(shared, taken.err());
        }
        Wire::RenewRefused { reason } => trouble(shared, Some(reason)),
        _ => {}
    }
}

/// A certificate for a peer, with the name and the roles that its connection has proven.
fn grant(shared: &Shared, from: &NodeName, request: &str) -> Result<String, String> {
    let run = shared.options.signs.as_ref().ok_or("this node does not sign")?;
    let peer = shared.peer(from).ok_or("it is not connected")?;
    let key = Invitation::key_of(request).map_err(|error| error.to_string())?;
    let young = shared.options.certificate.renewed_at() / LOOKS;
    let grants = &shared.renewal.grants;
    let again = lock(grants).begin(from, &key, young, Instant::now())?;
    let signed = match again {
        Some(certificate) => certificate,
        None => {
            let signed = sign(shared, run, from, &peer.control.peer.roles, request);
            lock(grants).done(from, signed.as_deref().ok());
            signed?
        }
    };
    // Of a name that was revoked nothing is signed; this one may have been revoked alone.
    match shared.endpoint.revocations().now_contains(peer.control.fingerprint) {
        true => Err("its certificate was revoked".to_owned()),
        false => Ok(signed),
    }
}

fn sign(
    shared: &Shared,
    run: &RunDir,
    name: &NodeName,
    roles: &[String],
    request: &str,
) -> Result<String, String> {
    Authority::open_or_create(&run.tls())
        .and_then(|authority| authority.sign(request, name, roles, shared.options.certificate))
        .map_err(|error| error.to_string())
}

/// Proves itself with a new certificate from now on.
fn take_up(shared: &Shared, pending: Pending, certificate: &str) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let facts = Facts::from_pem(certificate.as_bytes()).map_err(|error| text(&error))?;
    if facts.identity.name != shared.options.name {
        return Err(format!("the certificate is that of {}", facts.identity.name));
    }
    pending.adopt(certificate).map_err(|error| text(&error))?;
    let credentials = Credentials::load(&shared.options.tls, &shared.options.name);
    let credentials = credentials.map_err(|error| text(&error))?;
    shared.endpoint.renew(&credentials).map_err(|error| text(&error))?;
    *lock(&shared.renewal.valid_until_s) = facts.valid_until_s;
    tracing::info!(valid_until_s = facts.valid_until_s, "the certificate of this node was renewed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_time_is_left() {
        let week = crrl_transport::Validity::hours(24 * 7).renewed_at();
        assert!(!is_due(1_000_000, week, 1_000_000 - 57 * 3600));
        assert!(is_due(1_000_000, week, 1_000_000 - 56 * 3600));
        assert!(is_due(1_000_000, week, 1_000_001));
    }

    #[test]
    fn whoever_asks_again_and_again_is_signed_for_once_in_a_while() {
        let (mut grants, start) = (Grants::default(), Instant::now());
        let (name, young) = (NodeName::from("rollout-1"), Duration::from_secs(60));
        assert_eq!(grants.begin(&name, "key", young, start), Ok(None));
        // It is being signed.
        assert!(grants.begin(&name, "key", young, start).is_err());
        grants.done(&name, Some("certificate"));
        // The answer was lost.
        let soon = start + young / 2;
        assert_eq!(grants.begin(&name, "key", young, soon), Ok(Some("certificate".to_owned())));
        assert!(grants.begin(&name, "another", young, soon).is_err());
        assert_eq!(grants.begin(&"rollout-2".into(), "key", young, soon), Ok(None));
        assert_eq!(grants.begin(&name, "another", young, start + young), Ok(None));
        // The disk was full.
        grants.done(&name, None);
        assert_eq!(grants.begin(&name, "another", young, start + young), Ok(None));
    }
}
