//! The plain data every other crate speaks: serde structs and newtypes, no behaviour beyond
//! construction and small derived facts.
//!
//! One direction runs through the system, and each arrow is one of these types:
//!
//! ```text
//! Task -> rollout -> (sandbox) -> Trajectory + Reward -> learner -> Adapter -> parameter server -> engine
//! ```
//!
//! - [`id`]: newtypes for everything that is counted or named
//! - [`host`]: where a node is reached: an address or a name, and a port
//! - [`task`]: a repair task, a superset of SWE-bench's fields
//! - [`trajectory`]: what an episode leaves behind, in tokens
//! - [`reward`]: named components and their weighted sum
//! - [`adapter`]: the manifest of one version of the policy's LoRA weights
//! - [`chat`]: messages and tool calls, before a chat template turns them into tokens
//! - [`sampling`]: how tokens are drawn
//! - [`pacing`]: what is done about attempts that are old, slow or lost
//! - [`journal`]: what has happened in an episode that is under way
//! - [`order`]: what an operator may ask of nodes and actors, and what is answered
//! - [`deed`]: what people had done to a run, folded from its log of orders
//! - [`trace`]: what is seen of single messages
//! - [`timing`]: when an attempt did what
//! - [`event`]: one line of a run's append-only history
//! - [`step_metric`]: the numbers of an optimizer step, with their units: the one table
//! - [`vitals`]: what a node measures of itself and of its machine
//!
//! This crate never does I/O and never depends on another crate of the workspace.

pub mod actor;
pub mod adapter;
pub mod chat;
pub mod deed;
pub mod event;
pub mod fault;
pub mod host;
pub mod id;
pub mod journal;
pub mod order;
pub mod pacing;
pub mod reward;
pub mod sampling;
pub mod step_metric;
pub mod task;
pub mod timing;
pub mod trace;
pub mod trajectory;
pub mod vitals;

pub use adapter::{AdapterManifest, TensorEntry};
pub use chat::{Message, Role, ToolCall};
pub use deed::Deed;
pub use event::{Event, EventKind};
pub use host::{Host, HostName, HostPort, ParseHostError};
pub use id::{AdapterVersion, Digest, EpisodeId, GroupId, NodeName, Step, TaskId};
pub use journal::{JournalEntry, Sampled, Stop};
pub use order::{Action, Order, OrderAnswer, OrderRecord, Outcome, Target};
pub use pacing::{Late, OnLoss, Staleness, Stragglers};
pub use reward::{Component, Reward};
pub use sampling::Sampling;
pub use task::{Base, BugKind, Difficulty, Origin, Split, Task};
pub use timing::{TimedWork, Timing, Work};
pub use trace::{TraceEnd, TraceEvent, TraceRequest, TraceStop, Traced};
pub use trajectory::{Finish, TokenSpan, ToolRecord, Trajectory, Turn};
pub use vitals::{Gpu, RoundTrip, Vitals};
