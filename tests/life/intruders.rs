//! Peers that should not be there, or do not speak as they should: refused in words, at a bounded cost,
//! and nobody else notices.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crrl_cluster::untrusted::greetings;
use crrl_transport::{
    Authority, Connection, Credentials, Endpoint, NetThread, Options, Purpose, read_frame,
    write_frame,
};
use crrl_types::NodeName;
use nix::sys::signal::Signal;

use crate::world::World;

/// Bytes of a refusal.
const ANSWER_BYTES_MAX: usize = 4096;
/// A refusal takes a moment.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);
/// Times the word on why may be lost.
const LOST_MAX: usize = 5;

/// Somebody with a certificate for a rollout node from the authority in a folder.
fn somebody(tls: &Path, name: &str) -> Endpoint {
    let name = NodeName::from(name);
    Authority::open_or_create(tls)
        .and_then(|authority| authority.issue(&name, &["rollout".to_owned()]))
        .expect("certificates can be made");
    let credentials = Credentials::load(tls, &name).expect("was issued");
    let net = NetThread::start("intruder").expect("a thread");
    Endpoint::bind(&net, &credentials, None, Options::default()).expect("a free port")
}

async fn dial(endpoint: &Endpoint, at: SocketAddr) -> Result<Connection, String> {
    let dialled = endpoint.dial(&"coordinator".into(), at, Purpose::Control).await;
    dialled.map_err(|error| error.to_string())
}

/// Says something first, as it is; gives what is answered and why the connection then ended. The word
/// on why is one packet: where the machine has lost it, the same is said again.
async fn says(endpoint: &Endpoint, at: SocketAddr, bytes: &[u8]) -> (Vec<u8>, String) {
    for _ in 0..LOST_MAX {
        let (answer, why) = says_once(endpoint, at, bytes).await;
        if !why.contains("reset by peer") {
            return (answer, why);
        }
    }
    panic!("no connection ended with a reason");
}

async fn says_once(endpoint: &Endpoint, at: SocketAddr, bytes: &[u8]) -> (Vec<u8>, String) {
    let connection = dial(endpoint, at).await.expect("a certificate of this run's");
    let (mut send, mut recv) = connection.quic.open_bi().await.expect("connected");
    send.write_all(bytes).await.expect("connected");
    let answer = read_frame(&mut recv, ANSWER_BYTES_MAX).await.unwrap_or_default();
    let closed = tokio::time::timeout(REFUSED_WITHIN, connection.quic.closed()).await;
    (answer, closed.expect("is not let go").to_string())
}

fn framed(content: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let written = write_frame(&mut frame, content);
    futures::executor::block_on(written).expect("a vector takes all");
    frame
}

#[test]
fn whoever_does_not_belong_or_speaks_otherwise_is_refused_and_the_run_goes_on() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let mut training = world.train(&[]);
    training.until_step(1);
    let (pids, foreign) = (world.pids(), world.folder.path().join("foreign"));
    let dialled = world.run.dialled().expect("was started");
    let at = dialled[&NodeName::from("coordinator")].socket_addr().expect("no name");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        // A certificate of another authority, which trusts ours.
        std::fs::create_dir_all(&foreign).expect("writable");
        drop(somebody(&foreign, "stranger"));
        std::fs::copy(world.run.tls().join("ca.pem"), foreign.join("ca.pem")).expect("readable");
        let credentials = Credentials::load(&foreign, &"stranger".into()).expect("was issued");
        let net = NetThread::start("stranger").expect("a thread");
        let stranger =
            Endpoint::bind(&net, &credentials, None, Options::default()).expect("a port");
        // A dialler learns of a refused certificate only after its own handshake.
        if let Ok(connection) = dial(&stranger, at).await {
            let closed = tokio::time::timeout(REFUSED_WITHIN, connection.quic.closed()).await;
            let why = closed.expect("is not let go").to_string();
            assert!(why.contains("certificate"), "{why}");
        }

        let guest = somebody(&world.run.tls(), "rogue");
        let hello = &greetings()[0];
        // A frame that would be longer than any greeting.
        let (answer, why) = says(&guest, at, &u32::MAX.to_be_bytes()).await;
        assert!(answer.is_empty() && why.contains("4294967295 bytes where 4096"), "{why}");
        // Something that is no message.
        let (_, why) = says(&guest, at, &framed(b"GET / HTTP/1.1\r\n\r\n")).await;
        assert!(why.contains("no message of this protocol"), "{why}");
        // Another version of the envelope, and of the protocol inside.
        let mut newer = hello.clone();
        newer[2] = 9;
        let (_, why) = says(&guest, at, &framed(&newer)).await;
        assert!(why.contains("protocol version 9"), "{why}");
        let mut newer = hello.clone();
        newer[3] = 9;
        let (answer, _) = says(&guest, at, &framed(&newer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("it says protocol 9"), "{answer}");
        // A name that is not its certificate's.
        let (answer, _) = says(&guest, at, &framed(hello)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("its certificate says rogue"), "{answer}");
        guest.close("enough").await;
    });
    let reached = world.steps();
    training.until_step(reached + 2);
    assert_eq!(world.pids(), pids, "somebody fell over it");
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    world.succeeds(&["audit", "run"]);
}
