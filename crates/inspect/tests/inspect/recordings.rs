//! Recordings: made, read, played, refused.

use std::path::PathBuf;

use crrl_inspect::InspectError;
use crrl_inspect::frame::Link;
use crrl_inspect::player::Player;
use crrl_inspect::recording::{Recorder, Recording};
use crrl_inspect::state::World;
use tempfile::TempDir;

use crate::scene;

fn recorded(seconds: std::ops::Range<u64>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.rec");
    let mut recorder = Recorder::create(&path, "quickstart").expect("writable");
    for s in seconds {
        assert!(recorder.push(&scene::frame(s)).expect("writable"));
        assert!(recorder.push(&scene::frame(s)).expect("writable"), "the same again is no line");
    }
    (folder, path)
}

#[test]
fn what_is_recorded_is_what_is_read() {
    let (_folder, path) = recorded(150..160);
    let mut recording = Recording::open(&path).expect("a recording");
    assert_eq!((recording.run(), recording.times().len()), ("quickstart", 10));
    for (at, s) in (150..160).enumerate() {
        assert!(recording.frame(at).expect("readable") == scene::frame(s), "second {s}");
    }
}

#[test]
fn another_version_is_a_clear_error() {
    let (_folder, path) = recorded(150..152);
    let text = std::fs::read_to_string(&path).expect("readable");
    std::fs::write(&path, text.replacen("\"version\":1", "\"version\":2", 1)).expect("writable");
    let error = Recording::open(&path).expect_err("refused");
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("version 2, and this build reads version 1"), "{error}");
}

#[test]
fn what_is_no_recording_is_refused_and_nothing_is_overwritten() {
    let (folder, path) = recorded(150..152);
    let other = folder.path().join("events.jsonl");
    for text in ["", "{\"at_ms\":1}\n", "hello"] {
        std::fs::write(&other, text).expect("writable");
        let error = Recording::open(&other).expect_err("refused").to_string();
        assert!(error.contains("is not a recording"), "{error}");
    }
    assert!(matches!(Recorder::create(&path, "x"), Err(InspectError::Recording { .. })));
    assert_eq!(Recording::open(&path).expect("untouched").times().len(), 2);
}

#[test]
fn a_recording_that_was_interrupted_ends_at_its_last_whole_line() {
    let (_folder, path) = recorded(150..155);
    let text = std::fs::read(&path).expect("readable");
    std::fs::write(&path, &text[..text.len() - 40]).expect("writable");
    assert_eq!(Recording::open(&path).expect("a recording").times().len(), 4);
    let text = String::from_utf8(text).expect("UTF-8").replacen("\"snapshot\"", "#", 2);
    std::fs::write(&path, text.replacen("{\"at_ms\"", "?", 1)).expect("writable");
    let error = Recording::open(&path).expect_err("damaged in the middle").to_string();
    assert!(error.contains("line 2 is damaged"), "{error}");
}

#[test]
fn time_passes_halts_and_goes_back() {
    let (_folder, path) = recorded(150..190);
    let mut player = Player::new(Recording::open(&path).expect("a recording"));
    let mut world = World::new();
    player.pass(0, &mut world).expect("readable");
    assert_eq!(world.now_ms(), scene::BEGIN_MS + 150_000);
    player.pass(20_500, &mut world).expect("readable");
    assert_eq!(player.link(), Link::Replay { at: 21, of: 40, halted: false });
    assert!(world.actors().iter().all(|actor| actor.rate.is_some()));
    player.seek(-15_000, &mut world).expect("readable");
    assert_eq!(player.link(), Link::Replay { at: 6, of: 40, halted: true });
    assert_eq!(world.now_ms(), scene::BEGIN_MS + 155_500);
    player.pass(99_000, &mut world).expect("readable");
    assert_eq!(player.link(), Link::Replay { at: 6, of: 40, halted: true });
    player.toggle(&mut world);
    player.pass(99_000, &mut world).expect("readable");
    assert!(world.frame() == Some(&scene::frame(189)));
    player.seek(i64::MIN, &mut world).expect("readable");
    assert!(world.frame() == Some(&scene::frame(150)));
    player.seek(i64::MAX, &mut world).expect("readable");
    player.pass(1, &mut world).expect("readable");
    player.toggle(&mut world);
    assert_eq!(player.link(), Link::Replay { at: 0, of: 40, halted: false });
}
