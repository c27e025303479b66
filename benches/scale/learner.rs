//! A learner that makes each step at once.

use crrl_actors::coordinator::Msg;
use crrl_control::wire::{BatchRequest, NodeRole, Wire};
use crrl_types::{AdapterVersion, NodeName, Step};
use ractor::ActorRef;

use crate::harness::say;
use crate::made_work::serving;

/// Its name.
pub(crate) const NAME: &str = "learner";

/// Asks for the first batch.
pub(crate) fn begin(actor: &ActorRef<Msg>) -> anyhow::Result<()> {
    let request = BatchRequest { step: Step(1), version: AdapterVersion(0) };
    say(actor, &NAME.into(), NodeRole::Learner, Wire::BatchWanted(request))
}

/// Takes a message; what it is not interested in is let go.
pub(crate) fn take(actor: &ActorRef<Msg>, wire: &Wire) -> anyhow::Result<()> {
    let Wire::Batch { step, trajectories } = wire else { return Ok(()) };
    let name = NodeName::from(NAME);
    let (version, digest) = (AdapterVersion(step.0), serving(step.0).digest);
    let published = Wire::Published { version, digest };
    say(actor, &"coordinator".into(), NodeRole::ParameterServer, published)?;
    let consumed = trajectories.iter().map(|trajectory| trajectory.episode).collect();
    let metrics = vec![("loss".to_owned(), 0.5)];
    let committed = Wire::Committed { step: *step, version, consumed, metrics };
    say(actor, &name, NodeRole::Learner, committed)?;
    let request = BatchRequest { step: step.next(), version };
    say(actor, &name, NodeRole::Learner, Wire::BatchWanted(request))
}
