//! Learning as a user sees it: losses fall, runs resume, broken numbers change nothing.

mod world;

use crrl_learner::checkpoint::Progress;
use crrl_learner::{Checkpoints, Learner, LearnerError, Options, Stop};
use crrl_model::{AdapterWeights, Architecture, FileDtype, peft};
use crrl_rl::objective::Objective;
use crrl_types::AdapterVersion;
use world::{copying, episodes, full, lora, model};

fn learner(options: Options) -> Learner {
    Learner::random(&model(Architecture::Llama, true), options).expect("options are good")
}

/// Moves the adapter off its start, where every B is zero.
fn warmed(options: Options) -> Learner {
    let mut learner = learner(options);
    for step in 0..3 {
        learner.imitate(&copying(8, step, 23)).expect("a step");
    }
    learner
}

#[test]
fn a_model_from_nothing_learns_to_copy() {
    let mut options = full(1);
    options.optimizer.learning_rate = 1e-2;
    let mut learner = learner(options);
    let held_out = copying(64, 99_999, 8);
    let before = learner.accuracy(&held_out).expect("read");
    for step in 0..400 {
        learner.imitate(&copying(32, step, 8)).expect("a step");
    }
    let after = learner.accuracy(&held_out).expect("read");
    assert!(before.tokens < 0.4, "untrained it predicts {before:?}");
    assert!(after.tokens > 0.6 && after.loss < 0.7 * before.loss, "{before:?} to {after:?}");
}

#[test]
fn micro_batches_add_up_to_the_whole() {
    let whole = warmed(lora(2));
    let mut small = warmed(lora(2));
    assert_eq!(whole.parameters(), small.parameters());
    let mut whole = whole;
    let batch = copying(12, 7, 23);
    let one = whole.imitate(&batch).expect("a step");
    let mut options = lora(2);
    options.micro_batch_tokens = 20;
    let mut cut = learner(options);
    for step in 0..3 {
        cut.imitate(&copying(8, step, 23)).expect("a step");
    }
    small = cut;
    let many = small.imitate(&batch).expect("a step");
    assert!(many.passes > 4 && one.passes == 1, "{} and {} passes", many.passes, one.passes);
    assert!((one.loss - many.loss).abs() < 1e-5, "{} and {}", one.loss, many.loss);
    assert!((one.grad_norm - many.grad_norm).abs() < 1e-4 * one.grad_norm.max(1.0));
}

#[test]
fn tokens_that_are_only_read_are_learnt_where_they_weigh_something() {
    // Every example begins with the same prompt, which is not trained on.
    let prompted = |step| -> Vec<crrl_learner::Example> {
        let mut batch = copying(16, step, 8);
        for example in &mut batch {
            example.tokens.splice(0..0, [1, 2, 3, 4, 5, 6]);
            example.mask.splice(0..0, [false; 6]);
        }
        batch
    };
    let prompt_loss = |learner: &mut Learner| {
        let mut batch = prompted(777);
        for example in &mut batch {
            example.mask = (0..example.tokens.len()).map(|t| (1..6).contains(&t)).collect();
        }
        learner.accuracy(&batch).expect("read").loss
    };
    let trained = |weight: f64| {
        let mut options = full(6);
        options.prompt_loss = weight;
        let mut learner = learner(options);
        let before = prompt_loss(&mut learner);
        let mut report = None;
        for step in 0..40 {
            report = Some(learner.imitate(&prompted(step)).expect("a step"));
        }
        let report = report.expect("steps were made");
        let own: usize = prompted(39).iter().map(|e| e.mask.iter().filter(|m| **m).count()).sum();
        assert_eq!(report.targets, own, "numbers are of the tokens trained on, weight {weight}");
        prompt_loss(&mut learner) / before
    };
    let (ignored, weighed) = (trained(0.0), trained(0.5));
    assert!(weighed < 0.75 * ignored, "{ignored} without a weight, {weighed} with it");
}

#[test]
fn computing_layers_again_gives_the_same_gradient() {
    for options in [full(3), lora(3)] {
        let mut kept = warmed(options.clone());
        let mut again = warmed(Options { checkpoint_activations: true, ..options });
        let batch = copying(8, 5, 23);
        let (kept, again) = (kept.imitate(&batch), again.imitate(&batch));
        let (kept, again) = (kept.expect("a step"), again.expect("a step"));
        assert!((kept.loss - again.loss).abs() < 1e-6);
        assert!((kept.grad_norm - again.grad_norm).abs() < 1e-4 * kept.grad_norm);
    }
}

#[test]
fn rewarded_sequences_become_likelier() {
    let mut options = lora(4);
    options.objective = Objective::grpo();
    let mut learner = warmed(options);
    let mut batch = episodes(16, 3, 23);
    for (index, episode) in batch.iter_mut().enumerate() {
        episode.advantage = if index < 8 { 1.0 } else { -1.0 };
    }
    let examples = |range: std::ops::Range<usize>| -> Vec<_> {
        batch[range]
            .iter()
            .map(|e| crrl_learner::Example { tokens: e.tokens.clone(), mask: e.generated.clone() })
            .collect()
    };
    let (good, bad) = (examples(0..8), examples(8..16));
    let gap = |learner: &mut Learner| {
        let loss = |l: &mut Learner, e| l.accuracy(e).expect("read").loss;
        loss(learner, &bad) - loss(learner, &good)
    };
    let before = gap(&mut learner);
    let mut report = learner.reinforce(&batch).expect("a step");
    assert!(report.clip_idle, "one update on a fresh batch cannot clip");
    for _ in 0..40 {
        report = learner.reinforce(&batch).expect("a step");
    }
    let after = gap(&mut learner);
    assert!(after > before + 0.1, "{before} to {after}; {report:?}");
}

#[test]
fn every_objective_takes_a_step_and_epochs_can_clip() {
    for objective in [
        Objective::grpo(),
        Objective { beta: 0.04, ..Objective::grpo() },
        Objective::bnpo(),
        Objective::dr_grpo(32),
        Objective::dapo(),
        Objective::gspo(),
        Objective::cispo(),
    ] {
        let mut options = lora(5);
        options.objective = objective;
        options.epochs = 2;
        options.minibatches = 2;
        let mut learner = warmed(options);
        let at = learner.updates();
        let report = learner.reinforce(&episodes(8, 9, 23)).expect("a step");
        assert_eq!(learner.updates(), at + 4, "{objective:?}");
        assert!(report.grad_norm > 0.0 && report.skipped == 0, "{report:?}");
        assert!(!report.clip_idle, "the second epoch moved away from the first");
        assert!(report.named().iter().all(|(_, value)| value.is_finite()), "{report:?}");
    }
}

#[test]
fn a_resumed_run_is_the_run_that_never_stopped() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, options) in [("lora", lora(6)), ("full", full(6))] {
        let store = Checkpoints::new(dir.path().join(name), 2);
        let mut first = warmed(options.clone());
        let progress = Progress { step: 3, cursor: 24, ..Progress::default() };
        store.save(&first, &progress).expect("saves");
        let mut second = learner(options);
        let found = store.newest().expect("reads").checkpoint.expect("is there");
        assert_eq!(found.restore(&mut second).expect("restores"), progress);
        assert_eq!(first.parameters(), second.parameters(), "{name}");
        for step in 3..6 {
            first.imitate(&copying(8, step, 23)).expect("a step");
            second.imitate(&copying(8, step, 23)).expect("a step");
        }
        let (first, second) = (first.parameters(), second.parameters());
        for (a, b) in first.list.iter().zip(&second.list) {
            for (x, y) in a.values.iter().zip(&b.values) {
                assert!((x - y).abs() < 1e-6, "{name}: {} is {x} and {y}", a.name);
            }
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Checkpoints::new(dir.path(), 3);
    let mut run = learner(lora(7));
    let mut folders = Vec::new();
    for step in 1..=5 {
        run.imitate(&copying(4, step, 23)).expect("a step");
        let progress = Progress { step, ..Progress::default() };
        folders.push(store.save(&run, &progress).expect("saves"));
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 3, "the newest are kept");
    let moments = folders[4].join("moments.safetensors");
    let mut bytes = std::fs::read(&moments).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&moments, bytes).expect("writes");
    let found = store.newest().expect("reads");
    assert_eq!(found.checkpoint.expect("an older one").progress().step, 4);
    assert!(found.damaged[0].contains("moments.safetensors"), "{:?}", found.damaged);
}

#[test]
fn a_step_that_changed_nothing_leaves_the_checkpoint_before_it_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Checkpoints::new(dir.path(), 3);
    let mut run = warmed(lora(7));
    let first = store.save(&run, &Progress { step: 1, ..Progress::default() }).expect("saves");
    // As a build before named it.
    let older = dir.path().join(format!("step-{:08}", run.updates()));
    std::fs::rename(&first, &older).expect("writable");
    let mut broken = episodes(4, 1, 23);
    broken.iter_mut().for_each(|episode| episode.sampled.fill(f32::NAN));
    let updates = run.updates();
    for step in 2..4 {
        run.reinforce(&broken).expect("no error of ours");
        assert_eq!(run.updates(), updates, "it was left out");
        let folder = store.save(&run, &Progress { step, ..Progress::default() }).expect("saves");
        assert!(older.is_dir(), "it took the place of another");
        let found = store.newest().expect("reads").checkpoint.expect("just saved");
        assert_eq!((found.path(), found.progress().step), (folder.as_path(), step));
    }
    // Each is there to fall back to.
    let all = store.examine().expect("reads").into_iter();
    let steps: Vec<u64> = all.map(|(_, examined)| examined.expect("whole").progress.step).collect();
    assert_eq!(steps, [1, 2, 3]);
}

#[test]
fn a_run_that_begins_again_below_damaged_checkpoints_keeps_its_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Checkpoints::new(dir.path(), 2);
    let mut run = learner(lora(7));
    for step in 1..=4 {
        run.imitate(&copying(4, step, 23)).expect("a step");
        let folder = store.save(&run, &Progress { step, ..Progress::default() }).expect("saves");
        std::fs::write(folder.join("manifest.json"), b"torn").expect("writes");
    }
    assert!(store.newest().expect("reads").checkpoint.is_none());
    let mut again = learner(lora(7));
    again.imitate(&copying(4, 1, 23)).expect("a step");
    store.save(&again, &Progress { step: 1, ..Progress::default() }).expect("saves");
    let found = store.newest().expect("reads");
    assert_eq!(found.checkpoint.expect("the one just saved").progress().step, 1);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Checkpoints::new(dir.path(), 1);
    store.save(&learner(lora(8)), &Progress::default()).expect("saves");
    let found = store.newest().expect("reads").checkpoint.expect("is there");
    let error = found.restore(&mut learner(full(8))).expect_err("other weights");
    assert!(error.to_string().contains("trains other weights"), "{error}");
    let error = found.restore(&mut learner(lora(9))).expect_err("another base");
    assert!(error.to_string().contains("base model"), "{error}");
}

#[test]
fn broken_numbers_change_nothing_and_are_never_published() {
    let mut run = warmed(lora(10));
    let before = run.parameters().clone();
    let mut batch = episodes(4, 1, 23);
    batch[2].sampled.fill(f32::NAN);
    let report = run.reinforce(&batch).expect("no error of ours");
    assert_eq!(report.skipped, 1);
    assert_eq!(run.parameters(), &before);
    let mut broken = run.adapter().expect("an adapter");
    broken.tensors[3].values[0] = f32::INFINITY;
    assert!(run.set_adapter(&broken).is_err());
    let sent = run.publish(AdapterVersion(1), FileDtype::F32).expect("finite");
    assert!(sent.manifest.finite && sent.manifest.base_digest == run.base_digest());
}

#[test]
fn what_is_published_is_rounded_and_what_is_kept_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Checkpoints::new(dir.path(), 1);
    let mut run = warmed(lora(12));
    let before = run.parameters().clone();
    let version = AdapterVersion(3);
    let sent = run.publish(version, FileDtype::Bf16).expect("finite");
    assert!(sent.manifest.finite);
    assert!(sent.manifest.tensors.iter().all(|tensor| tensor.dtype == "BF16"));
    assert_eq!(run.parameters(), &before, "the masters were rounded");
    let masters = run.master_adapter().expect("an adapter");
    assert_eq!(Some(&masters), run.adapter().as_ref(), "the processor rounds nothing");
    let rounded = AdapterWeights::from_bytes(&sent.bytes).expect("an adapter");
    assert_ne!(rounded, masters, "nothing was rounded, so this tests nothing");
    assert_eq!(masters.to_bytes(FileDtype::Bf16), sent.bytes);

    let folder = store.save(&run, &Progress { version, ..Progress::default() }).expect("saves");
    assert_eq!(peft::load(&folder.join("adapter")).expect("a PEFT folder"), masters);
    let mut again = learner(lora(12));
    let found = store.newest().expect("reads").checkpoint.expect("just saved");
    found.restore(&mut again).expect("of this run");
    assert_eq!(again.parameters(), &before);
    assert_eq!(again.publish(version, FileDtype::Bf16).expect("finite"), sent);
    // Both go on alike, from the masters and not from what was published.
    let batch = copying(8, 9, 23);
    run.imitate(&batch).expect("a step");
    again.imitate(&batch).expect("a step");
    assert_eq!(again.parameters(), run.parameters());
}

#[test]
fn a_value_that_bf16_would_make_infinite_is_not_published_in_it() {
    let mut run = warmed(lora(13));
    let mut great = run.adapter().expect("an adapter");
    great.tensors[2].values[0] = f32::MAX;
    run.set_adapter(&great).expect("finite");
    run.publish(AdapterVersion(1), FileDtype::F32).expect("finite");
    let error = run.publish(AdapterVersion(1), FileDtype::Bf16).expect_err("infinite").to_string();
    assert!(error.contains(&great.tensors[2].name) && error.contains("BF16"), "{error}");
}

#[test]
fn a_step_that_is_told_to_stop_ends_between_two_passes_and_changes_nothing() {
    let mut run = warmed(lora(14));
    let before = run.parameters().clone();
    let stop = Stop::default();
    run.heed(stop.clone());
    run.imitate(&copying(4, 9, 23)).expect("nobody wants it to stop");
    assert_ne!(run.parameters(), &before);
    let before = run.parameters().clone();
    stop.want();
    let error = run.reinforce(&episodes(4, 1, 23)).expect_err("it is to stop");
    assert!(matches!(error, LearnerError::Stopped) && error.may_pass(), "{error}");
    assert_eq!(run.parameters(), &before);
}

#[test]
fn what_starting_again_would_not_mend_is_told_from_what_it_may() {
    let mut run = learner(lora(15));
    let mut batch = copying(3, 1, 23);
    batch[1].tokens[2] = 23;
    assert!(!run.imitate(&batch).expect_err("token 23 of 23").may_pass());
    assert!(!Learner::load("nowhere".as_ref(), "cpu", lora(1)).expect_err("no model").may_pass());
    let source = std::io::ErrorKind::StorageFull.into();
    assert!(LearnerError::Io { path: "a".into(), source }.may_pass());
    let reason = "another process has the memory".to_owned();
    assert!(LearnerError::Pass { tokens: 7, reason }.may_pass());
}

#[test]
fn what_an_adapter_takes_is_known_before_it_is_packed() {
    let run = learner(lora(16));
    for dtype in [FileDtype::F32, FileDtype::Bf16] {
        let packed = run.publish(AdapterVersion(1), dtype).expect("finite").bytes.len() as u64;
        let values = run.parameters().len() as u64 * dtype.size() as u64;
        let told = run.adapter_bytes(dtype);
        assert!(values < packed && packed <= told, "{values} {packed} {told}");
    }
}

#[test]
fn what_a_model_cannot_read_is_named() {
    let mut run = learner(lora(11));
    let mut batch = copying(3, 1, 23);
    batch[1].tokens[2] = 23;
    let error = run.imitate(&batch).expect_err("token 23 of 23");
    assert!(matches!(error, LearnerError::Example { index: 1, .. }), "{error}");
    let mut batch = episodes(2, 1, 23);
    batch[1].temperature = 0.0;
    let error = run.reinforce(&batch).expect_err("greedy episodes").to_string();
    assert!(error.contains("temperature"), "{error}");
}
