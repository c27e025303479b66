//! The tool's end: asking the coordinator of a run.

use std::time::Duration;

use crrl_machine::clock;
use crrl_transport::{
    Connection, Credentials, DecodeError, DialError, Endpoint, NetThread, Options, Purpose,
    read_frame, write_frame,
};
use crrl_types::actor::SnapshotAnswer;
use crrl_types::fault::Injection;
use crrl_types::{NodeName, Order, OrderAnswer, Outcome, Target, TaskId, TraceRequest, Traced};
use quinn::RecvStream;

use super::{ORDER_TIMEOUT, REPLY_TIMEOUT, Reply, Request};
use crate::board::Snapshot;
use crate::picture::{Form, Picture, TimedPiece};
use crate::run_dir::{OPERATOR, RunDir, VIEWER};

/// Longest reply.
const REPLY_BYTES_MAX: usize = 4 << 20;
/// How a coordinator begins that does not know what it was asked.
pub(super) const UNKNOWN: &str = "unknown variant";
/// The answer to an order comes later than the order may take.
const ANSWER_TIMEOUT: Duration = ORDER_TIMEOUT.saturating_add(REPLY_TIMEOUT);

/// Why a tool could not talk to the coordinator.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The run folder has no certificate or address to dial with.
    #[error("{0}; is this the folder of a run that `crrl cluster up` has started?")]
    NotARun(String),
    /// Nobody is there, as far as can be told from here.
    #[error("the coordinator cannot be reached: {0}")]
    Silent(String),
    /// Somebody is there, and no answer can be had.
    #[error("the coordinator cannot be reached: {0}")]
    Unreachable(String),
    /// It answered, and not with what was asked for.
    #[error("the coordinator refused: {0}")]
    Refused(String),
}

/// A tool's connection to the coordinator of a run.
#[derive(Debug)]
pub struct OperatorClient {
    connection: Connection,
    endpoint: Endpoint,
}

impl OperatorClient {
    /// Dials the coordinator of a run with the operator's certificate of its folder; with a
    /// viewer's, where that is all there is.
    ///
    /// # Errors
    /// [`OperatorError`], within a few seconds.
    pub async fn connect(run: &RunDir) -> Result<Self, OperatorError> {
        let has = |who: &str| run.tls().join(format!("{who}.pem")).is_file();
        let who = if !has(OPERATOR) && has(VIEWER) { VIEWER } else { OPERATOR };
        Self::connect_as(run, who).await
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
        let at = addresses
            .get(&name)
            .ok_or_else(|| not_a_run(&format!("nobody knows where {name} listens")))?;
        let credentials = Credentials::load(&run.tls(), &who.into()).map_err(|e| not_a_run(&e))?;
        let unreachable =
            |error: &dyn std::fmt::Display| OperatorError::Unreachable(error.to_string());
        let endpoint = Endpoint::bind(net, &credentials, None, Options::default())
            .map_err(|e| unreachable(&e))?;
        let dialled = endpoint.dial_host(&name, at, Purpose::Operator).await;
        let (connection, _) = dialled.map_err(|error| match error {
            DialError::Timeout { .. } => OperatorError::Silent(error.to_string()),
            error => unreachable(&error),
        })?;
        Ok(Self { connection, endpoint })
    }

    /// What the run looks like right now.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn status(&self) -> Result<Snapshot, OperatorError> {
        let asked = [Request::StatusFull, Request::StatusTimed, Request::Status];
        let (mut recv, form) = self.look(&asked).await?;
        let mut picture = Picture::default();
        read_whole(&mut recv, &mut picture, form).await?;
        Ok(picture.snapshot())
    }

    /// What the run looks like, about five times a second. At most [`VIEWERS_MAX`](crate::operator::VIEWERS_MAX) may ask for that.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn subscribe(&self) -> Result<Subscription, OperatorError> {
        let asked = [Request::SubscribeFull, Request::SubscribeTimed, Request::Subscribe];
        let (mut recv, form) = self.look(&asked).await?;
        let mut picture = Picture::default();
        read_whole(&mut recv, &mut picture, form).await?;
        Ok(Subscription { recv, form, picture, is_fresh: true })
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

    /// Asks a rollout node to finish what it has and to take no more, until it is restarted.
    ///
    /// # Errors
    /// [`OperatorError`]: the node is not connected.
    pub async fn drain(&self, node: &NodeName) -> Result<(), OperatorError> {
        let mut recv = self.request(&Request::Drain { node: node.clone() }).await?;
        match read_reply(&mut recv).await? {
            Reply::Draining => Ok(()),
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

    /// Ends a fault before its time. Needs a certificate with the chaos role.
    ///
    /// # Errors
    /// [`OperatorError`]: not allowed, the node is not connected, or this fault cannot be ended.
    pub async fn lift(&self, node: &NodeName, injection: Injection) -> Result<(), OperatorError> {
        match injection.lifted() {
            Some(lifted) => self.inject(node, lifted).await,
            None => Err(OperatorError::Refused("it cannot be ended before its time".into())),
        }
    }

    /// Has something done to a node or an actor. Whatever became of it is an answer.
    ///
    /// # Errors
    /// [`OperatorError`]: nobody answers.
    pub async fn order(&self, order: &Order) -> Result<OrderAnswer, OperatorError> {
        let mut recv = self.request(&Request::Order(order.clone())).await?;
        read_answer(&mut recv).await
    }

    /// What an actor has published of its state. Whatever stands in the way is an answer: `denied` by
    /// the certificate, `unsupported` by an actor or a coordinator of an older build.
    ///
    /// # Errors
    /// [`OperatorError`]: nobody answers.
    pub async fn snapshot(&self, target: &Target) -> Result<SnapshotAnswer, OperatorError> {
        let mut recv = self.request(&Request::Snapshot { target: target.clone() }).await?;
        match reply_within(ANSWER_TIMEOUT, &mut recv).await? {
            Reply::Snapshot(answer) => Ok(answer),
            Reply::Refused(says) if says.starts_with(UNKNOWN) => {
                let says = "the coordinator is of an older build, which shows no snapshots";
                Ok(SnapshotAnswer::none(Outcome::Unsupported, says))
            }
            other => Err(unexpected(other)),
        }
    }

    /// Begins to trace messages. The trace ends when what is returned is dropped, or by itself.
    ///
    /// # Errors
    /// [`OperatorError`]: nobody answers.
    pub async fn trace(&self, request: &TraceRequest) -> Result<Trace, OperatorError> {
        let mut recv = self.request(&Request::Trace(request.clone())).await?;
        let answer = read_answer(&mut recv).await?;
        Ok(Trace { answer, recv, is_over: false })
    }

    /// Leaves.
    pub async fn close(self) {
        self.endpoint.close("done").await;
    }

    /// Asks for the board; a coordinator of an earlier build is asked in the words it knows, the last of them
    /// those that every build does.
    async fn look(&self, asked: &[Request; 3]) -> Result<(RecvStream, Form), OperatorError> {
        let [newer @ .., plain] = asked;
        for request in newer {
            let mut recv = self.request(request).await?;
            match expect_board(&mut recv).await {
                Ok(()) => return Ok((recv, request.form())),
                Err(OperatorError::Refused(says)) if says.starts_with(UNKNOWN) => {}
                Err(error) => return Err(error),
            }
        }
        let mut recv = self.request(plain).await?;
        expect_board(&mut recv).await?;
        Ok((recv, plain.form()))
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
pub struct Subscription {
    recv: RecvStream,
    form: Form,
    picture: Picture,
    /// Whether what is there was not handed out yet.
    is_fresh: bool,
}

impl Subscription {
    /// The next one.
    ///
    /// # Errors
    /// The coordinator has left, or hangs.
    pub async fn next(&mut self) -> Result<Snapshot, OperatorError> {
        if !std::mem::take(&mut self.is_fresh) {
            read_piece(&mut self.recv, &mut self.picture, self.form).await?;
        }
        Ok(self.picture.snapshot())
    }

    /// Pieces that were due while this was not read: the coordinator did not send them.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.picture.skipped
    }
}

/// A trace that was asked for.
#[derive(Debug)]
pub struct Trace {
    answer: OrderAnswer,
    recv: RecvStream,
    is_over: bool,
}

impl Trace {
    /// Whether it goes on, and within which bounds.
    #[must_use]
    pub fn answer(&self) -> &OrderAnswer {
        &self.answer
    }

    /// What comes next; nothing after the end, or where there is no trace.
    ///
    /// # Errors
    /// The coordinator has left.
    pub async fn next(&mut self) -> Result<Option<Traced>, OperatorError> {
        if self.is_over || !self.answer.outcome.is_done() {
            return Ok(None);
        }
        let unreachable = |error| OperatorError::Unreachable(format!("{error}"));
        // It may be quiet for long: the connection itself says whether anybody is there.
        let frame = read_frame(&mut self.recv, REPLY_BYTES_MAX).await.map_err(unreachable)?;
        let traced: Traced = super::read_traced(&frame).map_err(OperatorError::Refused)?;
        self.is_over = matches!(traced, Traced::End(_));
        Ok(Some(traced))
    }
}

async fn read_answer(recv: &mut RecvStream) -> Result<OrderAnswer, OperatorError> {
    match reply_within(ANSWER_TIMEOUT, recv).await? {
        Reply::Answer(answer) => Ok(answer),
        other => Err(unexpected(other)),
    }
}

async fn expect_board(recv: &mut RecvStream) -> Result<(), OperatorError> {
    match read_reply(recv).await? {
        Reply::Board => Ok(()),
        other => Err(unexpected(other)),
    }
}

async fn read_whole(
    recv: &mut RecvStream,
    picture: &mut Picture,
    form: Form,
) -> Result<(), OperatorError> {
    while !read_piece(recv, picture, form).await? {}
    Ok(())
}

/// Adds a piece; whether it was the last for now.
async fn read_piece(
    recv: &mut RecvStream,
    picture: &mut Picture,
    form: Form,
) -> Result<bool, OperatorError> {
    let refused = |error: DecodeError| OperatorError::Refused(error.to_string());
    let piece = TimedPiece::decoded(form, &read(recv).await?).map_err(refused)?;
    let is_last = piece.is_last();
    picture.add(piece, clock::unix_ms()).map_err(refused)?;
    Ok(is_last)
}

async fn read_reply(recv: &mut RecvStream) -> Result<Reply, OperatorError> {
    reply_within(REPLY_TIMEOUT, recv).await
}

async fn reply_within(time: Duration, recv: &mut RecvStream) -> Result<Reply, OperatorError> {
    let frame = frame_within(time, recv).await?;
    serde_json::from_slice(&frame).map_err(|error| OperatorError::Refused(error.to_string()))
}

async fn read(recv: &mut RecvStream) -> Result<Vec<u8>, OperatorError> {
    frame_within(REPLY_TIMEOUT, recv).await
}

async fn frame_within(time: Duration, recv: &mut RecvStream) -> Result<Vec<u8>, OperatorError> {
    tokio::time::timeout(time, read_frame(recv, REPLY_BYTES_MAX))
        .await
        .map_err(|_| OperatorError::Unreachable("it did not answer in time".into()))?
        .map_err(|error| OperatorError::Unreachable(error.to_string()))
}

fn unexpected(reply: Reply) -> OperatorError {
    OperatorError::Refused(match reply {
        Reply::Refused(reason) => reason,
        other => format!("it answered {other:?}"),
    })
}
