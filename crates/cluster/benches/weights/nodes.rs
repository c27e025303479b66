//! A parameter server and rollout nodes, and adapters of any size.

use std::net::SocketAddr;

use bytes::Bytes;
use crrl_cluster::{Inbound, Mesh, MeshOptions, Router, StatusBoard};
use crrl_transport::Authority;
use crrl_types::{AdapterManifest, AdapterVersion, Digest, NodeName};
use crrl_weights::{Offer, Source};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) got: UnboundedReceiver<Inbound>,
}

pub(crate) struct World {
    folder: tempfile::TempDir,
    /// What every node may send, in bytes a second.
    pace: u64,
    pub(crate) server: Node,
}

impl World {
    pub(crate) async fn new(pace: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listens = |options: &mut MeshOptions| options.listen = Some(any());
        let server = node(&folder, "server", "parameter-server", pace, listens).await;
        Self { folder, pace, server }
    }

    /// Rollout nodes that dial the server and pass adapters on.
    pub(crate) async fn rollout_nodes(&self, count: usize) -> Vec<Node> {
        let at = self.server.mesh.local_addr().expect("is bound");
        let mut nodes = Vec::new();
        for n in 0..count {
            let change = |options: &mut MeshOptions| {
                options.relay = Some(any());
                options.dial = vec![("server".into(), at.into())];
            };
            let name = format!("rollout-{n}");
            nodes.push(node(&self.folder, &name, "rollout", self.pace, change).await);
        }
        while self.server.mesh.peers().len() < count {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        nodes
    }

    pub(crate) async fn close(self, nodes: Vec<Node>) {
        for node in nodes {
            node.mesh.stop("done").await;
        }
        self.server.mesh.stop("done").await;
    }
}

async fn node(
    folder: &tempfile::TempDir,
    name: &str,
    role: &str,
    pace: u64,
    change: impl FnOnce(&mut MeshOptions),
) -> Node {
    let name = NodeName::from(name);
    Authority::open_or_create(folder.path())
        .and_then(|authority| authority.issue(&name, &[role.to_owned()]))
        .expect("certificates can be made");
    let mut options = MeshOptions::new(name, 1, folder.path().to_owned());
    options.transport.bulk_bytes_per_s = pace;
    change(&mut options);
    let router = Router::new();
    let (sender, got) = unbounded_channel();
    router.register_fn("bench", |_| true, move |i| sender.send(i).map_err(|e| e.to_string()));
    let mesh = Mesh::start(options, router, StatusBoard::new()).await.expect("joins");
    Node { mesh, got }
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn source(mesh: &Mesh) -> Source {
    Source { name: mesh.name().clone(), address: mesh.local_addr().expect("is bound") }
}

/// Bytes that no compression helps with.
pub(crate) fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// An adapter and what the server says of it.
pub(crate) fn offer(version: u64, bytes: &Bytes) -> Offer {
    let manifest = AdapterManifest {
        version: AdapterVersion(version),
        digest: Digest::of(bytes),
        base_digest: Digest::default(),
        bytes: bytes.len() as u64,
        rank: 16,
        alpha_milli: 32_000,
        tensors: Vec::new(),
        finite: true,
    };
    Offer::whole(manifest, bytes)
}
