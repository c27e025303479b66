//! The parameter server's actor: an adapter reaches an engine, survives a restart, and a damaged
//! or older one is refused.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crrl_actors::leave::Leave;
use crrl_actors::parameter_server::{Args, Msg, ParameterServer};
use crrl_cluster::{Depot, Inbound, MeshEvent, Receipt, RunDir};
use crrl_control::wire::{NodeRole, Wire};
use crrl_types::{AdapterManifest, AdapterVersion, Digest, NodeName};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use ractor::{Actor, ActorRef};

/// A safetensors file of one number.
fn bytes(value: f32) -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(value.to_le_bytes());
    bytes
}

fn adapter(version: u64, value: f32) -> Wire {
    let payload = bytes(value);
    let manifest = AdapterManifest {
        version: AdapterVersion(version),
        digest: Digest::of(&payload),
        base_digest: Digest::of(b"base"),
        bytes: payload.len() as u64,
        rank: 1,
        alpha_milli: 1000,
        tensors: Vec::new(),
        finite: true,
    };
    Wire::Adapter { manifest, payload }
}

struct Server {
    actor: ActorRef<Msg>,
    sent: Receiver<(NodeName, Wire)>,
    depot: Depot,
}

async fn start(run: &RunDir) -> Server {
    let (sender, sent) = channel();
    let sender = Arc::new(Mutex::new(sender));
    let depot = Depot::default();
    let args = Args {
        run: run.clone(),
        options: Default::default(),
        post: Arc::new(move |to, wire| {
            // At the end the test listens no more.
            let _ = sender.lock().expect("no panic under it").send((to.clone(), wire));
            Ok(())
        }),
        find: Arc::new(|role| match role {
            NodeRole::Learner => Some("learner".into()),
            NodeRole::Coordinator => Some("coordinator".into()),
            _ => None,
        }),
        host: Arc::new(|_| Some([127, 0, 0, 1].into())),
        depot: depot.clone(),
        leave: Leave::default(),
    };
    let (actor, _) = Actor::spawn(None, ParameterServer, args).await.expect("a writable folder");
    Server { actor, sent, depot }
}

fn engine_up(actor: &ActorRef<Msg>) {
    let (name, roles) = (NodeName::from("rollout-0"), vec![NodeRole::Rollout]);
    let up = MeshEvent::PeerUp { name, roles, incarnation: 1 };
    actor.cast(Msg::Peer(up)).expect("it lives");
}

/// What the engine is offered, and whether it may serve it.
fn offered(server: &Server, wanted: u64) -> (Digest, bool) {
    until(&server.sent, |to, wire| match wire {
        Wire::AdapterOffer { offer, published, .. } if offer.manifest.version.0 == wanted => {
            assert_eq!(to.as_str(), "rollout-0");
            Some((offer.whole.digest, *published))
        }
        _ => None,
    })
}

fn is_published(server: &Server, wanted: u64) {
    until(&server.sent, |to, wire| {
        let learner = to.as_str() == "learner";
        let this = matches!(wire, Wire::Published { version, .. } if version.0 == wanted);
        (learner && this).then_some(())
    });
}

fn say(actor: &ActorRef<Msg>, from: &str, role: NodeRole, wire: Wire) {
    let inbound = Inbound { from: from.into(), roles: vec![role], wire, receipt: Receipt::none() };
    actor.cast(Msg::Inbound(Box::new(inbound))).expect("it lives");
}

fn until<T>(
    sent: &Receiver<(NodeName, Wire)>,
    wanted: impl Fn(&NodeName, &Wire) -> Option<T>,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let (to, wire) = sent.recv_timeout(left).expect("within 60 s");
        if let Some(found) = wanted(&to, &wire) {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_is_offered_kept_and_never_followed_by_an_older_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = RunDir::new(folder.path());
    let server = start(&run).await;
    say(&server.actor, "learner", NodeRole::Learner, adapter(2, 0.5));
    is_published(&server, 2);
    // An actor that failed with the news unread has to hear it all the same.
    for _ in 0..2 {
        until(&server.sent, |to, wire| {
            let told = matches!(wire, Wire::Published { version, .. } if version.0 == 2);
            (to.as_str() == "coordinator" && told).then_some(())
        });
    }
    for refused in [adapter(1, 0.25), adapter(3, f32::NAN)] {
        say(&server.actor, "learner", NodeRole::Learner, refused);
        let newest = until(&server.sent, |to, wire| match wire {
            Wire::AdapterRefused { newest, .. } if to.as_str() == "learner" => Some(*newest),
            _ => None,
        });
        assert_eq!(newest, AdapterVersion(2));
    }
    server.actor.stop_and_wait(None, None).await.expect("it stops");

    let server = start(&run).await;
    engine_up(&server.actor);
    let (digest, published) = offered(&server, 2);
    assert!(published);
    let held = server.depot.whole(digest).expect("to be fetched");
    assert_eq!(held, bytes(0.5), "not what was published before the restart");
    server.actor.stop_and_wait(None, None).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_goes_ahead_and_is_published_when_its_checkpoint_is_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = RunDir::new(folder.path());
    let server = start(&run).await;
    engine_up(&server.actor);
    let Wire::Adapter { manifest, payload } = adapter(1, 0.5) else { unreachable!("it is one") };
    let (version, digest) = (manifest.version, manifest.digest);
    let draft = Wire::AdapterDraft { manifest, payload };
    say(&server.actor, "learner", NodeRole::Learner, draft);
    assert_eq!(offered(&server, 1), (digest, false));
    // A server that ends here has published nothing.
    server.actor.stop_and_wait(None, None).await.expect("it stops");
    let server = start(&run).await;
    engine_up(&server.actor);
    say(
        &server.actor,
        "rollout-0",
        NodeRole::Rollout,
        Wire::AdapterWanted { have: AdapterVersion(0) },
    );
    let Wire::Adapter { manifest, payload } = adapter(1, 0.5) else { unreachable!("it is one") };
    say(&server.actor, "learner", NodeRole::Learner, Wire::AdapterDraft { manifest, payload });
    assert_eq!(offered(&server, 1), (digest, false), "published by a restart");
    say(&server.actor, "learner", NodeRole::Learner, Wire::AdapterKept { version, digest });
    is_published(&server, 1);
    server.actor.stop_and_wait(None, None).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_damaged_on_the_disk_is_not_handed_out_until_the_learner_mends_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = RunDir::new(folder.path());
    // What is newest where version 2 is not taken: that itself, or what comes before it.
    let refused = |to: &NodeName, wire: &Wire, below: u64| match wire {
        Wire::AdapterRefused { version, newest, .. } => {
            let this = (version.0, newest.0) == (2, below) && to.as_str() == "learner";
            this.then_some(())
        }
        _ => None,
    };
    let server = start(&run).await;
    say(&server.actor, "learner", NodeRole::Learner, adapter(2, 0.5));
    is_published(&server, 2);
    server.actor.stop_and_wait(None, None).await.expect("it stops");
    let path = run.path().join("adapters/2.safetensors");
    std::fs::write(&path, b"torn").expect("writable");

    let server = start(&run).await;
    engine_up(&server.actor);
    let wanted = Wire::AdapterWanted { have: AdapterVersion(0) };
    say(&server.actor, "rollout-0", NodeRole::Rollout, wanted);
    // The learner, which may go on for long before it offers anything, is asked for it.
    until(&server.sent, |to, wire| refused(to, wire, 1));
    // Its version still counts; offered again as it was, it is whole again.
    say(&server.actor, "learner", NodeRole::Learner, adapter(2, 0.25));
    until(&server.sent, |to, wire| refused(to, wire, 2));
    say(&server.actor, "learner", NodeRole::Learner, adapter(2, 0.5));
    let (digest, published) = offered(&server, 2);
    assert!(published);
    let held = server.depot.whole(digest).expect("to be fetched");
    assert_eq!(held, bytes(0.5), "something damaged was handed out");
    assert_eq!(std::fs::read(&path).expect("is there"), bytes(0.5));
    server.actor.stop_and_wait(None, None).await.expect("it stops");
}

/// What was counted under this name, of all tests of this program.
fn counted(handle: &PrometheusHandle, name: &str) -> f64 {
    let text = handle.render();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_does_is_counted() {
    let handle = PrometheusBuilder::new().install_recorder().expect("nobody else records");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = start(&RunDir::new(folder.path())).await;
    engine_up(&server.actor);
    let wanted = Wire::AdapterWanted { have: AdapterVersion(0) };
    say(&server.actor, "rollout-0", NodeRole::Rollout, wanted);
    let names = [
        "crrl_adapters_published_total",
        "crrl_adapters_refused_total",
        "crrl_adapter_offers_total{from=\"server\"}",
        "crrl_adapter_fetches_failed_total",
        "crrl_adapter_all_activated_seconds_count",
    ];
    let before = names.map(|name| counted(&handle, name));
    say(&server.actor, "learner", NodeRole::Learner, adapter(1, 0.5));
    let (digest, _) = offered(&server, 1);
    let version = AdapterVersion(1);
    let (report, error) = (Default::default(), Some("a bad line".to_owned()));
    let failed = Wire::AdapterArrived { version, digest, report, error };
    is_published(&server, 1);
    say(&server.actor, "rollout-0", NodeRole::Rollout, failed);
    offered(&server, 1);
    say(&server.actor, "rollout-0", NodeRole::Rollout, Wire::Activated { version, digest });
    say(&server.actor, "learner", NodeRole::Learner, adapter(2, f32::NAN));
    let deadline = Instant::now() + Duration::from_secs(60);
    for (name, before) in names.into_iter().zip(before) {
        while counted(&handle, name) <= before {
            assert!(Instant::now() < deadline, "{name} stays {before}:\n{}", handle.render());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    server.actor.stop_and_wait(None, None).await.expect("it stops");
}
