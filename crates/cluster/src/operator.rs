//! Status and shutdown, for people's tools.
//!
//! A tool with the operator's certificate dials the coordinator. Each request is one stream: a JSON
//! frame there, one or more JSON frames back.

use std::sync::Arc;
use std::time::Duration;

use crrl_control::wire::{NodeRole, Wire};
use crrl_transport::{
    Connection, Credentials, Endpoint, NetThread, Options, Purpose, read_frame, write_frame,
};
use crrl_types::fault::Injection;
use crrl_types::{NodeName, TaskId};
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};

use crate::board::Snapshot;
use crate::mesh::roles_of;
use crate::peer::Shared;
use crate::router::{Inbound, Receipt, Routed, Router};
use crate::run_dir::{OPERATOR, RunDir};

/// Longest request.
const REQUEST_BYTES_MAX: usize = 4096;
/// Longest reply: a board of a thousand nodes.
const REPLY_BYTES_MAX: usize = 4 << 20;
/// Time between two snapshots of a subscription.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(200);
/// A coordinator that says nothing for this long is hung.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Status,
    Subscribe,
    Stop { reason: String },
    Release { task: TaskId },
    Inject { node: NodeName, injection: Injection },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Snapshot(Box<Snapshot>),
    Stopping,
    Released,
    Injected,
    Refused(String),
}

/// Why a tool could not talk to the coordinator.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The run folder has no certificate or address to dial with.
    #[error("{0}; is this the folder of a run that `crrl cluster up` has started?")]
    NotARun(String),
    /// Nobody answers.
    #[error("the coordinator cannot be reached: {0}")]
    Unreachable(String),
    /// It answered, and not with what was asked for.
    #[error("the coordinator refused: {0}")]
    Refused(String),
}

/// Answers the tool at the other end of a connection until it leaves.
pub(crate) async fn serve(shared: &Arc<Shared>, connection: &Connection) {
    let roles = roles_of(&connection.peer.roles);
    let tool = |role: &NodeRole| matches!(role, NodeRole::Operator | NodeRole::Chaos);
    if !roles.iter().any(tool) {
        return connection.close("the certificate is not an operator's");
    }
    if !shared.roles.contains(&NodeRole::Coordinator) {
        return connection.close("this node is not the coordinator");
    }
    while let Ok((send, recv)) = connection.quic.accept_bi().await {
        if shared.endpoint.revocations().contains(connection.fingerprint) {
            return connection.close("the certificate was revoked");
        }
        let shared = Arc::clone(shared);
        let (name, roles) = (connection.peer.name.clone(), roles.clone());
        // QUIC bounds the streams a tool may have open.
        tokio::spawn(async move {
            if let Err(error) = answer(&shared, name, &roles, send, recv).await {
                tracing::debug!(error, "an operator's request ended early");
            }
        });
    }
}

async fn answer(
    shared: &Shared,
    from: NodeName,
    roles: &[NodeRole],
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), String> {
    let request = tokio::time::timeout(REPLY_TIMEOUT, read_frame(&mut recv, REQUEST_BYTES_MAX))
        .await
        .map_err(|_| "no request came".to_owned())?
        .map_err(|error| error.to_string())?;
    match serde_json::from_slice(&request) {
        Ok(Request::Status) => write_reply(&mut send, &snapshot(shared)).await?,
        Ok(Request::Subscribe) => loop {
            write_reply(&mut send, &snapshot(shared)).await?;
            tokio::select! {
                () = tokio::time::sleep(SNAPSHOT_EVERY) => {}
                () = shared.stopped() => break,
            }
        },
        Ok(Request::Stop { reason }) => {
            let wire = Wire::Stop { reason };
            let inbound = Inbound { from, roles: roles.to_vec(), wire, receipt: Receipt::none() };
            let reply = match shared.router.route(inbound) {
                Routed::Delivered(_) | Routed::Held => Reply::Stopping,
                Routed::Refused => Reply::Refused(denied(roles)),
                Routed::Unrouted => {
                    Reply::Refused("the coordinator is not ready to stop yet".into())
                }
            };
            write_reply(&mut send, &reply).await?;
        }
        Ok(Request::Release { task }) => {
            let wire = Wire::Release { task };
            let inbound = Inbound { from, roles: roles.to_vec(), wire, receipt: Receipt::none() };
            let reply = match shared.router.route(inbound) {
                Routed::Delivered(_) | Routed::Held => Reply::Released,
                Routed::Refused => Reply::Refused(denied(roles)),
                Routed::Unrouted => Reply::Refused("the coordinator is not ready yet".into()),
            };
            write_reply(&mut send, &reply).await?;
        }
        Ok(Request::Inject { node, injection }) => {
            let wire = Wire::Inject(injection);
            let reply = if !Router::allows(&wire, roles) {
                Reply::Refused(denied(roles))
            } else {
                tracing::warn!(by = %from, to = %node, ?injection, "a fault is injected");
                inject(shared, from, roles, &node, wire)
            };
            write_reply(&mut send, &reply).await?;
        }
        Err(error) => write_reply(&mut send, &Reply::Refused(error.to_string())).await?,
    }
    let _ = send.finish();
    Ok(())
}

fn denied(roles: &[NodeRole]) -> String {
    format!("a certificate for {roles:?} does not allow it")
}

fn inject(
    shared: &Shared,
    from: NodeName,
    roles: &[NodeRole],
    node: &NodeName,
    wire: Wire,
) -> Reply {
    if *node == shared.options.name {
        let inbound = Inbound { from, roles: roles.to_vec(), wire, receipt: Receipt::none() };
        return match shared.router.route(inbound) {
            Routed::Delivered(_) | Routed::Held => Reply::Injected,
            Routed::Refused | Routed::Unrouted => {
                Reply::Refused("this node takes no faults".into())
            }
        };
    }
    match shared.peer(node).map(|peer| peer.cast(wire)) {
        Some(Ok(())) => Reply::Injected,
        Some(Err(error)) => Reply::Refused(error.to_string()),
        None => Reply::Refused(format!("{node} is not connected")),
    }
}

fn snapshot(shared: &Shared) -> Reply {
    Reply::Snapshot(Box::new(shared.board.snapshot()))
}

async fn write_reply(send: &mut SendStream, reply: &Reply) -> Result<(), String> {
    let json = serde_json::to_vec(reply).map_err(|error| error.to_string())?;
    tokio::time::timeout(REPLY_TIMEOUT, write_frame(send, &json))
        .await
        .map_err(|_| "the operator does not read".to_owned())?
        .map_err(|error| error.to_string())
}

/// A tool's connection to the coordinator of a run.
#[derive(Debug)]
pub struct OperatorClient {
    connection: Connection,
    endpoint: Endpoint,
}

impl OperatorClient {
    /// Dials the coordinator of a run with the operator's certificate of its folder.
    ///
    /// # Errors
    /// [`OperatorError`], within a few seconds.
    pub async fn connect(run: &RunDir) -> Result<Self, OperatorError> {
        Self::connect_as(run, OPERATOR).await
    }

    /// Dials the coordinator of a run with this certificate of its folder.
    ///
    /// # Errors
    /// [`OperatorError`], within a few seconds.
    pub async fn connect_as(run: &RunDir, who: &str) -> Result<Self, OperatorError> {
        let net =
            NetThread::start(who).map_err(|error| OperatorError::Unreachable(error.to_string()))?;
        Self::connect_over(&net, run, who).await
    }

    /// As [`OperatorClient::connect_as`], with QUIC on a thread that is there already.
    ///
    /// # Errors
    /// [`OperatorError`], within a few seconds.
    pub async fn connect_over(
        net: &NetThread,
        run: &RunDir,
        who: &str,
    ) -> Result<Self, OperatorError> {
        let not_a_run = |error: &dyn std::fmt::Display| OperatorError::NotARun(error.to_string());
        let config = run.config().map_err(|e| not_a_run(&e))?;
        let nodes = config.nodes();
        let coordinator = nodes
            .iter()
            .find(|node| node.roles.contains(&crrl_config::Role::Coordinator))
            .ok_or_else(|| not_a_run(&"no node is the coordinator"))?;
        let name = NodeName::from(coordinator.name.as_str());
        let addresses = run.dialled().map_err(|e| not_a_run(&e))?;
        let address = *addresses
            .get(&name)
            .ok_or_else(|| not_a_run(&format!("nobody knows where {name} listens")))?;
        let credentials = Credentials::load(&run.tls(), &who.into()).map_err(|e| not_a_run(&e))?;
        let unreachable =
            |error: &dyn std::fmt::Display| OperatorError::Unreachable(error.to_string());
        let endpoint = Endpoint::bind(net, &credentials, None, Options::default())
            .map_err(|e| unreachable(&e))?;
        let connection =
            endpoint.dial(&name, address, Purpose::Operator).await.map_err(|e| unreachable(&e))?;
        Ok(Self { connection, endpoint })
    }

    /// What the run looks like right now.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn status(&self) -> Result<Snapshot, OperatorError> {
        let mut recv = self.request(&Request::Status).await?;
        match read_reply(&mut recv).await? {
            Reply::Snapshot(snapshot) => Ok(*snapshot),
            other => Err(unexpected(other)),
        }
    }

    /// What the run looks like, about five times a second.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn subscribe(&self) -> Result<Subscription, OperatorError> {
        Ok(Subscription(self.request(&Request::Subscribe).await?))
    }

    /// Asks the coordinator to end the run. It answers at once; nodes leave in their own time.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn stop(&self, reason: &str) -> Result<(), OperatorError> {
        let mut recv = self.request(&Request::Stop { reason: reason.to_owned() }).await?;
        match read_reply(&mut recv).await? {
            Reply::Stopping => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Lets a task out of quarantine.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn release(&self, task: &TaskId) -> Result<(), OperatorError> {
        let mut recv = self.request(&Request::Release { task: task.clone() }).await?;
        match read_reply(&mut recv).await? {
            Reply::Released => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Makes something go wrong in a node. Needs a certificate with the chaos role.
    ///
    /// # Errors
    /// [`OperatorError`]: not allowed, or the node is not connected.
    pub async fn inject(&self, node: &NodeName, injection: Injection) -> Result<(), OperatorError> {
        let request = Request::Inject { node: node.clone(), injection };
        let mut recv = self.request(&request).await?;
        match read_reply(&mut recv).await? {
            Reply::Injected => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Leaves.
    pub async fn close(self) {
        self.endpoint.close("done").await;
    }

    async fn request(&self, request: &Request) -> Result<RecvStream, OperatorError> {
        let unreachable =
            |error: &dyn std::fmt::Display| OperatorError::Unreachable(error.to_string());
        let json = serde_json::to_vec(request).map_err(|e| unreachable(&e))?;
        let (mut send, recv) = self.connection.quic.open_bi().await.map_err(|e| unreachable(&e))?;
        write_frame(&mut send, &json).await.map_err(|e| unreachable(&e))?;
        let _ = send.finish();
        Ok(recv)
    }
}

/// Snapshots as they come.
#[derive(Debug)]
pub struct Subscription(RecvStream);

impl Subscription {
    /// The next one.
    ///
    /// # Errors
    /// The coordinator has left, or hangs.
    pub async fn next(&mut self) -> Result<Snapshot, OperatorError> {
        match read_reply(&mut self.0).await? {
            Reply::Snapshot(snapshot) => Ok(*snapshot),
            other => Err(unexpected(other)),
        }
    }
}

async fn read_reply(recv: &mut RecvStream) -> Result<Reply, OperatorError> {
    let frame = tokio::time::timeout(REPLY_TIMEOUT, read_frame(recv, REPLY_BYTES_MAX))
        .await
        .map_err(|_| OperatorError::Unreachable("it did not answer in time".into()))?
        .map_err(|error| OperatorError::Unreachable(error.to_string()))?;
    serde_json::from_slice(&frame).map_err(|error| OperatorError::Refused(error.to_string()))
}

fn unexpected(reply: Reply) -> OperatorError {
    OperatorError::Refused(match reply {
        Reply::Refused(reason) => reason,
        other => format!("it answered {other:?}"),
    })
}
