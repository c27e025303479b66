//! Nodes, joined and watched. Knows no tensor, so that everything here builds and tests in seconds.
//!
//! - [`run_dir`]: where everything of a run lies on disk
//! - [`mesh`]: the handle a node reaches its peers by
//! - [`router`]: which local actor gets which message, and who may send it
//! - [`peer`]: one peer: its connections, what is owed to it, how it is watched
//! - [`join`]: dialling, accepting and greeting peers
//! - `crowd`: who is on the way in and has shown no certificate yet
//! - [`token`]: one line of text that lets one node in once
//! - [`admission`]: the door for nodes without a certificate
//! - [`remote`]: nodes on other machines, over ssh
//! - [`renewal`]: certificates renewed while the cluster runs
//! - [`session`]: one `ractor_cluster` session for each peer, over QUIC
//! - [`inbox`]: the one actor of a node that peers can reach
//! - [`bulk`]: blobs to and from peers
//! - [`board`]: what a run looks like right now
//! - `clock_offset`: how far a node's clock is from the coordinator's
//! - `picture`: the board as one viewer has it
//! - `happened`: what became of actors, read off reports
//! - [`operator`]: status, orders, traces and shutdown, for people's tools
//! - [`order_log`]: what people have asked for, and what came of it
//! - [`probe`]: what actors are doing
//! - [`rows`]: what is watched beside them
//! - [`worker`]: what a thread of its own is doing
//! - [`slot`]: the last snapshot an actor has published of its state
//! - `behind`: how long messages have waited that are too many to be timed one by one
//! - `gate`: what keeps an actor from its next message
//! - [`tap`]: traces of messages
//! - [`restart`]: whether and when something that ended is started again
//! - [`supervisor`]: a supervisor of actors
//! - [`invitation`]: what a node on another machine needs to join
//! - [`changes`]: what has to be done to bring a run's processes to a configuration
//! - [`weights`]: adapters from node to node
//! - [`host`]: the process that starts, watches and stops nodes
//!
//! Messages are [`crrl_control::wire::Wire`] and nothing else. Who a message comes from is what the
//! peer's certificate says, never what the message says.

pub mod admission;
mod aside;
mod behind;
pub mod board;
pub mod bulk;
pub mod changes;
mod clock_offset;
mod crowd;
mod gate;
mod happened;
pub mod host;
pub mod inbox;
pub mod invitation;
pub mod join;
pub mod mesh;
pub mod operator;
pub mod order_log;
pub mod peer;
mod picture;
pub mod probe;
pub mod remote;
pub mod renewal;
pub mod restart;
pub mod router;
pub mod rows;
pub mod run_dir;
pub mod session;
pub mod slot;
pub mod supervisor;
pub mod tap;
pub mod token;
#[doc(hidden)]
pub mod untrusted;
pub mod weights;
pub mod worker;

pub use aside::aside;
pub use board::{NodeSeen, Progress, Snapshot, StatusBoard};
pub use mesh::{CastError, Mesh, MeshError, MeshEvent, MeshOptions, PeerInfo};
pub use operator::{OperatorClient, OperatorError};
pub use probe::{Hang, Letter, Probe, Probes, Watched};
pub use restart::{Backoff, Intensity, Restarts, Strategy, Verdict};
pub use router::{Inbound, Receipt, Router};
pub use rows::Row;
pub use run_dir::RunDir;
pub use slot::Shown;
pub use supervisor::{ChildOrder, ChildSpec, Supervisor, SupervisorArgs, SupervisorMsg};
pub use tap::{Taps, TraceReader};
pub use weights::{AdapterFeed, Depot, FetchError, Given, Weights};
pub use worker::{AtWork, Worker, WorkerThread};
