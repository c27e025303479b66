use std::net::SocketAddr;
use std::path::Path;

use crrl_types::NodeName;

use super::*;
use crate::codec::{OLDEST, VERSION};
use crate::{Authority, Connection, Credentials, Endpoint, NetThread, Protocols, Purpose};

fn endpoint(dir: &Path, name: &str, listen: bool, newest: u8) -> Endpoint {
    let name = NodeName::from(name);
    Authority::open_or_create(dir)
        .and_then(|authority| authority.issue(&name, &["rollout".into()]))
        .expect("certificates can be made");
    let credentials = Credentials::load(dir, &name).expect("was issued");
    let net = NetThread::start(name.as_str()).expect("a thread");
    let listen = listen.then_some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let protocols = Protocols { newest, ..Protocols::default() };
    let options = Options { protocols, ..Options::default() };
    Endpoint::bind(&net, &credentials, listen, options).expect("a free port")
}

/// Two ends of a bulk connection; the endpoints must be held.
async fn joined(dir: &Path) -> (Connection, Connection, [Endpoint; 2]) {
    joined_at(dir, VERSION).await
}

/// The same, where one of them knows nothing newer than this.
async fn joined_at(dir: &Path, newest: u8) -> (Connection, Connection, [Endpoint; 2]) {
    let here = endpoint(dir, "here", false, newest);
    let there = endpoint(dir, "there", true, VERSION);
    let address = there.local_addr().expect("is bound");
    let name = "there".into();
    let accepting = async {
        let handshake = soon(there.accept()).await.expect("is open");
        handshake.finish().await.expect("one of ours")
    };
    let (dialled, accepted) = tokio::join!(here.dial(&name, address, Purpose::Bulk), accepting);
    (dialled.expect("answers"), accepted, [here, there])
}

/// What has to come about within a minute, on any machine.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("nothing came for 60 s")
}

async fn receive(connection: &Connection) -> Result<ReceivedBlob, BlobError> {
    let stream = soon(connection.quic.accept_bi()).await.expect("connected");
    receive_blob(stream, connection.protocol, &Options::default(), &Partials::default(), |_, _| {
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_blob_arrives_whole_and_is_acknowledged_when_it_was_handled() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (here, there, _held) = joined(folder.path()).await;
    let body = Bytes::from(
        (0..3_000_000u32).map(|n| (n.wrapping_mul(n) % 253) as u8).collect::<Vec<u8>>(),
    );
    let send = || {
        let (here, body) = (here.clone(), body.clone());
        tokio::spawn(async move {
            send_blob(&here, &Options::default(), 7, b"head", Digest::of(&body), &body).await
        })
    };
    // What is said of it once it is whole is what its sender hears: nothing was said before.
    let sending = send();
    let blob = receive(&there).await.expect("whole");
    assert_eq!((blob.id, blob.head.as_slice(), &blob.body), (7, b"head".as_slice(), &body));
    blob.receipt.refuse("not today").await.expect("connected");
    let refused = soon(sending).await.expect("no panic");
    assert!(matches!(&refused, Err(BlobError::Refused(why)) if why == "not today"), "{refused:?}");
    let sending = send();
    let blob = receive(&there).await.expect("whole");
    blob.receipt.accept().await.expect("connected");
    soon(sending).await.expect("no panic").expect("handled");
}

#[tokio::test]
async fn a_corrupt_blob_is_refused_by_its_hash_and_sent_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (here, there, _held) = joined(folder.path()).await;
    let body = Bytes::from(vec![5; 200_000]);
    let sent = body.clone();
    let sending = tokio::spawn(async move {
        let options = Options::default();
        // What a flipped bit on the way would look like: the content is not what was hashed.
        let wrong = Digest::of(b"something else");
        let first = attempt(&here, &options, 1, b"", wrong, &sent).await;
        assert!(matches!(first, Err(BlobError::Corrupt)), "{first:?}");
        send_blob(&here, &options, 1, b"", Digest::of(&sent), &sent).await
    });
    assert!(matches!(receive(&there).await, Err(BlobError::Corrupt)));
    let blob = receive(&there).await.expect("whole this time");
    assert_eq!(blob.body, body);
    blob.receipt.accept().await.expect("connected");
    sending.await.expect("no panic").expect("handled");
}

#[tokio::test]
async fn a_blob_that_is_always_corrupt_is_given_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (here, there, _held) = joined(folder.path()).await;
    let refusing = tokio::spawn(async move {
        let mut seen = 0;
        while let Ok((mut send, mut recv)) = there.quic.accept_bi().await {
            seen += 1;
            recv.read_to_end(1 << 20).await.expect("small");
            answer(&mut send, there.protocol, Verdict::Corrupt).await.expect("connected");
        }
        seen
    });
    let body = Bytes::from_static(b"content");
    let outcome = send_blob(&here, &Options::default(), 1, b"", Digest::of(&body), &body).await;
    assert!(matches!(outcome, Err(BlobError::Corrupt)));
    here.close("the test is over");
    assert_eq!(refusing.await.expect("no panic"), ATTEMPTS_MAX);
}

#[tokio::test]
async fn a_refusal_says_why_and_costs_no_transfer() {
    for newest in [OLDEST, VERSION] {
        is_refused(newest).await;
    }
}

async fn is_refused(newest: u8) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (here, there, _held) = joined_at(folder.path(), newest).await;
    let accepted = there.clone();
    let refusing = tokio::spawn(async move {
        let stream = accepted.quic.accept_bi().await.expect("connected");
        let judge = |_: &[u8], _| Err("not today".to_owned());
        let (options, partials) = (Options::default(), Partials::default());
        let blob = receive_blob(stream, accepted.protocol, &options, &partials, judge).await;
        blob.map(|blob| blob.body.len())
    });
    let body = Bytes::from(vec![0; 50_000_000]);
    let outcome = send_blob(&here, &Options::default(), 1, b"", Digest::of(&body), &body).await;
    assert!(matches!(&outcome, Err(BlobError::Refused(why)) if why == "not today"), "{outcome:?}");
    assert!(refusing.await.expect("no panic").is_err());
    assert!(here.quic.stats().udp_tx.bytes < 40_000_000);
}

#[tokio::test]
async fn a_blob_beyond_the_bound_is_not_even_sent() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (here, _there, _held) = joined(folder.path()).await;
    let options = Options { blob_bytes_max: 10, ..Options::default() };
    let body = Bytes::from_static(b"eleven byte");
    let outcome = send_blob(&here, &options, 1, b"", Digest::of(&body), &body).await;
    assert!(matches!(outcome, Err(BlobError::TooLarge { len: 11, max: 10 })));
}

#[tokio::test]
async fn a_blob_goes_on_where_its_connection_broke() {
    const BYTES: usize = 24 << 20;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let body = Bytes::from((0..BYTES).map(|n| (n * n % 251) as u8).collect::<Vec<u8>>());
    let (digest, partials, options) = (Digest::of(&body), Partials::default(), Options::default());
    let (here, there, held) = joined(folder.path()).await;
    // Cut once a third has come.
    let sending = send_blob(&here, &options, 1, b"", digest, &body);
    let receiving = async {
        let stream = there.quic.accept_bi().await.expect("connected");
        receive_blob(stream, there.protocol, &options, &partials, |_, _| Ok(())).await
    };
    let cutting = async {
        while there.quic.stats().udp_rx.bytes < BYTES as u64 / 3 {
            tokio::task::yield_now().await;
        }
        here.close("the line is cut");
    };
    let (sent, received, ()) = tokio::join!(sending, receiving, cutting);
    assert!(matches!(sent, Err(BlobError::Broken(_))), "{sent:?}");
    assert!(matches!(received, Err(BlobError::Broken(_))), "{received:?}");
    drop(held);

    let (here, there, _held) = joined(folder.path()).await;
    let sending = send_blob(&here, &options, 2, b"", digest, &body);
    let receiving = async {
        let stream = there.quic.accept_bi().await.expect("connected");
        let blob = receive_blob(stream, there.protocol, &options, &partials, |_, _| Ok(())).await?;
        assert!(blob.resumed >= BYTES as u64 / 4, "only {} bytes were kept", blob.resumed);
        assert!(blob.body == body, "another content");
        blob.receipt.accept().await
    };
    let (sent, received) = tokio::join!(sending, receiving);
    sent.expect("handled");
    received.expect("whole");
    let bytes = here.quic.stats().udp_tx.bytes;
    assert!(bytes < BYTES as u64 * 4 / 5, "{bytes} bytes were sent again");
}

#[tokio::test]
async fn a_part_that_was_of_something_else_is_let_go() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (here, there, _held) = joined(folder.path()).await;
    let body = Bytes::from(vec![7; 3 << 20]);
    let (digest, partials, options) = (Digest::of(&body), Partials::default(), Options::default());
    let mut wrong = Partial::new(digest, body.len());
    wrong.body.extend_from_slice(&[8; 1000]);
    wrong.hasher.update(&[8; 1000]);
    partials.keep(wrong, Instant::now());
    let sending = send_blob(&here, &options, 1, b"", digest, &body);
    let receiving = async {
        let mut resumed = Vec::new();
        loop {
            let stream = there.quic.accept_bi().await.expect("connected");
            match receive_blob(stream, there.protocol, &options, &partials, |_, _| Ok(())).await {
                Ok(blob) => {
                    resumed.push(Some(blob.resumed));
                    assert!(blob.body == body, "another content");
                    blob.receipt.accept().await.expect("connected");
                    return resumed;
                }
                Err(error) => {
                    assert!(matches!(error, BlobError::Corrupt), "{error}");
                    resumed.push(None);
                }
            }
        }
    };
    let (sent, resumed) = tokio::join!(sending, receiving);
    sent.expect("handled");
    assert_eq!(resumed, [None, Some(0)]);
}

#[tokio::test]
async fn a_peer_of_the_build_before_is_asked_nothing_it_does_not_know() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (here, there, _held) = joined_at(folder.path(), OLDEST).await;
    assert_eq!((here.protocol, there.protocol), (OLDEST, OLDEST));
    let body = Bytes::from(vec![7; ASK_BYTES_MIN]);
    let digest = Digest::of(&body);
    // As that build reads it.
    let reading = async {
        let (mut send, mut recv) = there.quic.accept_bi().await.expect("connected");
        let header = read_frame(&mut recv, HEADER_BYTES_MAX).await.expect("a header");
        assert_eq!(header[..3], [b'c', b'r', OLDEST]);
        let content = recv.read_to_end(ASK_BYTES_MIN).await.expect("comes at once");
        assert!(content == body);
        // As that build marks it.
        write_frame(&mut send, &[b'c', b'r', MARK_OLDEST, 0]).await.expect("connected");
        let _ = send.finish();
        let _ = send.stopped().await;
    };
    let options = Options::default();
    let (sent, ()) = tokio::join!(send_blob(&here, &options, 1, b"", digest, &body), reading);
    sent.expect("handled");

    // And the other way round.
    let sending = async {
        let (mut send, mut recv) = there.quic.open_bi().await.expect("connected");
        let header = Header { id: 7, head: Vec::new(), length: body.len() as u64, digest };
        let header = encode_as(MARK_OLDEST, &header).expect("own type");
        write_frame(&mut send, &header).await.expect("connected");
        send.write_chunk(body.clone()).await.expect("is read");
        let _ = send.finish();
        read_frame(&mut recv, VERDICT_BYTES_MAX).await.expect("a verdict")
    };
    let receiving = async {
        let blob = receive(&here).await.expect("whole");
        blob.receipt.accept().await.expect("connected");
    };
    let (verdict, ()) = tokio::join!(sending, receiving);
    assert_eq!(verdict, [b'c', b'r', OLDEST, 0]);
}
