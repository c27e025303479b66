//! With `run.sync = true` a seed decides everything: neither the number of rollout nodes nor their
//! deaths change a bit of what is learnt.

use crrl_actors::adapter_shelf::AdapterShelf;
use crrl_model::{FileDtype, peft};
use crrl_store::{EpisodeRow, Reader};
use crrl_types::{EpisodeId, Event, EventKind};
use nix::sys::signal::Signal;

use crate::ledger;
use crate::world::{Training, World, end};

const STEPS: u64 = 10;

/// A run in turns of two-turn episodes, on this many rollout nodes.
fn world(rollouts: usize) -> World {
    let world = World::new();
    world.configure("steps = 20", &format!("steps = {STEPS}\nsync = true\nseed = 11"));
    // A random policy changes nothing and is nudged: that makes more turns.
    world.configure("nudges_max = 0", "nudges_max = 2");
    world.configure("tokens_max = 200", "tokens_max = 640");
    let mut nodes = String::from(
        "[[node]]\nname = \"coordinator\"\nroles = [\"coordinator\", \"parameter-server\"]\n\
         [[node]]\nname = \"learner\"\nroles = [\"learner\"]\nthreads = 1\n",
    );
    for rollout in 0..rollouts {
        nodes += &format!(
            "[[node]]\nname = \"rollout-{rollout}\"\nroles = [\"rollout\"]\nthreads = 1\n"
        );
    }
    world.configure("[cluster]", &format!("{nodes}[cluster]"));
    world
}

/// The learnt adapter, and the optimizer's moments.
fn learnt(world: &World) -> [Vec<u8>; 2] {
    let folder = world.run.path().join(format!("checkpoints/step-{STEPS:08}-{STEPS:08}"));
    ["adapter/adapter_model.safetensors", "moments.safetensors"].map(|file| {
        let path = folder.join(file);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}

/// Who has which episode of which a turn is on disk and whose end is not.
fn in_the_middle(world: &World) -> Option<(String, EpisodeId)> {
    let reader = Reader::open(&world.run.store()).ok()?;
    let begun = reader.journals().ok()?;
    let leased = reader.episodes_in(&["leased"]).ok()?;
    let row = leased.into_iter().find(|row| begun.contains_key(&row.episode))?;
    Some((row.node?.as_str().to_owned(), row.episode))
}

/// Whether a run whose nodes but this one go on waits for this episode (none: not known yet).
fn is_waited_for(world: &World, node: &str, episode: EpisodeId) -> Option<bool> {
    let leased = Reader::open(&world.run.store()).ok()?.episodes_in(&["leased"]).ok()?;
    let here = |row: &EpisodeRow| row.node.as_ref().is_some_and(|held| held.as_str() == node);
    match leased.iter().find(|row| row.episode == episode) {
        Some(row) if here(row) => leased.iter().all(here).then_some(true),
        _ => Some(false),
    }
}

fn resumed(world: &World) -> usize {
    let resumed = |event: &Event| matches!(event.kind, EventKind::Resumed { .. });
    world.history().into_iter().filter(resumed).count()
}

/// Kills a node in the middle of an episode, and waits until another has gone on with it.
///
/// It is stopped first. A run in turns comes to a stand then, if the episode was not over already.
fn kill_in_the_middle(training: &mut Training<'_>) {
    let world = training.world();
    let before = resumed(world);
    let (pid, episode) = loop {
        let (node, episode) = training.until("episode in the middle", || in_the_middle(world));
        let Some(pid) = world.pid(&node) else { continue };
        end(pid, Signal::SIGSTOP);
        let waits = || is_waited_for(world, &node, episode);
        if training.until("a run at a stand", waits) {
            break (pid, episode);
        }
        end(pid, Signal::SIGCONT);
    };
    end(pid, Signal::SIGKILL);
    training.until("word of the episode", || {
        let over = ["finished", "batched", "trained", "dropped"];
        let over = Reader::open(&world.run.store()).ok()?.episodes_in(&over).ok()?;
        // The last words of the dead may have been that it is over.
        let is_over = over.iter().any(|row| row.episode == episode);
        (resumed(world) > before || is_over).then_some(())
    });
}

/// The first episode that was not the same in two runs, as each has it.
fn first_difference(one: &World, other: &World) -> Option<String> {
    let [one, other] = [one, other].map(|world| Reader::open(&world.run.store()).expect("a store"));
    let of = |reader: &Reader, episode| {
        let made = reader.trajectory(episode).expect("readable")?;
        // Where it was made and how long that took may differ.
        Some((made.tokens, made.logprobs, made.adapters, made.finish, made.diff, made.reward))
    };
    let rows = one.episodes_of_phase(0).expect("rows");
    let differs = |row: &&EpisodeRow| of(&one, row.episode) != of(&other, row.episode);
    let row = rows.iter().find(differs)?;
    let said = other.episodes_of_phase(0).expect("rows");
    let beside = said.iter().find(|other| other.episode == row.episode);
    let (this, that) = (of(&one, row.episode), of(&other, row.episode));
    Some(format!("{row:?}\n{this:?}\nbeside {beside:?}\n{that:?}"))
}

#[test]
fn neither_more_nodes_nor_their_deaths_change_what_is_learnt() {
    let alone = world(1);
    alone.train(&[]).completes();

    let more = world(3);
    let mut training = more.train(&[]);
    // Two, since a task that outlives three nodes would be quarantined.
    for _ in 0..2 {
        kill_in_the_middle(&mut training);
    }
    assert!(resumed(&more) > 0, "no episode was gone on with");
    training.completes();
    ledger::check(&more.run, STEPS);
    assert_eq!(first_difference(&alone, &more), None);
    assert!(learnt(&alone) == learnt(&more), "another adapter was learnt from the same episodes");
}

#[test]
fn adapters_in_bf16_are_learnt_from_alike_on_one_node_and_on_two_and_beyond_the_learners_death() {
    let halved = |rollouts| {
        let world = world(rollouts);
        world.configure("warmup_steps = 0", "warmup_steps = 0\nadapter_dtype = \"bf16\"");
        world
    };
    let alone = halved(1);
    alone.train(&[]).completes();

    let more = halved(2);
    let mut training = more.train(&[]);
    training.until_step(2);
    end(more.pid("learner").expect("runs"), Signal::SIGKILL);
    assert!(more.steps() < STEPS, "killed too late to tell anything");
    training.completes();
    ledger::check(&more.run, STEPS);
    assert_eq!(first_difference(&alone, &more), None);
    assert!(learnt(&alone) == learnt(&more), "another adapter was learnt from the same episodes");

    // The checkpoint keeps f32; what was published last is that, rounded.
    let folder = more.run.path().join(format!("checkpoints/step-{STEPS:08}-{STEPS:08}/adapter"));
    let masters = peft::load(&folder).expect("a PEFT folder");
    let (manifest, bytes) =
        AdapterShelf::new(more.run.path()).newest().expect("whole").expect("was published");
    assert!(manifest.tensors.iter().all(|tensor| tensor.dtype == "BF16"), "{manifest:?}");
    assert!(bytes == masters.to_bytes(FileDtype::Bf16), "not the checkpoint's weights");
    let kept = std::fs::read(folder.join("adapter_model.safetensors")).expect("readable");
    assert!(kept == masters.to_bytes(FileDtype::F32), "the checkpoint was rounded");
}
