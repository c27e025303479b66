//! The parameter server's actor: an adapter reaches an engine, survives a restart, and a damaged
//! or older one is refused.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crrl_actors::parameter_server::{Args, Msg, ParameterServer};
use crrl_cluster::{Inbound, MeshEvent, Receipt, RunDir};
use crrl_control::wire::{NodeRole, Wire};
use crrl_types::{AdapterManifest, AdapterVersion, Digest, NodeName};
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

async fn start(run: &RunDir) -> (ActorRef<Msg>, Receiver<(NodeName, Wire)>) {
    let (sender, sent) = channel();
    let sender = Arc::new(Mutex::new(sender));
    let (posts, deliveries) = (sender.clone(), sender);
    let args = Args {
        run: run.clone(),
        options: Default::default(),
        post: Arc::new(move |to, wire| {
            // At the end the test listens no more.
            let _ = posts.lock().expect("no panic under it").send((to.clone(), wire));
            Ok(())
        }),
        deliver: Arc::new(move |to, manifest, payload| {
            let wire = Wire::Adapter { manifest, payload: payload.to_vec() };
            let _ = deliveries.lock().expect("no panic under it").send((to, wire));
            Box::pin(async { Ok(()) })
        }),
        find: Arc::new(|role| match role {
            NodeRole::Learner => Some("learner".into()),
            NodeRole::Coordinator => Some("coordinator".into()),
            _ => None,
        }),
    };
    let (actor, _) = Actor::spawn(None, ParameterServer, args).await.expect("a writable folder");
    (actor, sent)
}

fn say(actor: &ActorRef<Msg>, from: &str, role: NodeRole, wire: Wire) {
    let inbound = Inbound { from: from.into(), roles: vec![role], wire, receipt: Receipt::none() };
    actor.cast(Msg::Inbound(Box::new(inbound))).expect("it lives");
}

fn until<T>(
    sent: &Receiver<(NodeName, Wire)>,
    wanted: impl Fn(&NodeName, &Wire) -> Option<T>,
) -> T {
    loop {
        let (to, wire) = sent.recv_timeout(Duration::from_secs(20)).expect("within 20 s");
        if let Some(found) = wanted(&to, &wire) {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_is_delivered_kept_and_never_followed_by_an_older_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = RunDir::new(folder.path());
    let (actor, sent) = start(&run).await;
    say(&actor, "learner", NodeRole::Learner, adapter(2, 0.5));
    until(&sent, |_, wire| {
        matches!(wire, Wire::Published { version, .. } if version.0 == 2).then_some(())
    });
    // An actor that failed with the news unread has to hear it all the same.
    for _ in 0..2 {
        until(&sent, |to, wire| {
            let told = matches!(wire, Wire::Published { version, .. } if version.0 == 2);
            (to.as_str() == "coordinator" && told).then_some(())
        });
    }
    for refused in [adapter(1, 0.25), adapter(3, f32::NAN)] {
        say(&actor, "learner", NodeRole::Learner, refused);
        let newest = until(&sent, |to, wire| match wire {
            Wire::AdapterRefused { newest, .. } if to.as_str() == "learner" => Some(*newest),
            _ => None,
        });
        assert_eq!(newest, AdapterVersion(2));
    }
    actor.stop_and_wait(None, None).await.expect("it stops");

    let (actor, sent) = start(&run).await;
    let (name, roles) = (NodeName::from("rollout-0"), vec![NodeRole::Rollout]);
    let up = MeshEvent::PeerUp { name, roles, incarnation: 1 };
    actor.cast(Msg::Peer(up)).expect("it lives");
    let payload = until(&sent, |to, wire| match wire {
        Wire::Adapter { manifest, payload } if manifest.version.0 == 2 => {
            assert_eq!(to.as_str(), "rollout-0");
            Some(payload.clone())
        }
        _ => None,
    });
    assert_eq!(payload, bytes(0.5), "not what was published before the restart");
    actor.stop_and_wait(None, None).await.expect("it stops");
}
