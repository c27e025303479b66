//! A coordinator and a rollout node on loopback, and tools with certificates of every kind.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crrl_cluster::host::prepare;
use crrl_cluster::router::kind;
use crrl_cluster::{Mesh, MeshOptions, OperatorClient, OperatorError, Router, RunDir, StatusBoard};
use crrl_control::wire::Wire;
use crrl_transport::{Authority, NetThread};
use crrl_types::actor::{ActorSnapshot, SNAPSHOT_BYTES_MAX, SnapshotAnswer};
use crrl_types::{NodeName, OrderAnswer, Outcome, TraceEnd, TraceStop, Traced};

const CONFIG: &str = r#"
[run]
dir = "RUN"
[learner]
micro_batch_tokens = 20000
[[node]]
name = "coordinator-N"
roles = ["coordinator", "parameter-server"]
[[node]]
name = "learner-N"
roles = ["learner"]
[[node]]
name = "rollout-N"
roles = ["rollout"]
"#;
/// Process groups are shared by every mesh of a process: each world has names of its own.
static WORLDS: AtomicU32 = AtomicU32::new(0);
const DEADLINE: Duration = Duration::from_secs(20);

/// What has come to whom: the receiver and the kind of the message.
type Got = Arc<Mutex<Vec<(&'static str, String)>>>;

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) run: RunDir,
    pub(crate) coordinator: Mesh,
    pub(crate) node: Mesh,
    pub(crate) net: NetThread,
    number: u32,
    got: Got,
}

fn prepared(folder: &std::path::Path, number: u32) -> RunDir {
    let run = RunDir::new(folder);
    std::fs::create_dir_all(folder).expect("writable");
    let text = CONFIG.replace("-N", &format!("-{number}"));
    let text = text.replace("RUN", &folder.display().to_string());
    std::fs::write(run.config_path(), text).expect("writable");
    prepare::prepare(&run, &run.config().expect("just written")).expect("certificates");
    run
}

impl World {
    /// With a viewer's, an operator's and a chaos tool's certificate.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let run = prepared(&folder.path().join("run"), number);
        for (name, role) in [("viewer", "viewer"), ("chaos", "chaos")] {
            Authority::open_or_create(&run.tls())
                .and_then(|authority| authority.issue(&name.into(), &[role.to_owned()]))
                .expect("a certificate");
        }
        let got = Got::default();
        let options = MeshOptions::for_node(&run, &format!("coordinator-{number}").into())
            .expect("was prepared");
        let router = Router::new();
        let takes = |wire: &Wire| matches!(wire, Wire::Stop { .. } | Wire::Release { .. });
        let hears = Arc::clone(&got);
        router.register_fn("test", takes, move |inbound| {
            hears.lock().expect("no panic").push(("coordinator", kind(&inbound.wire)));
            Ok(())
        });
        let coordinator =
            Mesh::start(options, router, StatusBoard::new()).await.expect("can listen");
        let node = node(&run, number, &got).await;
        let net = NetThread::start("tools").expect("a thread");
        let world = Self { folder, run, coordinator, node, net, number, got };
        world.until(|| !world.coordinator.peers().is_empty()).await;
        world
    }

    /// The rollout node's name.
    pub(crate) fn rollout(&self) -> NodeName {
        self.node.name().clone()
    }

    /// With a certificate of the run.
    pub(crate) async fn tool(&self, who: &str) -> OperatorClient {
        OperatorClient::connect_over(&self.net, &self.run, who).await.expect("it answers")
    }

    /// With a certificate of another authority, that dials where ours listens.
    pub(crate) async fn foreigner(&self, knows_us: bool) -> Result<OperatorClient, OperatorError> {
        let run = prepared(&self.folder.path().join("foreign"), self.number);
        std::fs::copy(self.run.addresses_path(), run.addresses_path()).expect("readable");
        if knows_us {
            std::fs::copy(self.run.tls().join("ca.pem"), run.tls().join("ca.pem"))
                .expect("readable");
        }
        OperatorClient::connect_over(&self.net, &run, "operator").await
    }

    /// Nobody's request, without a certificate: what was answered.
    pub(crate) async fn nobody(&self, request: &str) -> Result<Vec<u8>, String> {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;
        let pem = std::fs::read(self.run.tls().join("ca.pem")).expect("is there");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).expect("is PEM")).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"crrl-operator/1".to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("has TLS 1.3");
        let mut nobody =
            quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        nobody.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        let at = self.coordinator.local_addr().expect("is bound");
        let asking = async {
            let text = |error: &dyn std::fmt::Display| error.to_string();
            let connecting =
                nobody.connect(at, self.coordinator.name().as_str()).map_err(|e| text(&e))?;
            let connection = connecting.await.map_err(|e| text(&e))?;
            let (mut send, mut recv) = connection.open_bi().await.map_err(|e| text(&e))?;
            crrl_transport::write_frame(&mut send, request.as_bytes())
                .await
                .map_err(|e| text(&e))?;
            crrl_transport::read_frame(&mut recv, 1 << 20).await.map_err(|e| text(&e))
        };
        tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| Err("silence".into()))
    }

    /// What has come to whom since this was asked last.
    pub(crate) fn got(&self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut *self.got.lock().expect("no panic"))
    }

    /// Waits until something has come about.
    pub(crate) async fn until(&self, what: impl Fn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !what() {
            assert!(Instant::now() < deadline, "did not come about; got {:?}", self.got());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What an actor of this name has published.
fn snapshot(actor: &str) -> SnapshotAnswer {
    let here = |outcome, json: String| SnapshotAnswer {
        answer: OrderAnswer::new(outcome, ""),
        snapshot: Some(ActorSnapshot { json, age_ms: 40 }),
    };
    match actor {
        "rollout" => here(Outcome::Done, r#"{"stance":"open"}"#.to_owned()),
        "cut" => here(Outcome::Truncated, "{}".to_owned()),
        "endless" => here(Outcome::Done, format!("{:?}", "x".repeat(SNAPSHOT_BYTES_MAX))),
        "thread" => SnapshotAnswer::none(Outcome::Unsupported, "a thread publishes none"),
        "young" => SnapshotAnswer::none(Outcome::Busy, "it has published none yet"),
        _ => SnapshotAnswer::none(Outcome::Absent, "there is no such actor"),
    }
}

/// A rollout node that does whatever it is told and traces nothing. A trace of `endless`
/// does not end.
async fn node(run: &RunDir, number: u32, got: &Got) -> Mesh {
    let router = Router::new();
    let way_back: Arc<OnceLock<Mesh>> = Arc::default();
    let (hears, way) = (Arc::clone(got), Arc::clone(&way_back));
    let takes = |wire: &Wire| {
        matches!(
            wire,
            Wire::Order { .. }
                | Wire::Trace { .. }
                | Wire::TraceOff { .. }
                | Wire::SnapshotWanted { .. }
                | Wire::Inject(_)
                | Wire::Lift { .. }
                | Wire::Drain
        )
    };
    router.register_fn("test", takes, move |inbound| {
        hears.lock().expect("no panic").push(("node", kind(&inbound.wire)));
        let done = |says: &str| OrderAnswer::new(Outcome::Done, says);
        let answers = match inbound.wire {
            Wire::Order { id, order, .. } => {
                vec![Wire::Ordered { id, answer: done(&order.to_string()) }]
            }
            Wire::Trace { id, request } => {
                let end = TraceEnd { why: TraceStop::Count, events: 0 };
                let is_endless = request.target.actor.as_deref() == Some("endless");
                let end = (!is_endless).then_some(Wire::Traced { id, traced: Traced::End(end) });
                [Some(Wire::Ordered { id, answer: done("traced") }), end]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Wire::SnapshotWanted { id, actor } => {
                vec![Wire::Snapshot { id, answer: Box::new(snapshot(&actor)) }]
            }
            _ => Vec::new(),
        };
        if let Some(mesh) = way.get() {
            for answer in answers {
                mesh.cast(&inbound.from, answer).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    });
    let options =
        MeshOptions::for_node(run, &format!("rollout-{number}").into()).expect("was prepared");
    let mesh = Mesh::start(options, router, StatusBoard::new()).await.expect("can dial");
    let _ = way_back.set(mesh.clone());
    mesh
}
