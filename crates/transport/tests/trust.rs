//! Who is let in: two endpoints on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crrl_transport::codec::{OLDEST, VERSION};
use crrl_transport::{
    Arrival, Authority, Connection, Credentials, DialError, Door, Endpoint, Facts, Handshake,
    KnockError, NetThread, Options, Pending, Pin, Protocols, Purpose, Validity, pin,
};
use crrl_types::NodeName;

/// Certificates that are signed before and while a name is revoked.
const SIGNED_MAX: usize = 20;

fn issue(dir: &Path, name: &str, roles: &[&str]) -> Credentials {
    let name = NodeName::from(name);
    let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
    Authority::open_or_create(dir)
        .and_then(|authority| authority.issue(&name, &roles))
        .expect("certificates can be made");
    Credentials::load(dir, &name).expect("was issued")
}

fn bind(credentials: &Credentials, listen: Option<SocketAddr>) -> Endpoint {
    bind_with(credentials, listen, Options::default())
}

fn bind_with(credentials: &Credentials, listen: Option<SocketAddr>, options: Options) -> Endpoint {
    let net = NetThread::start("test").expect("a thread");
    Endpoint::bind(&net, credentials, listen, options).expect("a free port")
}

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn speaking(newest: u8, oldest: u8) -> Options {
    Options { protocols: Protocols { newest, oldest }, ..Options::default() }
}

fn listening(credentials: &Credentials) -> (Endpoint, SocketAddr) {
    let endpoint = bind(credentials, Some(SocketAddr::from(([127, 0, 0, 1], 0))));
    let address = endpoint.local_addr().expect("is bound");
    (endpoint, address)
}

/// Whoever comes next.
async fn next(acceptor: &Endpoint) -> Handshake {
    let minute = std::time::Duration::from_secs(60);
    let coming = tokio::time::timeout(minute, acceptor.accept()).await;
    coming.expect("nobody has come for 60 s").expect("is open")
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
        let handshake = next(acceptor).await;
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

fn authority_of(dir: &Path) -> rustls::pki_types::CertificateDer<'static> {
    let pem = std::fs::read(dir.join("ca.pem")).expect("is there");
    <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(
        &pem,
    )
    .expect("is PEM")
}

/// Whoever knows the authority and has no certificate.
fn nobody(dir: &Path, alpn: &[u8]) -> quinn::Endpoint {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority_of(dir)).expect("is a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("has TLS 1.3");
    let mut nobody =
        quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    nobody.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    nobody
}

#[tokio::test]
async fn without_a_certificate_nobody_gets_in() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (acceptor, address) = listening(&issue(folder.path(), "hub", &["coordinator"]));
    let nobody = nobody(folder.path(), format!("crrl/{OLDEST} control").as_bytes());
    let dialling = async {
        match nobody.connect(address, "hub").expect("can be dialled").await {
            Ok(connection) => connection.closed().await.to_string(),
            Err(error) => error.to_string(),
        }
    };
    let accepting = async { next(&acceptor).await.finish().await };
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

#[tokio::test]
async fn where_strangers_may_ask_they_can_do_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = issue(folder.path(), "hub", &["coordinator"]);
    let strangers = Options { strangers: true, ..Options::default() };
    let acceptor = bind_with(&hub, Some(ANY_PORT), strangers);
    let address = acceptor.local_addr().expect("is bound");
    let versions = [OLDEST, VERSION].map(|version| format!("crrl/{version} control"));
    let others = [&format!("crrl/{VERSION} bulk"), "crrl control", "crrl-operator/1"];
    for alpn in versions.iter().map(String::as_str).chain(others) {
        let nobody = nobody(folder.path(), alpn.as_bytes());
        let dialling = async {
            let connection = nobody.connect(address, "hub").expect("can be dialled").await;
            connection.expect("TLS alone lets it in").closed().await.to_string()
        };
        let accepting = async { next(&acceptor).await.arrive().await };
        let (closed, arrived) = tokio::join!(dialling, accepting);
        assert!(arrived.is_err(), "{alpn}: {arrived:?}");
        assert!(closed.contains("certificate"), "{alpn}: {closed}");
    }
    // Members come in as ever.
    let worker = bind(&issue(folder.path(), "worker", &["rollout"]), None);
    let (accepted, dialled) = meet(&worker, &acceptor, "hub", address).await;
    accepted.expect("one of ours");
    dialled.expect("one of ours");
}

async fn knock(address: SocketAddr, wanted: Pin) -> Result<Door, KnockError> {
    let net = NetThread::start("test").expect("a thread");
    Door::knock(&net, address, wanted, std::time::Duration::from_secs(10)).await
}

#[tokio::test]
async fn a_stranger_finds_the_door_by_its_pin_and_no_other() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = issue(folder.path(), "hub", &["coordinator"]);
    let strangers = Options { strangers: true, ..Options::default() };
    let acceptor = bind_with(&hub, Some(ANY_PORT), strangers);
    let address = acceptor.local_addr().expect("is bound");
    let right = pin(&authority_of(folder.path()));
    let accepting = async { next(&acceptor).await.arrive().await };
    let (door, arrived) = tokio::join!(knock(address, right), accepting);
    let door = door.expect("the right pin");
    assert_eq!(
        (door.host.name.as_str(), &door.host.roles[..]),
        ("hub", &["coordinator".to_owned()][..])
    );
    assert!(matches!(arrived, Ok(Arrival::Stranger(_))), "{arrived:?}");
    let accepting = async { next(&acceptor).await.arrive().await };
    let (door, arrived) = tokio::join!(knock(address, [7; 16]), accepting);
    let error = door.expect_err("another pin").to_string();
    assert!(error.contains("of another cluster than the token"), "{error}");
    assert!(arrived.is_err());
    // Where strangers may not ask, nobody opens.
    let (closed, address) = listening(&issue(folder.path(), "hub", &["coordinator"]));
    let accepting = async { next(&closed).await.arrive().await };
    let (door, arrived) = tokio::join!(knock(address, right), accepting);
    assert!(door.is_err() && arrived.is_err());
}

#[tokio::test]
async fn the_newest_common_version_is_spoken() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hub = issue(folder.path(), "hub", &["coordinator"]);
    let worker = issue(folder.path(), "worker", &["rollout"]);
    let all = [
        (speaking(OLDEST, OLDEST), OLDEST),
        (speaking(VERSION, OLDEST), VERSION),
        (speaking(VERSION + 1, VERSION), VERSION),
    ];
    for (theirs, common) in all {
        let (acceptor, address) = listening(&hub);
        let dialler = bind_with(&worker, None, theirs);
        let (accepted, dialled) = meet(&dialler, &acceptor, "hub", address).await;
        assert_eq!(accepted.expect("in common").protocol, common);
        assert_eq!(dialled.expect("in common").protocol, common);
    }
}

#[tokio::test]
async fn without_a_common_version_both_sides_learn_what_the_other_speaks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (acceptor, address) = listening(&issue(folder.path(), "hub", &["coordinator"]));
    let worker = issue(folder.path(), "worker", &["rollout"]);
    let dialler = bind_with(&worker, None, speaking(VERSION + 2, VERSION + 1));
    let accepting = async { next(&acceptor).await.arrive().await };
    let name = NodeName::from("hub");
    let (accepted, dialled) =
        tokio::join!(accepting, dialler.dial(&name, address, Purpose::Control));
    let (accepted, dialled) = (accepted.expect_err("beyond"), dialled.expect_err("beyond"));
    assert!(matches!(accepted, DialError::Protocol { .. }), "{accepted}");
    let (said, heard) = (accepted.to_string(), dialled.to_string());
    let speaks = format!("{} and {}", VERSION + 2, VERSION + 1);
    let says = |said: &str, words: &str| said.contains(&format!("{words} {speaks}"));
    assert!(said.contains("worker at") && says(&said, "speaks protocol"), "{said}");
    assert!(says(&heard, "this node speaks") && heard.contains("copy the same build"), "{heard}");
}

/// Whose certificate the acceptor has seen.
fn fingerprint(dir: &Path, name: &str) -> crrl_types::Digest {
    let pem = std::fs::read(dir.join(format!("{name}.pem"))).expect("was issued");
    Facts::from_pem(&pem).expect("a certificate").fingerprint
}

#[tokio::test]
async fn new_credentials_are_taken_up_and_old_connections_go_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (acceptor, address) = listening(&issue(folder.path(), "hub", &["coordinator"]));
    let name = NodeName::from("worker");
    let dialler = bind(&issue(folder.path(), "worker", &["rollout"]), None);
    let (before, _kept) = meet(&dialler, &acceptor, "hub", address).await;
    let before = before.expect("one of ours");
    assert_eq!(before.fingerprint, fingerprint(folder.path(), "worker"));
    let authority = Authority::open_or_create(folder.path()).expect("is there");
    let pending = Pending::open(folder.path(), &name).expect("can be made");
    let roles = ["rollout".to_owned()];
    let signed = authority.sign(pending.request(), &name, &roles, Validity::hours(1));
    pending.adopt(&signed.expect("is a request")).expect("is for this key");
    let renewed = Credentials::load(folder.path(), &name).expect("is whole");
    dialler.renew(&renewed).expect("go together");
    let (after, _dialled) = meet(&dialler, &acceptor, "hub", address).await;
    let after = after.expect("one of ours");
    assert_ne!(after.fingerprint, before.fingerprint);
    assert_eq!(after.fingerprint, fingerprint(folder.path(), "worker"));
    assert!(before.quic.close_reason().is_none(), "the old connection was dropped");
    // Revoking the name revokes both.
    assert_eq!(crrl_transport::revoke_all(folder.path(), &name, 0).expect("writable"), 2);
    let list = crrl_transport::revoked(folder.path()).expect("readable");
    assert!(list.contains_key(&before.fingerprint.to_string()));
    assert!(list.contains_key(&after.fingerprint.to_string()));
}

#[test]
fn a_name_that_was_revoked_is_signed_for_once_it_is_let_in_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::open_or_create(folder.path()).expect("can be made");
    let (name, roles) = (NodeName::from("worker"), ["rollout".to_owned()]);
    let theirs = tempfile::tempdir().expect("a temporary folder");
    let pending = Pending::open(theirs.path(), &name).expect("can be made");
    let sign = || authority.sign(pending.request(), &name, &roles, Validity::hours(1));
    let revoke = || crrl_transport::revoke_all(folder.path(), &name, 0).expect("writable");
    sign().expect("is a request");
    assert_eq!(revoke(), 1);
    let refused = sign().expect_err("was revoked").to_string();
    assert!(refused.contains("crrl cluster invite worker"), "{refused}");
    assert!(refused.contains("crrl tls issue worker --role ROLE"), "{refused}");
    crrl_transport::readmit(folder.path(), &name).expect("writable");
    sign().expect("was let in again");
    assert_eq!(revoke(), 1, "what it had before is revoked already");
    authority.issue_anew(&name, &roles, Validity::hours(1)).expect("can be issued");
    sign().expect("was let in again");
}

#[test]
fn nothing_that_is_signed_while_its_name_is_revoked_slips_through() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let theirs = tempfile::tempdir().expect("a temporary folder");
    let (name, roles) = (NodeName::from("worker"), ["rollout".to_owned()]);
    let pending = Pending::open(theirs.path(), &name).expect("can be made");
    let is_revoked = AtomicBool::new(false);
    let issued = || crrl_transport::issued(folder.path(), &name, 0).expect("readable");
    let ended = std::thread::scope(|scope| {
        let signs = scope.spawn(|| {
            let authority = Authority::open_or_create(folder.path()).expect("can be made");
            let mut count = 0;
            loop {
                let late = is_revoked.load(Ordering::SeqCst);
                // Whoever revokes has to come to it between two.
                if count == SIGNED_MAX && !late {
                    std::thread::yield_now();
                    continue;
                }
                let signed = authority.sign(pending.request(), &name, &roles, Validity::hours(1));
                match signed {
                    Err(error) => return Some(error.to_string()),
                    Ok(_) if late => return None,
                    Ok(_) => count += 1,
                }
            }
        });
        while issued().is_empty() && !signs.is_finished() {
            std::thread::yield_now();
        }
        crrl_transport::revoke_all(folder.path(), &name, 0).expect("writable");
        is_revoked.store(true, Ordering::SeqCst);
        signs.join().expect("no panic")
    });
    let refused = ended.expect("it was signed for after it was revoked");
    assert!(refused.contains("worker was revoked"), "{refused}");
    let list = crrl_transport::revoked(folder.path()).expect("readable");
    assert!(issued().iter().all(|fingerprint| list.contains_key(&fingerprint.to_string())));
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_said_to_be() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (acceptor, address) = listening(&issue(folder.path(), "hub", &["coordinator"]));
    let name = NodeName::from("worker");
    let second = Validity::of(std::time::Duration::from_secs(1));
    Authority::open_or_create(folder.path())
        .and_then(|authority| authority.issue_anew(&name, &["rollout".to_owned()], second))
        .expect("can be issued");
    let worker = Credentials::load(folder.path(), &name).expect("was issued");
    let dialler = bind(&worker, None);
    let late = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let refused = loop {
        assert!(std::time::Instant::now() < late, "it never expires");
        match meet(&dialler, &acceptor, "hub", address).await {
            (Err(accepted), Err(_)) => break accepted,
            _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    };
    assert!(refused.contains("its certificate has expired"), "{refused}");
}

#[tokio::test]
async fn a_door_where_nobody_answers_says_what_to_look_at() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("is bound");
    let net = NetThread::start("test").expect("a thread");
    let patience = std::time::Duration::from_secs(1);
    let error = Door::knock(&net, address, [0; 16], patience).await.expect_err("nobody is there");
    assert!(matches!(error, KnockError::Timeout { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains(&address.to_string()) && said.contains("firewall"), "{said}");
}

#[test]
fn two_that_make_the_same_certificate_at_once_leave_one_that_fits_its_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let name = NodeName::from("chaos");
    let make = || {
        for _ in 0..5 {
            Authority::open_or_create(folder.path())
                .and_then(|authority| {
                    authority.issue_anew(&name, &["chaos".to_owned()], Validity::RUN)
                })
                .expect("certificates can be made");
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(make);
        }
    });
    let held = |suffix: &str| {
        std::fs::read_to_string(folder.path().join(format!("chaos.{suffix}"))).expect("is there")
    };
    let key = rcgen::KeyPair::from_pem(&held("key")).expect("a key");
    let facts = Facts::from_pem(held("pem").as_bytes()).expect("a certificate");
    assert_eq!(facts.identity.name, name);
    let pem = held("pem");
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
    let certificate = pem.parse_x509().expect("a certificate");
    assert_eq!(certificate.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
}
