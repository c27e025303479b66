//! How adapters come into a rollout node's engine: offered, fetched and verified beside the episodes,
//! swapped in once they are published; asked for again where that takes too long.
//!
//! The one in use goes on serving until another is in its place.

use std::time::{Duration, Instant};

use crrl_control::wire::{NodeRole, Serving, Wire};
use crrl_telemetry::names;
use crrl_types::NodeName;
use crrl_weights::{Offer, Report, Source};
use metrics::{counter, histogram};
use ractor::ActorRef;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::courier::Courier;
use crate::engine::{EngineHandle, Verified};
use crate::rollout::{Msg, Outbox};

/// An adapter that was asked for and has not come by then is asked for again.
const RETRY: Duration = Duration::from_secs(5);

/// What a rollout node knows of adapters.
pub(crate) struct Intake {
    courier: Courier,
    engine: EngineHandle,
    outbox: Outbox,
    serving: Option<Serving>,
    /// When the newest was asked for.
    asked: Option<Instant>,
    incoming: Option<Incoming>,
}

/// An adapter on its way to the engine.
struct Incoming {
    serving: Serving,
    /// Whether it may be served.
    published: bool,
    stage: Stage,
    since: Instant,
}

enum Stage {
    /// Being fetched and verified.
    Fetching(AbortHandle),
    /// Could be swapped in at once.
    Ready(Verified),
}

impl Intake {
    pub(crate) fn new(courier: Courier, engine: EngineHandle, outbox: Outbox) -> Self {
        let serving = Some(serving_now(engine.status().serving));
        Self { courier, engine, outbox, serving, asked: None, incoming: None }
    }

    /// The adapter the engine serves.
    pub(crate) fn serving(&self) -> Option<Serving> {
        self.serving
    }

    /// What is shown of it to whoever asks.
    pub(crate) fn snapshot(&self) -> Value {
        let ms = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let incoming = self.incoming.as_ref().map(|incoming| {
            let stage = match incoming.stage {
                Stage::Fetching(_) => "being fetched and verified",
                Stage::Ready(_) => "ready",
            };
            json!({
                "version": incoming.serving.version,
                "stage": stage,
                "published": incoming.published,
                "since_ms": ms(incoming.since),
            })
        });
        json!({
            "version": self.serving.map(|serving| serving.version),
            "digest": self.serving.map(|serving| serving.digest),
            "incoming": incoming,
            "asked_ms_ago": self.asked.map(ms),
        })
    }

    fn send(&self, role: NodeRole, message: Wire) {
        (self.outbox)(role, message);
    }

    /// An adapter can be fetched. One that is under way is left for it: the parameter server offers
    /// another only where that one is of no use any more.
    pub(crate) fn offered(
        &mut self,
        offer: Box<Offer>,
        source: Option<Source>,
        published: bool,
        from: NodeName,
        myself: &ActorRef<Msg>,
    ) {
        let (version, digest) = (offer.manifest.version, offer.manifest.digest);
        let serving = Serving { version, digest };
        if self.serving == Some(serving) {
            return self.say_serving(serving);
        }
        if self.incoming.as_ref().is_some_and(|incoming| incoming.serving == serving) {
            if published {
                self.published(serving, myself);
            }
            return;
        }
        self.leave();
        let (courier, engine) = (self.courier.clone(), self.engine.clone());
        let myself = myself.clone();
        let work = tokio::spawn(async move {
            let manifest = offer.manifest.clone();
            let (report, bytes) = (courier.fetch)(offer, source, from).await;
            let result = match bytes {
                Ok(bytes) => engine.verify(manifest, bytes).await.map_err(|error| {
                    (courier.forget)(digest);
                    error.to_string()
                }),
                Err(error) => Err(error),
            };
            // An actor that has stopped needs no answer.
            let _ = myself.cast(Msg::Arrived { serving, report, result });
        });
        let stage = Stage::Fetching(work.abort_handle());
        self.incoming = Some(Incoming { serving, published, stage, since: Instant::now() });
    }

    /// Leaves what is under way; chunks that have come stay in the depot.
    pub(crate) fn leave(&mut self) {
        if let Some(Incoming { stage: Stage::Fetching(work), .. }) = self.incoming.take() {
            work.abort();
        }
    }

    pub(crate) fn arrived(
        &mut self,
        serving: Serving,
        report: Report,
        result: Result<Verified, String>,
        myself: &ActorRef<Msg>,
    ) {
        let Some(incoming) = self.incoming.as_mut().filter(|i| i.serving == serving) else {
            return;
        };
        let Serving { version, digest } = serving;
        let (bytes, ms) = (report.bytes(), incoming.since.elapsed().as_millis());
        let mut error = None;
        match result {
            Ok(verified) => {
                incoming.stage = Stage::Ready(verified);
                tracing::info!(%version, bytes, ms, "an adapter is here");
            }
            // The one in use goes on serving.
            Err(reason) => {
                tracing::warn!(%version, reason, "an adapter was refused");
                self.incoming = None;
                self.asked.get_or_insert_with(Instant::now);
                error = Some(reason);
            }
        }
        let arrived = Wire::AdapterArrived { version, digest, report, error };
        self.send(NodeRole::ParameterServer, arrived);
        self.swap_if_due(myself);
    }

    /// What was offered may be served.
    pub(crate) fn published(&mut self, serving: Serving, myself: &ActorRef<Msg>) {
        if let Some(incoming) = self.incoming.as_mut().filter(|i| i.serving == serving) {
            incoming.published = true;
            self.swap_if_due(myself);
        }
    }

    fn swap_if_due(&mut self, myself: &ActorRef<Msg>) {
        let due = |incoming: &mut Incoming| {
            incoming.published && matches!(incoming.stage, Stage::Ready(_))
        };
        let Some(Incoming { serving, stage: Stage::Ready(verified), since, .. }) =
            self.incoming.take_if(due)
        else {
            return;
        };
        let (engine, myself): (EngineHandle, _) = (self.engine.clone(), myself.clone());
        tokio::spawn(async move {
            let now = engine.swap(verified).await.map(serving_now);
            histogram!(names::ACTIVATION_TIME).record(since.elapsed());
            counter!(names::ACTIVATIONS, "ok" => now.is_ok().to_string()).increment(1);
            // An actor that has stopped needs no answer.
            let _ = myself.cast(Msg::Activated(serving, now.map_err(|error| error.to_string())));
        });
    }

    pub(crate) fn activated(&mut self, wanted: Serving, result: Result<Serving, String>) {
        match result {
            Ok(now) => {
                self.serving = Some(now);
                self.asked = None;
                tracing::info!(version = %now.version, "an adapter is served");
                self.say_serving(now);
            }
            // The one in use goes on serving; a fresh copy is asked for at the next look.
            Err(reason) => {
                tracing::warn!(reason, "an adapter was refused");
                self.asked.get_or_insert_with(Instant::now);
                let Serving { version, digest } = wanted;
                let (report, error) = (Report::default(), Some(reason));
                let arrived = Wire::AdapterArrived { version, digest, report, error };
                self.send(NodeRole::ParameterServer, arrived);
            }
        }
    }

    fn say_serving(&self, Serving { version, digest }: Serving) {
        for role in [NodeRole::ParameterServer, NodeRole::Coordinator] {
            self.send(role, Wire::Activated { version, digest });
        }
    }

    pub(crate) fn ask(&mut self) {
        self.asked = Some(Instant::now());
        let have = self.engine.status().serving.version;
        self.send(NodeRole::ParameterServer, Wire::AdapterWanted { have });
        if let Some(port) = self.courier.relay_port {
            self.send(NodeRole::ParameterServer, Wire::RelayAt { port });
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        let asked_long_ago = self.asked.is_some_and(|at| at.elapsed() >= RETRY);
        // One that is here and waits for the word that it may be served: that may have been lost.
        let waits_long = self.incoming.as_ref().is_some_and(|incoming| {
            matches!(incoming.stage, Stage::Ready(_)) && incoming.since.elapsed() >= RETRY
        });
        if (asked_long_ago && self.incoming.is_none()) || waits_long {
            self.incoming.iter_mut().for_each(|incoming| incoming.since = Instant::now());
            self.ask();
        }
    }
}

fn serving_now(now: crrl_engine::Serving) -> Serving {
    Serving { version: now.version, digest: now.digest }
}
