use std::collections::{BTreeMap, BTreeSet};

use crrl_weights::Blame;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn offer(version: u64, kept: bool) -> Input {
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
    Input::Offered { from: "learner".into(), manifest: Box::new(manifest), found, kept }
}

fn serving(version: u64) -> Serving {
    let version = AdapterVersion(version);
    Serving { version, digest: Digest::of(&version.0.to_le_bytes()) }
}

fn published(server: &mut ParameterServer, version: u64, now: Duration) -> Vec<Effect> {
    let mut out = server.handle(offer(version, true), now);
    out.extend(server.handle(Input::Persisted(serving(version)), now));
    out
}

fn up(server: &mut ParameterServer, n: u16, now: Duration) -> NodeName {
    let name = NodeName::from(format!("rollout-{n}").as_str());
    let host = Some(IpAddr::from([127, 0, 0, 1]));
    server.handle(Input::EngineUp { name: name.clone(), host }, now);
    server.handle(Input::RelayAt { from: name.clone(), port: 7000 + n }, now);
    let have = AdapterVersion(0);
    server.handle(Input::Wanted { from: name.clone(), have }, now);
    name
}

fn offers(out: &[Effect]) -> BTreeMap<NodeName, (Option<NodeName>, bool)> {
    let offers = out.iter().filter_map(|effect| match effect {
        Effect::Offer { to, source, published, .. } => {
            Some((to.clone(), (source.as_ref().map(|s| s.name.clone()), *published)))
        }
        _ => None,
    });
    offers.collect()
}

fn arrived(from: &NodeName, version: u64, blamed: Option<&NodeName>, error: bool) -> Input {
    let blame = |node: &NodeName| Blame { node: node.clone(), reason: "it was killed".into() };
    Input::Arrived {
        from: from.clone(),
        serving: serving(version),
        report: Report { legs: Vec::new(), blamed: blamed.map(blame).into_iter().collect() },
        error: error.then(|| "a chunk was damaged".into()),
    }
}

#[test]
fn what_may_not_be_published_is_refused_with_the_newest_version() {
    let mut server = ParameterServer::new(Options::default(), None);
    assert!(matches!(published(&mut server, 3, Duration::ZERO)[0], Effect::Persist(_)));
    let spoil: [fn(&mut AdapterManifest, &mut Found); 5] = [
        |manifest, _| manifest.version = AdapterVersion(2),
        |_, found| found.digest = Digest::of(b"flipped"),
        |_, found| found.bytes = 7,
        |_, found| found.finite = false,
        |manifest, _| manifest.base_digest = Digest::of(b"other"),
    ];
    for (spoil, index) in spoil.into_iter().zip(0..) {
        let Input::Offered { from, mut manifest, mut found, kept } = offer(4, true) else {
            panic!()
        };
        spoil(&mut manifest, &mut found);
        let out = server.handle(Input::Offered { from, manifest, found, kept }, Duration::ZERO);
        let refused = out.iter().any(|effect| {
            matches!(effect, Effect::Send(_, Wire::AdapterRefused { newest, .. })
                if *newest == AdapterVersion(3))
        });
        assert!(refused && out.len() == 2, "{index}: {out:?}");
        assert_eq!(server.serving(), Some(serving(3)));
    }
    let again = server.handle(offer(3, true), Duration::ZERO);
    assert_eq!(again, [Effect::Announce(serving(3))], "a repeated offer is not an error");
}

#[test]
fn a_draft_is_handed_out_and_published_only_once_both_disks_have_it() {
    for persisted_first in [true, false] {
        let mut server = ParameterServer::new(Options::default(), None);
        let engine = up(&mut server, 0, Duration::ZERO);
        let out = server.handle(offer(1, false), Duration::ZERO);
        assert_eq!(offers(&out)[&engine], (None, false), "not on its way, or served too early");
        let halves = [Input::Persisted(serving(1)), Input::Kept(serving(1))];
        let [first, second] = if persisted_first {
            halves
        } else {
            let [persisted, kept] = halves;
            [kept, persisted]
        };
        assert_eq!(server.handle(first, Duration::ZERO), []);
        assert_eq!(server.serving(), None);
        let out = server.handle(second, Duration::ZERO);
        let Serving { version, digest } = serving(1);
        let told = Effect::Send(engine, Wire::Published { version, digest });
        assert!(matches!(out[0], Effect::Publish(_)), "{out:?}");
        assert_eq!(out[1..], [Effect::Announce(serving(1)), told]);
    }
}

#[test]
fn the_word_that_a_checkpoint_landed_may_overtake_its_adapter() {
    let mut server = ParameterServer::new(Options::default(), None);
    server.handle(Input::Kept(serving(1)), Duration::ZERO);
    server.handle(offer(1, false), Duration::ZERO);
    server.handle(Input::Persisted(serving(1)), Duration::ZERO);
    assert_eq!(server.serving(), Some(serving(1)));
}

#[test]
fn a_draft_whose_checkpoint_never_landed_gives_way_to_another_of_its_version() {
    let mut server = ParameterServer::new(Options::default(), None);
    let engine = up(&mut server, 0, Duration::ZERO);
    server.handle(offer(1, false), Duration::ZERO);
    server.handle(Input::Persisted(serving(1)), Duration::ZERO);
    // The learner died and trained the step again, to other weights.
    let Input::Offered { from, mut manifest, mut found, .. } = offer(1, true) else { panic!() };
    manifest.digest = Digest::of(b"other weights");
    found.digest = manifest.digest;
    let other = serving_of(&manifest);
    let again = Input::Offered { from, manifest, found, kept: true };
    let out = server.handle(again, Duration::ZERO);
    assert!(offers(&out).contains_key(&engine), "{out:?}");
    server.handle(Input::Kept(serving(1)), Duration::ZERO);
    assert_eq!(server.serving(), None, "what was replaced was published");
    server.handle(Input::Persisted(other), Duration::ZERO);
    assert_eq!(server.serving(), Some(other));
}

#[test]
fn eight_engines_cost_the_server_two_copies() {
    let mut server = ParameterServer::new(Options::default(), None);
    let names: Vec<_> = (0..8).map(|n| up(&mut server, n, Duration::ZERO)).collect();
    let offers = offers(&server.handle(offer(1, false), Duration::ZERO));
    assert_eq!(offers.len(), names.len());
    let direct = offers.values().filter(|(source, _)| source.is_none()).count();
    assert!((1..=2).contains(&direct), "{offers:?}");
}

#[test]
fn a_node_may_say_where_it_relays_before_it_is_known_to_be_up() {
    let now = Duration::ZERO;
    let mut server = ParameterServer::new(Options::default(), None);
    let names: Vec<NodeName> = (0..4).map(|n| format!("rollout-{n}").as_str().into()).collect();
    for (name, port) in names.iter().zip(7000..) {
        server.handle(Input::RelayAt { from: name.clone(), port }, now);
        let host = Some(IpAddr::from([127, 0, 0, 1]));
        server.handle(Input::EngineUp { name: name.clone(), host }, now);
    }
    let routes = offers(&published(&mut server, 1, now));
    assert_eq!(routes.values().filter(|(from, _)| from.is_some()).count(), 2, "{routes:?}");
}

#[test]
fn a_relay_that_was_blamed_rests_and_whoever_failed_is_served_directly() {
    let mut server = ParameterServer::new(Options::default(), None);
    let (relay, child) = (up(&mut server, 0, Duration::ZERO), up(&mut server, 1, Duration::ZERO));
    published(&mut server, 1, Duration::ZERO);
    for engine in [&relay, &child] {
        let input = Input::Activated { from: engine.clone(), serving: serving(1) };
        server.handle(input, Duration::ZERO);
    }
    // Whoever comes late is sent to one that has it.
    let late = up(&mut server, 2, Duration::ZERO);
    let route = |server: &ParameterServer, name| server.engines[name].route.clone();
    let Some((_, Some(source))) = route(&server, &late) else { panic!("{server:?}") };
    let out = server.handle(arrived(&late, 1, Some(&source), true), Duration::ZERO);
    assert!(matches!(&out[0], Effect::Warn(text) if text.contains(source.as_str())), "{out:?}");
    let soon = Duration::from_secs(1);
    let out = server.handle(Input::Timer, soon);
    assert_eq!(offers(&out)[&late], (None, true), "not served directly");
    let other = up(&mut server, 3, soon);
    assert_ne!(route(&server, &other), Some((serving(1).digest, Some(source))));
}

#[test]
fn an_engine_that_lies_about_its_digest_is_named_and_offered_it_again() {
    let mut server = ParameterServer::new(Options::default(), None);
    let liar = up(&mut server, 0, Duration::ZERO);
    published(&mut server, 1, Duration::ZERO);
    let lie = Serving { digest: Digest::of(b"mine"), ..serving(1) };
    let out = server.handle(Input::Activated { from: liar.clone(), serving: lie }, Duration::ZERO);
    assert!(matches!(&out[0], Effect::Warn(text) if text.contains("rollout-0")), "{out:?}");
    assert_eq!(server.behind(), 1);
    let out = server.handle(Input::Timer, Duration::from_secs(1));
    assert!(offers(&out).contains_key(&liar));
}

/// An engine of the simulation: what it was offered, and may serve.
#[derive(Default)]
struct Simulated {
    offered: Option<(Serving, bool)>,
}

/// Engines that come, go, fail and lag, and drafts that never land; afterwards everybody must have
/// the newest adapter, and nobody ever served what was not published.
#[test]
fn every_engine_ends_up_with_the_newest_adapter() {
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut server = ParameterServer::new(Options::default(), None);
        let names: Vec<NodeName> = (0..4).map(|i| format!("rollout-{i}").into()).collect();
        let mut engines: BTreeMap<NodeName, Simulated> = BTreeMap::new();
        let (mut persisted, mut kept) = (BTreeSet::new(), BTreeSet::new());
        let mut now = Duration::ZERO;
        let mut version = 0;
        for round in 0..900 {
            let healed = round >= 500;
            now += Duration::from_millis(rng.random_range(0..400));
            let name = names[rng.random_range(0..names.len())].clone();
            let input = match rng.random_range(0..12) {
                0 if !healed => {
                    version += rng.random_range(1..3);
                    let on_disk = rng.random_bool(0.3);
                    if on_disk {
                        kept.insert(version);
                    }
                    offer(version, on_disk)
                }
                1 if !healed => {
                    engines.remove(&name);
                    Input::Down(name)
                }
                2 if !engines.contains_key(&name) => {
                    engines.insert(name.clone(), Simulated::default());
                    Input::EngineUp { name, host: Some(IpAddr::from([127, 0, 0, 1])) }
                }
                3 => Input::RelayAt { from: name, port: 7000 },
                4 if version > 0 => {
                    persisted.insert(version);
                    Input::Persisted(serving(version))
                }
                5 if version > 0 => {
                    kept.insert(version);
                    Input::Kept(serving(version))
                }
                6..=10 => {
                    let Some((offered, may)) = engines.get(&name).and_then(|e| e.offered) else {
                        continue;
                    };
                    if !healed && rng.random_bool(0.3) {
                        engines.insert(name.clone(), Simulated::default());
                        arrived(&name, offered.version.0, names.first(), true)
                    } else if may {
                        engines.insert(name.clone(), Simulated::default());
                        Input::Activated { from: name, serving: offered }
                    } else {
                        arrived(&name, offered.version.0, None, false)
                    }
                }
                _ => Input::Timer,
            };
            for effect in server.handle(input, now) {
                match effect {
                    Effect::Offer { to, serving, published, .. } => {
                        let engine = engines.get_mut(&to).expect("offered to one that is up");
                        engine.offered = Some((serving, published));
                    }
                    Effect::Send(to, Wire::Published { version, digest }) => {
                        let published = Serving { version, digest };
                        if let Some(engine) = engines.get_mut(&to)
                            && engine.offered.is_some_and(|(offered, _)| offered == published)
                        {
                            engine.offered = Some((published, true));
                        }
                    }
                    Effect::Announce(serving) => {
                        let version = serving.version.0;
                        let durable = persisted.contains(&version) && kept.contains(&version);
                        assert!(durable, "seed {seed}: version {version} was published too early");
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(server.behind(), 0, "seed {seed}: {server:?}");
    }
}
