//! Rollout workers as lean as can be: real certificates, a control and a bulk connection each, the
//! session's handshake, and of an episode only its duration and what it leaves behind.
//!
//! Many of them share a process. A node's own mesh could not: `ractor`'s registry is one for a
//! process, and each would advertise all the others' actors.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crrl_control::wire::{Assignment, Held, NodeReport, Wire};
use crrl_transport::{
    Credentials, Endpoint, NetThread, Options, Purpose, codec, decode, encode, random_bytes,
    read_frame, write_frame,
};
use crrl_types::{EpisodeId, NodeName};
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Semaphore, mpsc};

use crate::made_work::{report, serving, task_of, trajectory, worker};
use crate::protobuf::{self, Message, Value, fields};

/// The word ractor asks both sides for.
const COOKIE: &[u8] = b"verified by certificate";
/// Pid of the one actor a worker says it has.
const INBOX: u64 = 1;
/// Longest greeting.
const GREETING_BYTES_MAX: usize = 4096;
/// Longest frame of a session.
const FRAME_BYTES_MAX: u64 = 4 << 20;
/// First wait before dialling again; doubles.
const REDIAL_MIN: Duration = Duration::from_millis(100);
/// Longest such wait.
const REDIAL_MAX: Duration = Duration::from_secs(2);
/// Time between two signs of life, and two reports.
const BEAT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Folder of certificates.
    #[arg(long)]
    pub(crate) tls: PathBuf,
    /// Where the coordinator listens.
    #[arg(long)]
    pub(crate) address: SocketAddr,
    /// Number of the first worker.
    #[arg(long)]
    pub(crate) first: usize,
    /// How many.
    #[arg(long)]
    pub(crate) count: usize,
    #[command(flatten)]
    pub(crate) manner: Manner,
}

/// How a worker works.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Manner {
    /// Episodes each works on at once.
    #[arg(long, default_value_t = 4)]
    pub(crate) capacity: u32,
    /// How long an episode takes.
    #[arg(long, default_value_t = 2000)]
    pub(crate) think_ms: u64,
    /// Tokens of a transcript.
    #[arg(long, default_value_t = 1000)]
    pub(crate) tokens: usize,
    /// Actors each reports once a second; 0 reports nothing.
    #[arg(long, default_value_t = 5)]
    pub(crate) actors: usize,
    /// Workers of one process that dial at once.
    #[arg(long, default_value_t = 16)]
    pub(crate) dial_at_once: usize,
}

impl Manner {
    /// The same, for another process's command line.
    pub(crate) fn arguments(&self) -> Vec<String> {
        [
            ("--capacity", self.capacity.to_string()),
            ("--think-ms", self.think_ms.to_string()),
            ("--tokens", self.tokens.to_string()),
            ("--actors", self.actors.to_string()),
            ("--dial-at-once", self.dial_at_once.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }
}

// As in the mesh's own greeting.
#[derive(Serialize)]
struct Hello {
    protocol: u8,
    name: NodeName,
    incarnation: u64,
    token: [u8; 16],
}

#[derive(Deserialize)]
enum Answer {
    Welcome { incarnation: u64, token: [u8; 16] },
    Refused(String),
}

#[derive(Serialize, Deserialize)]
struct Packet<M> {
    token: [u8; 16],
    handled: u64,
    message: Option<M>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(all(args))
}

async fn all(args: &Args) -> anyhow::Result<()> {
    let net = NetThread::start("workers")?;
    let gate = Arc::new(Semaphore::new(args.manner.dial_at_once));
    let (joined, mut joins) = mpsc::unbounded_channel();
    let args = Arc::new(args.clone());
    for at in args.first..args.first + args.count {
        let (args, net, gate, joined) = (args.clone(), net.clone(), gate.clone(), joined.clone());
        tokio::spawn(async move {
            let name = worker(at);
            // As nodes do, it dials again. Whoever measures hears of trouble by what is missing.
            let mut wait = REDIAL_MIN;
            while let Err(error) = live(&args, &name, &net, &gate, &joined).await {
                eprintln!("{name}: {error:#}");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(REDIAL_MAX);
            }
        });
    }
    for _ in 0..args.count {
        joins.recv().await.context("a worker has ended")?;
    }
    println!("connected");
    std::io::stdout().flush()?;
    std::future::pending().await
}

async fn live(
    args: &Args,
    name: &NodeName,
    net: &NetThread,
    gate: &Semaphore,
    joined: &mpsc::UnboundedSender<()>,
) -> anyhow::Result<()> {
    let slot = gate.acquire().await?;
    let credentials = Credentials::load(&args.tls, name)?;
    let endpoint = Endpoint::bind(net, &credentials, None, Options::default())?;
    let coordinator = NodeName::from("coordinator");
    let control = endpoint.dial(&coordinator, args.address, Purpose::Control).await?;
    let (mut send, mut recv) = control.quic.open_bi().await?;
    let ours = random_bytes().map_err(|error| anyhow::anyhow!("{error}"))?;
    let hello = Hello { protocol: codec::VERSION, name: name.clone(), incarnation: 1, token: ours };
    write_frame(&mut send, &encode(&hello)?).await?;
    let (incarnation, token) = welcomed(&mut recv).await?;
    let bulk = endpoint.dial(&coordinator, args.address, Purpose::Bulk).await?;
    let (mut bulk_send, mut bulk_recv) = bulk.quic.open_bi().await?;
    write_frame(&mut bulk_send, &encode(&token)?).await?;
    welcomed(&mut bulk_recv).await?;
    let inbox = greet(name, incarnation, (&mut send, &mut recv)).await?;
    drop(slot);
    joined.send(())?;
    let (sender, received) = mpsc::channel(64);
    let reading = tokio::spawn(read(recv, sender));
    let (handled, beat) = (0, 0);
    let (due, held) = (VecDeque::new(), BTreeMap::new());
    let manner = args.manner.clone();
    let worker = Worker { name, manner, send, token, inbox, handled, due, held, beat };
    let ended = worker.work(received).await;
    reading.abort();
    // Until then the bulk connection has to live.
    bulk.close("done");
    ended
}

async fn welcomed(recv: &mut RecvStream) -> anyhow::Result<(u64, [u8; 16])> {
    match decode(&read_frame(recv, GREETING_BYTES_MAX).await?)? {
        Answer::Welcome { incarnation, token } => Ok((incarnation, token)),
        Answer::Refused(reason) => bail!("refused: {reason}"),
    }
}

/// The session's handshake; the pid of the coordinator's inbox.
async fn greet(
    name: &NodeName,
    incarnation: u64,
    (send, recv): (&mut SendStream, &mut RecvStream),
) -> anyhow::Result<u64> {
    let auth = |field: u32, message: Message| {
        let auth = Message::new().message(field, &message);
        Message::new().message(1, &auth)
    };
    let control = |field: u32, message: Message| {
        let control = Message::new().message(field, &message);
        Message::new().message(3, &control)
    };
    let said = Message::new()
        .bytes(1, format!("{name}@crrl").as_bytes())
        .message(2, &Message::new().number(1, 1))
        .bytes(3, format!("quic:{name}").as_bytes())
        .number(4, 1);
    write(send, auth(1, said)).await?;
    let wanted = format!("inbox/coordinator/{incarnation}");
    let (mut inbox, mut ready) = (0, false);
    while inbox == 0 || !ready {
        let frame = next_frame(recv).await?;
        for (kind, value) in fields(&frame) {
            let Value::Bytes(message) = value else { continue };
            let Some((what, Value::Bytes(body))) = fields(message).next() else { continue };
            match (kind, what) {
                (1, 4) => {
                    let challenge = protobuf::number(body, 3) as u32;
                    let mut secret = challenge.to_be_bytes().to_vec();
                    secret.extend_from_slice(COOKIE);
                    let digest = ring::digest::digest(&ring::digest::SHA256, &secret);
                    let reply = Message::new().number(1, 7).bytes(2, digest.as_ref());
                    write(send, auth(5, reply)).await?;
                }
                (1, 6) => {
                    let actor = Message::new().number(1, INBOX);
                    write(send, control(1, Message::new().message(1, &actor))).await?;
                    let group = Message::new()
                        .bytes(1, format!("inbox/{name}/1").as_bytes())
                        .message(2, &actor)
                        .bytes(3, b"crrl");
                    write(send, control(5, group)).await?;
                    write(send, control(9, Message::new())).await?;
                }
                (3, 5) if protobuf::bytes(body, 1) == Some(wanted.as_bytes()) => {
                    inbox = protobuf::bytes(body, 2).map_or(0, |actor| protobuf::number(actor, 1));
                }
                (3, 9) => ready = true,
                _ => {}
            }
        }
    }
    Ok(inbox)
}

async fn write(send: &mut SendStream, message: Message) -> anyhow::Result<()> {
    let body = message.into_bytes();
    let mut frame = (body.len() as u64).to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    Ok(send.write_all(&frame).await?)
}

async fn next_frame(recv: &mut RecvStream) -> anyhow::Result<Vec<u8>> {
    let len = recv.read_u64().await?;
    anyhow::ensure!(len <= FRAME_BYTES_MAX, "a frame of {len} bytes");
    let mut frame = vec![0; len as usize];
    recv.read_exact(&mut frame).await?;
    Ok(frame)
}

/// What comes over a session.
enum Heard {
    /// To be echoed.
    Ping(Vec<u8>),
    /// A message, and the bytes it took.
    Wire(Option<Box<Wire>>, u64),
}

async fn read(mut recv: RecvStream, out: mpsc::Sender<Heard>) -> anyhow::Result<()> {
    loop {
        let frame = next_frame(&mut recv).await?;
        for (kind, value) in fields(&frame) {
            let Value::Bytes(message) = value else { continue };
            let Some((what, Value::Bytes(body))) = fields(message).next() else { continue };
            match (kind, what) {
                (3, 3) => out.send(Heard::Ping(body.to_vec())).await?,
                (2, 1) => {
                    // One argument, with its length in front.
                    let argument = protobuf::bytes(body, 2).unwrap_or_default();
                    let packet = argument.get(8..).context("a cast without its argument")?;
                    let wire = decode::<Packet<Wire>>(packet)?.message.map(Box::new);
                    out.send(Heard::Wire(wire, packet.len() as u64)).await?;
                }
                _ => {}
            }
        }
    }
}

struct Worker<'a> {
    name: &'a NodeName,
    manner: Manner,
    send: SendStream,
    token: [u8; 16],
    inbox: u64,
    handled: u64,
    /// When each episode ends.
    due: VecDeque<(Instant, Assignment)>,
    /// What is not acknowledged.
    held: BTreeMap<EpisodeId, u32>,
    beat: u64,
}

impl Worker<'_> {
    async fn work(mut self, mut heard: mpsc::Receiver<Heard>) -> anyhow::Result<()> {
        self.join().await?;
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = self.due.front().map(|(at, _)| tokio::time::Instant::from_std(*at));
            let far = tokio::time::Instant::now() + BEAT;
            tokio::select! {
                heard = heard.recv() => match heard.context("the session has ended")? {
                    Heard::Ping(body) => {
                        let pong = Message::new().bytes(4, &body);
                        write(&mut self.send, Message::new().message(3, &pong)).await?;
                    }
                    Heard::Wire(wire, bytes) => {
                        self.handled += bytes;
                        if let Some(wire) = wire {
                            self.take(*wire).await?;
                        }
                    }
                },
                () = tokio::time::sleep_until(next.unwrap_or(far)), if next.is_some() => {
                    self.finish().await?;
                }
                _ = beat.tick() => {
                    self.beat += 1;
                    let report = (self.manner.actors > 0).then(|| Wire::Report(self.report()));
                    self.say(report).await?;
                }
            }
        }
    }

    async fn take(&mut self, wire: Wire) -> anyhow::Result<()> {
        match wire {
            Wire::Assign(assignment) => {
                self.held.insert(assignment.episode, assignment.attempt);
                // Half as long to half as long again, by its number: work does not end all at once.
                let share = 0.5 + (assignment.episode.0 * 37 % 101) as f64 / 100.0;
                let ms = self.manner.think_ms as f64 * share;
                let at = Instant::now() + Duration::from_secs_f64(ms / 1e3);
                let place = self.due.partition_point(|(due, _)| *due <= at);
                self.due.insert(place, (at, *assignment));
            }
            Wire::Cancel { episode, attempt, .. } => {
                self.due.retain(|(_, due)| due.episode != episode || due.attempt != attempt);
                self.held.remove(&episode);
            }
            Wire::Ack { episode, .. } => {
                self.held.remove(&episode);
            }
            Wire::JoinWanted => self.join().await?,
            _ => {}
        }
        Ok(())
    }

    async fn join(&mut self) -> anyhow::Result<()> {
        let held = self.held.iter();
        let holding = held.map(|(episode, attempt)| Held { episode: *episode, attempt: *attempt });
        let join = Wire::Join {
            incarnation: 1,
            capacity: self.manner.capacity,
            holding: holding.collect(),
            serving: Some(serving(0)),
        };
        self.say(Some(join)).await
    }

    async fn finish(&mut self) -> anyhow::Result<()> {
        let Some((_, assignment)) = self.due.pop_front() else { return Ok(()) };
        let ids = (assignment.episode, assignment.group);
        let mut trajectory = Box::new(trajectory(ids, self.name, self.manner.tokens));
        trajectory.task = task_of(&assignment.task_json);
        self.say(Some(Wire::Finished { attempt: assignment.attempt, trajectory })).await
    }

    fn report(&self) -> NodeReport {
        report(self.name, self.beat, self.manner.actors, self.due.len())
    }

    async fn say(&mut self, message: Option<Wire>) -> anyhow::Result<()> {
        let packet = encode(&Packet { token: self.token, handled: self.handled, message })?;
        let mut argument = (packet.len() as u64).to_be_bytes().to_vec();
        argument.extend_from_slice(&packet);
        let cast = Message::new().number(1, self.inbox).bytes(2, &argument).bytes(3, b"Frame");
        let node = Message::new().message(1, &cast);
        write(&mut self.send, Message::new().message(2, &node)).await
    }
}
