//! The parameter server: takes the learner's adapters, keeps the newest, brings it to every
//! engine that is behind.
//!
//! A pure state machine. Versions strictly increase; digest, length, base and finiteness are
//! checked before anything is handed out. What was taken is a *draft*: engines fetch and verify it
//! while it is still being written to disk here and while the learner still writes its checkpoint.
//! It is *published*, and only then served by any engine, once both are durable. A draft that never
//! gets there was never used and may be replaced by another of its version.
//!
//! Engines fetch along a tree ([`crrl_weights::tree`]); one that failed fetches from the server
//! itself, and a relay that was blamed is left out for a while. Each engine is offered one adapter
//! at a time, and always the newest: versions in between are skipped. An offer counts once the
//! engine says it serves the digest; until then it is repeated, with backoff. Never holds an
//! adapter's bytes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crrl_types::{AdapterManifest, AdapterVersion, Digest, NodeName};
use crrl_weights::tree::{self, EGRESS_MAX, Member, Shape};
use crrl_weights::{Link, Report, Source};

use crate::wire::{Serving, Wire};

/// Chunks of an adapter are of about this size: what depth costs in the tree.
const CHUNK_BYTES: u32 = 256 * 1024;
/// Nodes that are not up and whose ports are remembered.
const STRANGERS_MAX: usize = 64;

/// How patient it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// An engine that may serve what it was offered must do so within this. Default 60 s.
    pub activation_timeout: Duration,
    /// Wait after the first failed delivery; doubles. Default 100 ms.
    pub backoff_min: Duration,
    /// Longest wait. Default 5 s.
    pub backoff_max: Duration,
    /// An engine that came up and has not said within this what it has, is offered the newest
    /// unasked. Default 500 ms.
    pub greeting: Duration,
    /// A relay that was blamed passes nothing on for this long. Default 30 s.
    pub relay_rest: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            activation_timeout: Duration::from_secs(60),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            greeting: Duration::from_millis(500),
            relay_rest: Duration::from_secs(30),
        }
    }
}

/// What the bytes of an offered adapter are, as opposed to what its manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// BLAKE3 of the bytes.
    pub digest: Digest,
    /// Their number.
    pub bytes: u64,
    /// Whether every value is finite.
    pub finite: bool,
}

/// One input.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The learner offers an adapter.
    Offered {
        /// The learner.
        from: NodeName,
        /// What it says.
        manifest: Box<AdapterManifest>,
        /// What came with it.
        found: Found,
        /// Whether the learner's checkpoint of it is on disk.
        kept: bool,
    },
    /// The learner's checkpoint of a draft is on disk.
    Kept(Serving),
    /// The bytes of a draft are on this server's disk.
    Persisted(Serving),
    /// An engine can be reached (again).
    EngineUp {
        /// Who.
        name: NodeName,
        /// The machine it is on, as far as is known.
        host: Option<IpAddr>,
    },
    /// Others may fetch from an engine's node, at this port of its machine.
    RelayAt {
        /// Who.
        from: NodeName,
        /// Its UDP port.
        port: u16,
    },
    /// A peer was lost.
    Down(NodeName),
    /// A peer wants to know what is newest: an engine gets an offer, the learner the version.
    Wanted {
        /// Who.
        from: NodeName,
        /// What it has.
        have: AdapterVersion,
    },
    /// An engine has fetched and verified what it was offered, or why not.
    Arrived {
        /// Who.
        from: NodeName,
        /// What.
        serving: Serving,
        /// From whom the bytes came, and who was blamed.
        report: Report,
        /// Why it failed.
        error: Option<String>,
    },
    /// An engine says what it serves.
    Activated {
        /// Who.
        from: NodeName,
        /// What.
        serving: Serving,
    },
    /// The deadline has passed.
    Timer,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Bring the offered bytes to the disk, and say [`Input::Persisted`].
    Persist(Box<AdapterManifest>),
    /// Make what was persisted the newest, durably, before going on.
    Publish(Box<AdapterManifest>),
    /// Tell the learner and the coordinator.
    Announce(Serving),
    /// Send a message.
    Send(NodeName, Wire),
    /// Offer an adapter to an engine.
    Offer {
        /// To whom.
        to: NodeName,
        /// What.
        serving: Serving,
        /// Where it is to go first; none: to the server.
        source: Option<Source>,
        /// Whether it may be served at once.
        published: bool,
    },
    /// For the log: something a person should know.
    Warn(String),
}

/// What was taken and not published yet.
#[derive(Debug, Clone)]
struct Draft {
    manifest: AdapterManifest,
    persisted: bool,
    kept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// Nothing is under way.
    Idle,
    /// The engine was told, and has not said that it serves it. No deadline before it may.
    Offered { serving: Serving, deadline: Option<Duration> },
    /// The last delivery failed.
    Backoff { until: Duration },
}

#[derive(Debug, Clone)]
struct Engine {
    serves: Option<Serving>,
    delivery: Delivery,
    failures: u32,
    host: Option<IpAddr>,
    relay: Option<SocketAddr>,
    /// Not before then is it a relay again.
    rests_until: Duration,
    /// What it was last offered, and where it was sent for it.
    route: Option<(Digest, Option<NodeName>)>,
}

/// Decides what is published and who gets it from whom.
#[derive(Debug, Clone)]
pub struct ParameterServer {
    options: Options,
    newest: Option<AdapterManifest>,
    draft: Option<Draft>,
    /// What the learner said last to be on its disk.
    kept_ahead: Option<Serving>,
    engines: BTreeMap<NodeName, Engine>,
    /// Where others may fetch from a node. A node may say so a moment before it is known to be up.
    ports: BTreeMap<NodeName, u16>,
    link: Link,
}

fn serving_of(manifest: &AdapterManifest) -> Serving {
    Serving { version: manifest.version, digest: manifest.digest }
}

impl ParameterServer {
    /// A server whose newest adapter is this one (from disk), or that has none yet.
    #[must_use]
    pub fn new(options: Options, newest: Option<AdapterManifest>) -> Self {
        let (engines, ports, link) = (BTreeMap::new(), BTreeMap::new(), Link::default());
        Self { options, newest, draft: None, kept_ahead: None, engines, ports, link }
    }

    /// The newest adapter that was published.
    #[must_use]
    pub fn newest(&self) -> Option<&AdapterManifest> {
        self.newest.as_ref()
    }

    /// The newest adapter that was published, as engines report it.
    #[must_use]
    pub fn serving(&self) -> Option<Serving> {
        self.newest.as_ref().map(serving_of)
    }

    /// Engines that can be reached and do not serve the newest adapter.
    #[must_use]
    pub fn behind(&self) -> usize {
        let newest = self.serving();
        self.engines.values().filter(|engine| newest.is_some() && engine.serves != newest).count()
    }

    /// Engines that can be reached.
    #[must_use]
    pub fn engines(&self) -> usize {
        self.engines.len()
    }

    /// How fast nodes were seen to send.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }

    /// Copies of an adapter that leave the server at once.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.engines.len().min(EGRESS_MAX)
    }

    /// When [`Input::Timer`] is due if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.engines
            .values()
            .filter_map(|engine| match engine.delivery {
                Delivery::Offered { deadline, .. } => deadline,
                Delivery::Backoff { until } => Some(until),
                Delivery::Idle => None,
            })
            .min()
    }

    /// Takes an input in. `now` never goes back.
    pub fn handle(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        let mut out = Vec::new();
        match input {
            Input::Offered { from, manifest, found, kept } => {
                self.offered(&from, *manifest, found, kept, &mut out);
            }
            Input::Kept(serving) => {
                // It may overtake the adapter it speaks of.
                self.kept_ahead = Some(serving);
                self.advance(serving, |draft| draft.kept = true);
            }
            Input::Persisted(serving) => self.advance(serving, |draft| draft.persisted = true),
            Input::EngineUp { name, host } => {
                let until = now + self.options.greeting;
                let delivery = Delivery::Backoff { until };
                let port = self.ports.get(&name);
                let relay = host.zip(port).map(|(host, port)| SocketAddr::new(host, *port));
                self.engines.insert(name, Engine { delivery, host, relay, ..Engine::new() });
            }
            Input::RelayAt { from, port } => self.relay_at(from, port),
            Input::Down(name) => self.down(&name),
            Input::Wanted { from, have } => self.wanted(&from, have, &mut out),
            Input::Arrived { from, serving, report, error } => {
                self.arrived(&from, serving, &report, error, now, &mut out);
            }
            Input::Activated { from, serving } => self.activated(&from, serving, now, &mut out),
            Input::Timer => {}
        }
        self.publish(now, &mut out);
        self.deliver(now, &mut out);
        out
    }

    fn advance(&mut self, serving: Serving, change: impl FnOnce(&mut Draft)) {
        if let Some(draft) = &mut self.draft
            && serving_of(&draft.manifest) == serving
        {
            change(draft);
        }
    }

    fn offered(
        &mut self,
        from: &NodeName,
        manifest: AdapterManifest,
        found: Found,
        kept: bool,
        out: &mut Vec<Effect>,
    ) {
        let serving = serving_of(&manifest);
        if self.serving() == Some(serving) && found.digest == manifest.digest {
            // The learner did not hear the first time.
            out.push(Effect::Announce(serving));
            return;
        }
        if let Some(reason) = self.refusal(&manifest, found) {
            let version = manifest.version;
            let newest = self.newest.as_ref().map_or(AdapterVersion(0), |newest| newest.version);
            out.push(Effect::Warn(format!("adapter {version} of {from} was refused: {reason}")));
            let refused = Wire::AdapterRefused { version, newest, reason };
            out.push(Effect::Send(from.clone(), refused));
            return;
        }
        if let Some(draft) = &mut self.draft
            && serving_of(&draft.manifest) == serving
        {
            draft.kept |= kept;
            return;
        }
        let kept = kept || self.kept_ahead == Some(serving);
        let before =
            self.draft.replace(Draft { manifest: manifest.clone(), persisted: false, kept });
        out.push(Effect::Persist(Box::new(manifest)));
        let before = before.map(|draft| serving_of(&draft.manifest));
        for engine in self.engines.values_mut() {
            let replaced = matches!(engine.delivery, Delivery::Offered { serving, .. } if Some(serving) == before);
            // A new adapter is a new chance for an engine that refused the last.
            if replaced || matches!(engine.delivery, Delivery::Backoff { .. }) {
                engine.delivery = Delivery::Idle;
                engine.failures = 0;
            }
        }
    }

    fn refusal(&self, manifest: &AdapterManifest, found: Found) -> Option<String> {
        if found.digest != manifest.digest {
            return Some(format!(
                "its bytes have digest {}, its manifest says {}",
                found.digest.short(),
                manifest.digest.short()
            ));
        }
        if found.bytes != manifest.bytes {
            return Some(format!(
                "{} bytes came, its manifest says {}",
                found.bytes, manifest.bytes
            ));
        }
        if !(found.finite && manifest.finite) {
            return Some("not every value of it is finite".to_owned());
        }
        let newest = self.newest.as_ref()?;
        if manifest.version <= newest.version {
            return Some(format!("version {} has been published", newest.version));
        }
        (manifest.base_digest != newest.base_digest).then(|| {
            format!(
                "it is for base model {}, this run is on {}",
                manifest.base_digest.short(),
                newest.base_digest.short()
            )
        })
    }

    /// A draft that is durable on both sides becomes the newest.
    fn publish(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let Some(Draft { manifest, .. }) =
            self.draft.take_if(|draft| draft.persisted && draft.kept)
        else {
            return;
        };
        let newest = serving_of(&manifest);
        out.push(Effect::Publish(Box::new(manifest.clone())));
        out.push(Effect::Announce(newest));
        self.newest = Some(manifest);
        let until = now + self.options.activation_timeout;
        for (name, engine) in &mut self.engines {
            if let Delivery::Offered { serving, deadline } = &mut engine.delivery
                && *serving == newest
            {
                *deadline = Some(until);
                let Serving { version, digest } = newest;
                out.push(Effect::Send(name.clone(), Wire::Published { version, digest }));
            }
        }
    }

    fn relay_at(&mut self, from: NodeName, port: u16) {
        if let Some(engine) = self.engines.get_mut(&from) {
            engine.relay = engine.host.map(|host| SocketAddr::new(host, port));
        }
        let engines = &self.engines;
        if self.ports.len() >= engines.len() + STRANGERS_MAX {
            self.ports.retain(|name, _| engines.contains_key(name));
        }
        self.ports.insert(from, port);
    }

    fn down(&mut self, name: &NodeName) {
        self.engines.remove(name);
        for engine in self.engines.values_mut() {
            // Whoever was sent to it finds its own way to the server.
            if let Some((_, from)) = &mut engine.route
                && from.as_ref() == Some(name)
            {
                *from = None;
            }
        }
    }

    fn wanted(&mut self, from: &NodeName, have: AdapterVersion, out: &mut Vec<Effect>) {
        let newest = self.serving();
        let Some(engine) = self.engines.get_mut(from) else {
            if let Some(Serving { version, digest }) = newest {
                out.push(Effect::Send(from.clone(), Wire::Published { version, digest }));
            }
            return;
        };
        // Version 0 may also mean that it has none at all.
        let has_it = have != AdapterVersion(0) && newest.is_some_and(|n| n.version == have);
        // It asks because it lacks it, whatever it said before.
        engine.serves = newest.filter(|_| has_it);
        engine.delivery = Delivery::Idle;
    }

    fn arrived(
        &mut self,
        from: &NodeName,
        serving: Serving,
        report: &Report,
        error: Option<String>,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let engines = &self.engines;
        self.link.learn(report, |node| {
            let node = engines.contains_key(node).then(|| node.clone());
            let route = Some((serving.digest, node));
            engines.values().filter(|engine| engine.route == route).count()
        });
        let rests_until = now + self.options.relay_rest;
        for blame in &report.blamed {
            let text = format!("{from} left {}: {}", blame.node, blame.reason);
            out.push(Effect::Warn(text));
            if let Some(relay) = self.engines.get_mut(&blame.node) {
                relay.rests_until = rests_until;
            }
        }
        let options = self.options;
        if let (Some(engine), Some(error)) = (self.engines.get_mut(from), error)
            && matches!(engine.delivery, Delivery::Offered { serving: offered, .. } if offered == serving)
        {
            engine.fail(options, now);
            out.push(Effect::Warn(format!("adapter {} to {from}: {error}", serving.version)));
        }
    }

    fn activated(
        &mut self,
        from: &NodeName,
        serving: Serving,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let newest = self.serving();
        let options = self.options;
        let Some(engine) = self.engines.get_mut(from) else { return };
        engine.serves = Some(serving);
        if Some(serving) == newest {
            engine.failures = 0;
        }
        if newest.is_some_and(|newest| newest.version == serving.version && newest != serving) {
            out.push(Effect::Warn(format!(
                "{from} serves version {} with another digest, {}",
                serving.version,
                serving.digest.short()
            )));
            engine.fail(options, now);
        } else if Some(serving) == newest
            || matches!(engine.delivery, Delivery::Offered { serving: offered, .. } if offered == serving)
        {
            engine.delivery = Delivery::Idle;
        }
    }

    fn deliver(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let options = self.options;
        for (name, engine) in &mut self.engines {
            match engine.delivery {
                Delivery::Offered { serving, deadline: Some(deadline) } if deadline <= now => {
                    let version = serving.version;
                    let reason = format!("{name} did not activate adapter {version} in time");
                    out.push(Effect::Warn(reason));
                    engine.fail(options, now);
                }
                Delivery::Backoff { until } if until <= now => engine.delivery = Delivery::Idle,
                _ => {}
            }
        }
        let (manifest, published) = match (&self.draft, &self.newest) {
            (Some(draft), _) => (&draft.manifest, false),
            (None, Some(newest)) => (newest, true),
            (None, None) => return,
        };
        let (target, bytes) = (serving_of(manifest), manifest.bytes);
        // Most inputs change nothing for anybody: the tree is not planned for them.
        if !self.engines.values().any(|engine| engine.wants(target)) {
            return;
        }
        let members: Vec<Member> =
            self.engines.iter().map(|(name, engine)| engine.member(name, target, now)).collect();
        let at_once = members.iter().filter(|m| m.state != tree::State::Has).count();
        let shape = Shape::best(at_once, bytes, CHUNK_BYTES, self.link);
        for (to, source) in tree::plan(&members, shape) {
            let Some(engine) = self.engines.get_mut(&to) else { continue };
            // One that failed is served directly.
            let source = source.filter(|_| engine.failures == 0);
            engine.route = Some((target.digest, source.as_ref().map(|s| s.name.clone())));
            let deadline = published.then(|| now + options.activation_timeout);
            engine.delivery = Delivery::Offered { serving: target, deadline };
            out.push(Effect::Offer { to, serving: target, source, published });
        }
    }
}

impl Engine {
    fn new() -> Self {
        Self {
            serves: None,
            delivery: Delivery::Idle,
            failures: 0,
            host: None,
            relay: None,
            rests_until: Duration::ZERO,
            route: None,
        }
    }

    /// Whether it is to be told of that adapter now.
    fn wants(&self, target: Serving) -> bool {
        self.serves != Some(target) && matches!(self.delivery, Delivery::Idle)
    }

    fn member(&self, name: &NodeName, target: Serving, now: Duration) -> Member {
        let state = match self.delivery {
            _ if self.serves == Some(target) => tree::State::Has,
            Delivery::Offered { serving, .. } if serving == target => {
                tree::State::Fetching(self.route.as_ref().and_then(|(_, from)| from.clone()))
            }
            Delivery::Idle => tree::State::Wants,
            Delivery::Offered { .. } | Delivery::Backoff { .. } => tree::State::Aside,
        };
        let relay = self.relay.filter(|_| self.rests_until <= now);
        Member { name: name.clone(), host: self.host, relay, state }
    }

    fn fail(&mut self, options: Options, now: Duration) {
        let wait = options.backoff_min.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.delivery = Delivery::Backoff { until: now + wait.min(options.backoff_max) };
    }
}

#[cfg(test)]
#[path = "parameter_server_tests.rs"]
mod tests;
