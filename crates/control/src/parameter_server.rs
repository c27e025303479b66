//! The parameter server: takes the learner's adapters, keeps the newest, brings it to every
//! engine that is behind.
//!
//! A pure state machine. Versions strictly increase; digest, length, base and finiteness are
//! checked before anything is published. To each engine one adapter is under way at a time, and
//! always the newest: versions in between are skipped. Delivery counts once the engine says it
//! serves the digest; until then it is repeated, with backoff. Never holds an adapter's bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use crrl_types::{AdapterManifest, AdapterVersion, Digest, NodeName};

use crate::wire::{Serving, Wire};

/// How patient it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// An engine that has the bytes must serve them within this. Default 30 s.
    pub activation_timeout: Duration,
    /// Wait after the first failed delivery; doubles. Default 100 ms.
    pub backoff_min: Duration,
    /// Longest wait. Default 5 s.
    pub backoff_max: Duration,
    /// An engine that came up and has not said within this what it has, is sent the newest
    /// unasked. Default 500 ms.
    pub greeting: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            activation_timeout: Duration::from_secs(30),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            greeting: Duration::from_millis(500),
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
    },
    /// An engine can be reached (again).
    EngineUp(NodeName),
    /// A peer was lost.
    Down(NodeName),
    /// A peer wants to know what is newest: an engine gets the bytes, the learner the version.
    Wanted {
        /// Who.
        from: NodeName,
        /// What it has.
        have: AdapterVersion,
    },
    /// An engine says what it serves.
    Activated {
        /// Who.
        from: NodeName,
        /// What.
        serving: Serving,
    },
    /// A delivery has ended: the engine has the bytes, or why not.
    Delivered {
        /// To whom.
        to: NodeName,
        /// Of which version.
        version: AdapterVersion,
        /// How it ended.
        result: Result<(), String>,
    },
    /// The deadline has passed.
    Timer,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make the offered bytes and manifest durable before going on.
    Persist(Box<AdapterManifest>),
    /// Tell the learner and the coordinator.
    Announce(Serving),
    /// Send a message.
    Send(NodeName, Wire),
    /// Send the newest bytes and report with [`Input::Delivered`].
    Deliver(NodeName, AdapterVersion),
    /// For the log: something a person should know.
    Warn(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// Nothing is under way.
    Idle,
    /// Bytes are under way.
    Sending(AdapterVersion),
    /// The bytes are there; the engine has not said that it serves them.
    Activating { version: AdapterVersion, deadline: Duration },
    /// The last delivery failed.
    Backoff { until: Duration },
}

#[derive(Debug, Clone)]
struct Engine {
    serves: Option<Serving>,
    delivery: Delivery,
    failures: u32,
}

/// Decides what is published and who gets it.
#[derive(Debug, Clone)]
pub struct ParameterServer {
    options: Options,
    newest: Option<AdapterManifest>,
    engines: BTreeMap<NodeName, Engine>,
}

impl ParameterServer {
    /// A server whose newest adapter is this one (from disk), or that has none yet.
    #[must_use]
    pub fn new(options: Options, newest: Option<AdapterManifest>) -> Self {
        Self { options, newest, engines: BTreeMap::new() }
    }

    /// The newest adapter.
    #[must_use]
    pub fn newest(&self) -> Option<&AdapterManifest> {
        self.newest.as_ref()
    }

    /// The newest adapter, as engines report it.
    #[must_use]
    pub fn serving(&self) -> Option<Serving> {
        self.newest.as_ref().map(|m| Serving { version: m.version, digest: m.digest })
    }

    /// Engines that can be reached and do not serve the newest adapter.
    #[must_use]
    pub fn behind(&self) -> usize {
        let newest = self.serving();
        self.engines.values().filter(|engine| newest.is_some() && engine.serves != newest).count()
    }

    /// When [`Input::Timer`] is due if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.engines
            .values()
            .filter_map(|engine| match engine.delivery {
                Delivery::Activating { deadline, .. } => Some(deadline),
                Delivery::Backoff { until } => Some(until),
                Delivery::Idle | Delivery::Sending(_) => None,
            })
            .min()
    }

    /// Takes an input in. `now` never goes back.
    pub fn handle(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        let mut out = Vec::new();
        match input {
            Input::Offered { from, manifest, found } => {
                self.offered(&from, *manifest, found, &mut out);
            }
            Input::EngineUp(name) => {
                let until = now + self.options.greeting;
                let delivery = Delivery::Backoff { until };
                self.engines.insert(name, Engine { delivery, ..Engine::new() });
            }
            Input::Down(name) => {
                self.engines.remove(&name);
            }
            Input::Wanted { from, have } => self.wanted(&from, have, &mut out),
            Input::Activated { from, serving } => self.activated(&from, serving, now, &mut out),
            Input::Delivered { to, version, result } => {
                self.delivered(&to, version, result, now, &mut out);
            }
            Input::Timer => {}
        }
        self.deliver(now, &mut out);
        out
    }

    fn offered(
        &mut self,
        from: &NodeName,
        manifest: AdapterManifest,
        found: Found,
        out: &mut Vec<Effect>,
    ) {
        let serving = Serving { version: manifest.version, digest: manifest.digest };
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
        out.push(Effect::Persist(Box::new(manifest.clone())));
        self.newest = Some(manifest);
        out.push(Effect::Announce(serving));
        for engine in self.engines.values_mut() {
            // A new adapter is a new chance for an engine that refused the last.
            if matches!(engine.delivery, Delivery::Backoff { .. } | Delivery::Activating { .. }) {
                *engine = Engine { serves: engine.serves, ..Engine::new() };
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

    fn wanted(&mut self, from: &NodeName, have: AdapterVersion, out: &mut Vec<Effect>) {
        let Some(newest) = self.serving() else { return };
        let Some(engine) = self.engines.get_mut(from) else {
            let Serving { version, digest } = newest;
            out.push(Effect::Send(from.clone(), Wire::Published { version, digest }));
            return;
        };
        // Version 0 may also mean that it has none at all.
        let has_it = have == newest.version && have != AdapterVersion(0);
        // It asks because it lacks it, whatever it said before.
        engine.serves = has_it.then_some(newest);
        if !matches!(engine.delivery, Delivery::Sending(_)) {
            engine.delivery = Delivery::Idle;
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
            if !matches!(engine.delivery, Delivery::Sending(_)) {
                engine.delivery = Delivery::Idle;
            }
        } else if newest.is_some_and(|newest| newest.version == serving.version) {
            out.push(Effect::Warn(format!(
                "{from} serves version {} with another digest, {}",
                serving.version,
                serving.digest.short()
            )));
            engine.fail(options, now);
        } else if let Delivery::Activating { version, .. } = engine.delivery
            && version == serving.version
        {
            engine.delivery = Delivery::Idle;
        }
    }

    fn delivered(
        &mut self,
        to: &NodeName,
        version: AdapterVersion,
        result: Result<(), String>,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let options = self.options;
        let Some(engine) = self.engines.get_mut(to) else { return };
        if engine.delivery != Delivery::Sending(version) {
            return;
        }
        match result {
            Ok(()) if engine.serves.is_some_and(|serving| serving.version == version) => {
                engine.delivery = Delivery::Idle;
            }
            Ok(()) => {
                let deadline = now + options.activation_timeout;
                engine.delivery = Delivery::Activating { version, deadline };
            }
            Err(reason) => {
                engine.fail(options, now);
                out.push(Effect::Warn(format!("adapter {version} to {to}: {reason}")));
            }
        }
    }

    fn deliver(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let Some(newest) = self.serving() else { return };
        let options = self.options;
        for (name, engine) in &mut self.engines {
            match engine.delivery {
                Delivery::Activating { version, deadline } if deadline <= now => {
                    let reason = format!("{name} did not activate adapter {version} in time");
                    out.push(Effect::Warn(reason));
                    engine.fail(options, now);
                }
                Delivery::Backoff { until } if until <= now => engine.delivery = Delivery::Idle,
                _ => {}
            }
            if engine.delivery == Delivery::Idle && engine.serves != Some(newest) {
                engine.delivery = Delivery::Sending(newest.version);
                out.push(Effect::Deliver(name.clone(), newest.version));
            }
        }
    }
}

impl Engine {
    fn new() -> Self {
        Self { serves: None, delivery: Delivery::Idle, failures: 0 }
    }

    fn fail(&mut self, options: Options, now: Duration) {
        let wait = options.backoff_min.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.delivery = Delivery::Backoff { until: now + wait.min(options.backoff_max) };
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn offer(version: u64) -> Input {
        let bytes = version.to_le_bytes();
        let digest = Digest::of(&bytes);
        let manifest = AdapterManifest {
            version: AdapterVersion(version),
            digest,
            base_digest: Digest::of(b"base"),
            bytes: 8,
            rank: 1,
            alpha_milli: 1000,
            tensors: Vec::new(),
            finite: true,
        };
        let found = Found { digest, bytes: 8, finite: true };
        Input::Offered { from: "learner".into(), manifest: Box::new(manifest), found }
    }

    fn serving(version: u64) -> Serving {
        let version = AdapterVersion(version);
        Serving { version, digest: Digest::of(&version.0.to_le_bytes()) }
    }

    #[test]
    fn what_may_not_be_published_is_refused_with_the_newest_version() {
        let mut server = ParameterServer::new(Options::default(), None);
        assert!(matches!(server.handle(offer(3), Duration::ZERO)[0], Effect::Persist(_)));
        let spoil: [fn(&mut AdapterManifest, &mut Found); 5] = [
            |manifest, _| manifest.version = AdapterVersion(2),
            |_, found| found.digest = Digest::of(b"flipped"),
            |_, found| found.bytes = 7,
            |_, found| found.finite = false,
            |manifest, _| manifest.base_digest = Digest::of(b"other"),
        ];
        for (spoil, index) in spoil.into_iter().zip(0..) {
            let Input::Offered { from, mut manifest, mut found } = offer(4) else { panic!() };
            spoil(&mut manifest, &mut found);
            let out = server.handle(Input::Offered { from, manifest, found }, Duration::ZERO);
            let refused = out.iter().any(|effect| {
                matches!(effect, Effect::Send(_, Wire::AdapterRefused { newest, .. })
                    if *newest == AdapterVersion(3))
            });
            assert!(refused && out.len() == 2, "{index}: {out:?}");
            assert_eq!(server.serving(), Some(serving(3)));
        }
        let again = server.handle(offer(3), Duration::ZERO);
        assert_eq!(again, [Effect::Announce(serving(3))], "a repeated offer is not an error");
    }

    /// Engines that come, go, fail and lag; afterwards everybody must have the newest adapter.
    #[test]
    fn every_engine_ends_up_with_the_newest_adapter() {
        for seed in 0..200 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut server = ParameterServer::new(Options::default(), None);
            let names: Vec<NodeName> = (0..3).map(|i| format!("rollout-{i}").into()).collect();
            let mut under_way: Vec<(NodeName, AdapterVersion)> = Vec::new();
            let mut up = std::collections::BTreeSet::new();
            let mut now = Duration::ZERO;
            let mut version = 0;
            for round in 0..600 {
                let healed = round >= 400;
                now += Duration::from_millis(rng.random_range(0..400));
                let name = names[rng.random_range(0..names.len())].clone();
                let input = match rng.random_range(0..10) {
                    0 if !healed => {
                        version += rng.random_range(1..3);
                        offer(version)
                    }
                    1 if !healed => {
                        up.remove(&name);
                        under_way.retain(|(to, _)| *to != name);
                        Input::Down(name)
                    }
                    2 if up.insert(name.clone()) => Input::EngineUp(name),
                    3..=8 if !under_way.is_empty() => {
                        let (to, version) =
                            under_way.swap_remove(rng.random_range(0..under_way.len()));
                        let ok = healed || rng.random_bool(0.6);
                        let result = if ok { Ok(()) } else { Err("lost".to_owned()) };
                        let mut out = server
                            .handle(Input::Delivered { to: to.clone(), version, result }, now);
                        if ok {
                            let serving = serving(version.0);
                            out.extend(server.handle(Input::Activated { from: to, serving }, now));
                        }
                        note(&mut under_way, out, seed);
                        continue;
                    }
                    _ => Input::Timer,
                };
                let out = server.handle(input, now);
                note(&mut under_way, out, seed);
            }
            assert_eq!(server.behind(), 0, "seed {seed}: {server:?}");
        }
    }

    fn note(under_way: &mut Vec<(NodeName, AdapterVersion)>, out: Vec<Effect>, seed: u64) {
        for effect in out {
            if let Effect::Deliver(to, version) = effect {
                assert!(
                    !under_way.iter().any(|(other, _)| *other == to),
                    "seed {seed}: two deliveries to {to}"
                );
                under_way.push((to, version));
            }
        }
    }
}
