//! How adapters come to a rollout node: fetched through its mesh, chunk by chunk.

use std::sync::Arc;

use bytes::Bytes;
use crrl_cluster::Mesh;
use crrl_types::{Digest, NodeName};
use crrl_weights::{Offer, Report, Source};
use futures::future::BoxFuture;

/// What a fetch comes to.
pub type Fetched = (Report, Result<Bytes, String>);

/// Fetches what a parameter server of this name has offered, from the source first if one is named.
pub type Fetch =
    Arc<dyn Fn(Box<Offer>, Option<Source>, NodeName) -> BoxFuture<'static, Fetched> + Send + Sync>;

/// The ways of adapters to one node.
#[derive(Clone)]
pub struct Courier {
    /// Fetches.
    pub fetch: Fetch,
    /// Lets go of bytes the engine has refused, so that they are fetched anew.
    pub forget: Arc<dyn Fn(Digest) + Send + Sync>,
    /// The port others may fetch from this node at.
    pub relay_port: Option<u16>,
}

impl Courier {
    /// Through a mesh.
    #[must_use]
    pub fn of(mesh: &Mesh) -> Self {
        let (fetching, forgetting) = (mesh.clone(), mesh.weights().depot().clone());
        let fetch = move |offer: Box<Offer>, source, server| -> BoxFuture<'static, Fetched> {
            let mesh = fetching.clone();
            Box::pin(async move {
                let mut sources: Vec<Source> = Option::into_iter(source).collect();
                let address = mesh.dialled(&server);
                sources.extend(address.map(|address| Source { name: server, address }));
                let (report, bytes) = mesh.weights().fetch(&offer, &sources).await;
                (report, bytes.map_err(|error| error.to_string()))
            })
        };
        Self {
            fetch: Arc::new(fetch),
            forget: Arc::new(move |digest| forgetting.forget(digest)),
            relay_port: mesh.relay_port(),
        }
    }
}
