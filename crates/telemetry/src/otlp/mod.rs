//! A run as OpenTelemetry traces: a trace for each episode, one for each optimizer step.
//!
//! ```text
//! episode                      coordinator
//!   lease                      coordinator, one for each time it was handed out
//!     dispatch                 coordinator, until the node has begun
//!     invoke_agent             rollout node
//!       places, replay
//!       turn
//!         chat, execute_tool, diff
//!       reward
//!   wait for step              coordinator, with a link to the step
//! step                         coordinator, with a link to every episode it consumed
//!   optimize                   learner
//!   publish                    parameter server
//!   activate                   rollout node, one for each
//! ```
//!
//! - [`story`]: what the run's history tells of an episode or a step
//! - [`ids`]: trace and span ids, the same whenever they are made
//! - [`span`]: a span, as plain data
//! - [`episode`], [`step`]: spans of a story
//! - [`json`]: spans as OTLP/JSON
//! - [`post`]: to a collector, over HTTP
//!
//! Times are the coordinator's; a node's own are moved into the lease they belong to.

pub mod episode;
pub mod ids;
pub mod json;
pub mod post;
pub mod span;
pub mod step;
pub mod story;

pub use ids::RunId;
pub use json::request;
pub use post::{Collector, PostError};
pub use span::Span;
pub use story::{EpisodeStory, History, StepStory, Told};

use crrl_types::NodeName;

/// What every span of a run says of it.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// Where its ids come from.
    pub id: RunId,
    /// What people call it: its folder's name.
    pub name: String,
    /// The base model's name.
    pub model: String,
    /// Who trains.
    pub learner: NodeName,
    /// Who hands adapters out.
    pub parameter_server: NodeName,
}
