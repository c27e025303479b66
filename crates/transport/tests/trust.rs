//! Who is let in: two endpoints on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crrl_transport::{
    Authority, Connection, Credentials, Endpoint, Facts, NetThread, Options, Purpose, Validity,
};
use crrl_types::NodeName;

fn issue(dir: &Path, name: &str, roles: &[&str]) -> Credentials {
    let name = NodeName::from(name);
    let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
    Authority::open_or_create(dir)
        .and_then(|authority| authority.issue(&name, &roles))
        .expect("certificates can be made");
    Credentials::load(dir, &name).expect("was issued")
}

fn bind(credentials: &Credentials, listen: Option<SocketAddr>) -> Endpoint {
    let net = NetThread::start("test").expect("a thread");
    Endpoint::bind(&net, credentials, listen, Options::default()).expect("a free port")
}

fn listening(credentials: &Credentials) -> (Endpoint, SocketAddr) {
    let endpoint = bind(credentials, Some(SocketAddr::from(([127, 0, 0, 1], 0))));
    let address = endpoint.local_addr().expect("is bound");
    (endpoint, address)
}

/// What both sides make of it: the acceptor's view first. A dialler of QUIC learns of a refused
/// certificate only after its own handshake: it counts once it can use the connection.
async fn meet(
    dialler: &Endpoint,
    acceptor: &Endpoint,
    name: &str,
    address: SocketAddr,
) -> (Result<Connection, String>, Result<Connection, String>) {
    let accepting = async {
        let handshake = acceptor.accept().await.expect("is open");
        handshake.finish().await.map_err(|error| error.to_string())
    };
    let name = NodeName::from(name);
    let dialling = async {
        let connection = dialler.dial(&name, address, Purpose::Control).await;
        let connection = connection.map_err(|error| error.to_string())?;
        let (mut send, mut recv) = connection.quic.open_bi().await.map_err(|e| e.to_string())?;
        send.write_all(b"hello").await.map_err(|e| e.to_string())?;
        let mut echo = [0; 5];
        recv.read_exact(&mut echo).await.map_err(|e| e.to_string())?;
        Ok(connection)
    };
    let accepted = async {
        let connection = accepting.await?;
        let (mut send, mut recv) = connection.quic.accept_bi().await.map_err(|e| e.to_string())?;
        let mut hello = [0; 5];
        recv.read_exact(&mut hello).await.map_err(|e| e.to_string())?;
        send.write_all(&hello).await.map_err(|e| e.to_string())?;
        Ok(connection)
    };
    tokio::join!(accepted, dialling)
}

#[tokio::test]
async fn each_side_learns_name_and_roles_of_the_other() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (acceptor, address) =
        listening(&issue(folder.path(), "hub", &["coordinator", "parameter-server"]));
    let dialler = bind(&issue(folder.path(), "worker", &["rollout"]), None);
    let (accepted, dialled) = meet(&dialler, &acceptor, "hub", address).await;
    let (accepted, dialled) = (accepted.expect("one of ours"), dialled.expect("one of ours"));
    assert_eq!(accepted.peer.name.as_str(), "worker");
    assert_eq!(accepted.peer.roles, ["rollout"]);
    assert_eq!(dialled.peer.roles, ["coordinator", "parameter-server"]);
    assert_eq!(accepted.purpose, Purpose::Control);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_both_sides() {
    let ours = tempfile::tempdir().expect("a temporary folder");
    let theirs = tempfile::tempdir().expect("a temporary folder");
    let (acceptor, address) = listening(&issue(ours.path(), "hub", &["coordinator"]));
    let stranger = bind(&issue(theirs.path(), "worker", &["rollout"]), None);
    let (accepted, dialled) = meet(&stranger, &acceptor, "hub", address).await;
    assert!(accepted.is_err() && dialled.is_err());
    // A stranger who trusts our authority, but was issued by another, is refused by the acceptor.
    std::fs::copy(ours.path().join("ca.pem"), theirs.path().join("ca.pem")).expect("can be copied");
    let stranger = Credentials::load(theirs.path(), &"worker".into()).expect("is there");
    let (accepted, dialled) = meet(&bind(&stranger, None), &acceptor, "hub", address).await;
    assert!(accepted.is_err() && dialled.is_err());
}

#[tokio::test]
async fn whoever_answers_must_be_who_was_dialled() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (acceptor, address) = listening(&issue(folder.path(), "impostor", &["coordinator"]));
    let dialler = bind(&issue(folder.path(), "worker", &["rollout"]), None);
    let (accepted, dialled) = meet(&dialler, &acceptor, "hub", address).await;
    assert!(accepted.is_err() && dialled.is_err());
}

#[tokio::test]
async fn without_a_certificate_nobody_gets_in() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (acceptor, address) = listening(&issue(folder.path(), "hub", &["coordinator"]));
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(folder.path().join("ca.pem")).expect("is there");
    let authority = <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(&pem);
    roots.add(authority.expect("is PEM")).expect("is a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"crrl/1 control".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("has TLS 1.3");
    let mut nobody =
        quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    nobody.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let dialling = async {
        match nobody.connect(address, "hub").expect("can be dialled").await {
            Ok(connection) => connection.closed().await.to_string(),
            Err(error) => error.to_string(),
        }
    };
    let accepting = async { acceptor.accept().await.expect("is open").finish().await };
    let (refused, accepted) = tokio::join!(dialling, accepting);
    assert!(accepted.is_err());
    assert!(refused.contains("certificate"), "{refused}");
}

#[tokio::test]
async fn a_certificate_is_issued_again_only_for_other_roles() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let read = || std::fs::read(folder.path().join("worker.pem")).expect("was issued");
    issue(folder.path(), "worker", &["rollout"]);
    let first = read();
    issue(folder.path(), "worker", &["rollout"]);
    assert_eq!(read(), first);
    let changed = issue(folder.path(), "worker", &["learner"]);
    assert_eq!(changed.identity.roles, ["learner"]);
    assert_ne!(read(), first);
}

#[tokio::test]
async fn a_revoked_certificate_gets_nobody_in_and_a_new_one_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (acceptor, address) = listening(&issue(folder.path(), "hub", &["coordinator"]));
    let worker = issue(folder.path(), "worker", &["rollout"]);
    let pem = std::fs::read(folder.path().join("worker.pem")).expect("was issued");
    let facts = Facts::from_pem(&pem).expect("a certificate");
    crrl_transport::revoke(folder.path(), facts.fingerprint, &"worker".into()).expect("writable");
    let (accepted, dialled) = meet(&bind(&worker, None), &acceptor, "hub", address).await;
    let refused = accepted.expect_err("was revoked");
    assert!(refused.contains("worker was revoked"), "{refused}");
    assert!(dialled.is_err());
    Authority::open_or_create(folder.path())
        .and_then(|a| a.issue_anew(&"worker".into(), &["rollout".to_owned()], Validity::hours(1)))
        .expect("can be issued anew");
    let worker = Credentials::load(folder.path(), &"worker".into()).expect("was issued");
    let (accepted, dialled) = meet(&bind(&worker, None), &acceptor, "hub", address).await;
    accepted.expect("another certificate");
    dialled.expect("another certificate");
}

#[test]
fn a_certificate_that_is_about_to_expire_is_issued_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::open_or_create(folder.path()).expect("can be made");
    let (name, roles) = (NodeName::from("worker"), vec!["rollout".to_owned()]);
    let facts = || {
        let pem = std::fs::read(folder.path().join("worker.pem")).expect("was issued");
        Facts::from_pem(&pem).expect("a certificate")
    };
    authority.issue_anew(&name, &roles, Validity::hours(1)).expect("can be issued");
    let short = facts();
    authority.issue(&name, &roles).expect("can be issued");
    assert!(facts().valid_until_s > short.valid_until_s + 86_400);
    let long = facts();
    authority.issue(&name, &roles).expect("is there");
    assert_eq!(facts(), long, "one that is good stays");
}
