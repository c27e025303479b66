//! Adapters: verified, swapped between two tokens, and never mixed up with another's prefix.

mod world;

use crrl_engine::{Engine, OnSwap, Options, Output, Sampled, StageError};
use crrl_model::{AdapterWeights, FileDtype};
use crrl_types::{AdapterManifest, AdapterVersion, Digest, Sampling};
use world::{adapter, adapter_as, adapter_with, alone, engine, finish, prompt, sampling};

/// An engine that serves an adapter from the first token on.
fn serving(options: Options, version: u64, seed: u64) -> Engine {
    let mut engine = engine(options);
    let (manifest, bytes) = adapter(version, seed);
    engine.stage(&manifest, &bytes).expect("good");
    engine.swap();
    engine
}

fn generate(engine: &mut Engine, prompt: &[u32], how: Sampling) -> Vec<u32> {
    let seq = engine.open().expect("room");
    engine.submit(seq, prompt, how).expect("good");
    let run = finish(engine, seq);
    engine.close(seq);
    run.ids()
}

fn greedy(max_tokens: u32) -> Sampling {
    Sampling { temperature: 0.0, ..sampling(1, max_tokens) }
}

#[test]
fn every_token_carries_the_adapter_it_was_drawn_under() {
    let mut engine = engine(Options::default());
    let base = engine.base_digest();
    let sequences = [1, 2].map(|salt| {
        let seq = engine.open().expect("room");
        // The end of turn may not come: what is stamped is what is tested.
        let how = Sampling { top_k: 1, ..sampling(1, 30) };
        engine.submit(seq, &prompt(9, salt), how).expect("good");
        seq
    });
    let mut steps: Vec<Vec<Sampled>> = Vec::new();
    let mut step = |engine: &mut Engine| {
        let tokens = engine.step().into_iter().map(|output| match output {
            Output::Token { token, .. } => token,
            Output::Broken { reason, .. } => panic!("{reason}"),
        });
        steps.push(tokens.collect());
    };
    for _ in 0..5 {
        step(&mut engine);
    }
    let (manifest, bytes) = adapter(3, 1);
    engine.stage(&manifest, &bytes).expect("good");
    assert_eq!(engine.serving().version, AdapterVersion(0), "staged is not yet served");
    for _ in 0..5 {
        step(&mut engine);
    }
    let stamps: Vec<(u64, Digest)> =
        steps.iter().flatten().map(|t| (t.version.0, t.digest)).collect();
    let at = stamps.iter().position(|(version, _)| *version == 3).expect("it was swapped in");
    let before: usize = steps[..5].iter().map(Vec::len).sum();
    assert_eq!(at, before, "swapped exactly between the fifth and the sixth step");
    assert!(stamps[..at].iter().all(|stamp| *stamp == (0, base)));
    assert!(stamps[at..].iter().all(|stamp| *stamp == (3, manifest.digest)));
    assert!(stamps.len() > at + sequences.len(), "sequences under way went on");
}

#[test]
fn an_adapter_changes_what_is_drawn_and_scores_say_so() {
    let prompt = prompt(12, 1);
    let mut engine = serving(Options::default(), 1, 5);
    let seq = engine.open().expect("room");
    engine.submit(seq, &prompt, sampling(4, 30)).expect("good");
    let run = finish(&mut engine, seq);
    let whole = [prompt.clone(), run.ids()].concat();
    let scores = engine.score(&whole, 1.0).expect("fits");
    for (token, score) in run.tokens.iter().zip(&scores[prompt.len()..]) {
        assert!((token.logprob - score).abs() < 1e-4, "{token:?} scored {score}");
    }
    let bare = world::engine(Options::default()).score(&whole, 1.0).expect("fits");
    let moved = bare.iter().zip(&scores).any(|(a, b)| (a - b).abs() > 0.01);
    assert!(moved, "the adapter changes nothing, so this tests nothing");
}

#[test]
fn an_adapter_in_bf16_is_served_as_the_numbers_it_holds() {
    let whole = prompt(40, 1);
    let scores = |(manifest, bytes): &(AdapterManifest, Vec<u8>)| {
        let mut engine = engine(Options::default());
        engine.stage(manifest, bytes).expect("good");
        engine.swap();
        assert_eq!(engine.serving().digest, manifest.digest);
        engine.score(&whole, 1.0).expect("fits")
    };
    let gap =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    let halved = adapter_as(FileDtype::Bf16, 1, 5, |_| {});
    assert!(halved.0.tensors.iter().all(|tensor| tensor.dtype == "BF16"));
    let rounded = AdapterWeights::from_bytes(&halved.1).expect("an adapter");
    let rounded = adapter_with(1, 5, |weights| *weights = rounded);
    assert_ne!(halved.0.digest, rounded.0.digest);
    let served = scores(&halved);
    assert_eq!(served, scores(&rounded), "the same numbers, in half the bytes");
    // What rounding costs is little beside what the adapter does.
    let exact = scores(&adapter(1, 5));
    let bare = engine(Options::default()).score(&whole, 1.0).expect("fits");
    let (lost, moved) = (gap(&served, &exact), gap(&bare, &exact));
    assert!(lost > 0.0 && lost < moved / 4.0, "off by {lost} where the adapter moves {moved}");
}

#[test]
fn a_group_computes_its_prompt_once() {
    let mut engine = engine(Options { prefill_tokens_max: 16, ..Options::default() });
    let shared = prompt(60, 1);
    let sequences: Vec<_> = (0..8)
        .map(|seed| {
            let seq = engine.open().expect("room");
            engine.submit(seq, &shared, sampling(seed, 1)).expect("good");
            seq
        })
        .collect();
    while engine.has_work() {
        engine.step();
    }
    let stats = engine.stats();
    // Each of the seven others computes the last prompt token for its own logits.
    assert_eq!(stats.shared_tokens, 7 * 59);
    assert!(stats.prefill_tokens <= 60, "{stats:?}");
    for seq in sequences {
        engine.close(seq);
    }
    generate(&mut engine, &shared, sampling(1, 1));
    assert_eq!(engine.stats().shared_tokens, 8 * 59, "the prompt outlives its sequences");
}

#[test]
fn a_shared_prompt_gives_the_same_logits() {
    let (first, second) = (prompt(40, 1), [prompt(30, 1), prompt(9, 7)].concat());
    let mut engine = engine(Options::default());
    generate(&mut engine, &first, sampling(1, 5));
    let seq = engine.open().expect("room");
    engine.submit(seq, &second, sampling(8, 20)).expect("good");
    let shared = finish(&mut engine, seq);
    assert_eq!(engine.stats().shared_tokens, 30);
    let cold = alone(Options { prefixes_max: 0, ..Options::default() }, &second, sampling(8, 20));
    assert_eq!(shared.ids(), cold.ids());
    for (a, b) in shared.tokens.iter().zip(&cold.tokens) {
        assert!((a.logprob - b.logprob).abs() < 1e-5, "{a:?} {b:?}");
    }
}

#[test]
fn a_swap_never_serves_a_stale_prefix() {
    let prompt = prompt(40, 1);
    let want = generate(&mut serving(Options::default(), 2, 9), &prompt, greedy(25));
    // One engine computes the same prompt under another adapter first, and keeps it; one sequence
    // that shares it is still open.
    let mut engine = serving(Options::default(), 1, 5);
    let stale = generate(&mut engine, &prompt, greedy(25));
    assert_ne!(stale, want, "the adapters are alike, so this tests nothing");
    let open = engine.open().expect("room");
    engine.submit(open, &prompt, greedy(1)).expect("good");
    finish(&mut engine, open);
    let before = engine.stats().shared_tokens;
    let (manifest, bytes) = adapter(2, 9);
    engine.stage(&manifest, &bytes).expect("good");
    assert_eq!(generate(&mut engine, &prompt, greedy(25)), want);
    assert_eq!(engine.stats().shared_tokens, before, "nothing computed before may be shared");
}

#[test]
fn recomputing_on_a_swap_is_exact() {
    let opening = prompt(30, 1);
    for on_swap in [OnSwap::Keep, OnSwap::Recompute] {
        let mut engine = serving(Options { on_swap, ..Options::default() }, 1, 5);
        let seq = engine.open().expect("room");
        engine.submit(seq, &opening, greedy(40)).expect("good");
        let mut drawn: Vec<Sampled> = Vec::new();
        let mut swapped = false;
        while engine.has_work() {
            for output in engine.step() {
                if let Output::Token { token, .. } = output {
                    drawn.push(token);
                }
            }
            if drawn.len() == 10 && !swapped {
                let (manifest, bytes) = adapter(2, 9);
                engine.stage(&manifest, &bytes).expect("good");
                swapped = true;
            }
        }
        assert!(drawn.len() > 20, "the seed ends too early to test with");
        let whole: Vec<u32> = opening.iter().copied().chain(drawn.iter().map(|t| t.id)).collect();
        let scores = engine.score(&whole, 1.0).expect("fits");
        let gap = drawn[10..]
            .iter()
            .zip(&scores[opening.len() + 10..])
            .map(|(token, score)| (token.logprob - score).abs())
            .fold(0.0_f32, f32::max);
        match on_swap {
            OnSwap::Recompute => assert!(gap < 1e-4, "off by {gap}"),
            OnSwap::Keep => assert!(gap > 1e-3, "old keys and values were not kept"),
        }
    }
}

#[test]
fn what_is_not_the_adapter_announced_is_refused_and_the_old_one_serves_on() {
    let mut engine = serving(Options::default(), 5, 1);
    let before = engine.serving();
    let (manifest, bytes) = adapter(6, 2);

    let mut flipped = bytes.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    let mut foreign = manifest.clone();
    foreign.base_digest = Digest::of(b"another model");
    let (poisoned, poison) = adapter_with(6, 2, |weights| weights.tensors[3].values[0] = f32::NAN);
    let (other_shape, shape_bytes) = adapter_with(6, 2, |weights| {
        let tensor = &mut weights.tensors[0];
        tensor.shape[1] -= 4;
        tensor.values.truncate(tensor.shape[0] * tensor.shape[1]);
    });
    let (infinite, infinity) =
        adapter_as(FileDtype::Bf16, 6, 2, |weights| weights.tensors[3].values[0] = f32::MAX);
    let (mut mistyped, half) = adapter_as(FileDtype::Bf16, 6, 2, |_| {});
    mistyped.tensors[0].dtype = "F32".into();
    for (what, manifest, bytes) in [
        ("a value that bf16 rounds to infinity", &infinite, &infinity),
        ("another type", &mistyped, &half),
        ("bf16 where f32 was announced", &manifest, &half),
        ("a flipped bit", &manifest, &flipped),
        ("half the bytes", &manifest, &bytes[..bytes.len() / 2].to_vec()),
        ("another base", &foreign, &bytes),
        ("a NaN", &poisoned, &poison),
        ("another shape", &other_shape, &shape_bytes),
    ] {
        let refused = engine.stage(manifest, bytes);
        assert!(matches!(refused, Err(StageError::Refused { .. })), "{what}: {refused:?}");
    }
    let (older, older_bytes) = adapter(4, 2);
    assert!(matches!(engine.stage(&older, &older_bytes), Err(StageError::Stale { .. })));
    let (same_version, other_bytes) = adapter(5, 2);
    assert!(matches!(engine.stage(&same_version, &other_bytes), Err(StageError::Stale { .. })));
    let (same, same_bytes) = adapter(5, 1);
    engine.stage(&same, &same_bytes).expect("what is served already is no fault");
    engine.step();
    assert_eq!(engine.serving(), before);
}
