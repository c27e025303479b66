//! Nodes that somebody else starts: they join in mid-run from an invitation, and leave.

use crrl_types::EventKind;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::ledger;
use crate::world::{World, end, until_gone};

#[test]
fn a_guest_joins_in_mid_run_works_and_leaves() {
    let world = World::new();
    world.configure("steps = 20", "steps = 150");
    let mut training = world.train(&[]);
    training.until_step(1);
    world.succeeds(&["cluster", "invite", "guest-1"]);
    let (code, said) = world.refused(&["cluster", "invite", "guest-1"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("guest-1.join is there already"), "{said}");
    let join = ["node", "--join", "guest-1.join", "--dir", "elsewhere", "--threads", "1"];
    let mut guest = world.starts(&join, "guest.stderr");
    training.until("work for the guest", || {
        let work = |kind: &EventKind| {
            matches!(kind, EventKind::Dispatched { to, .. } if to.as_str() == "guest-1")
        };
        world.history().iter().any(|event| work(&event.kind)).then_some(())
    });
    training.until("a line of status for the guest", || {
        let output = world.crrl(&["cluster", "status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let nodes = status["nodes"].as_array().expect("a list");
        let line = nodes.iter().find(|node| node["name"] == "guest-1")?;
        (line["guest"] == true && line["state"] == "ready").then_some(())
    });
    // It leaves, and what it was working on is done by others.
    end(guest.id(), Signal::SIGTERM);
    assert!(guest.wait().expect("is ours").success(), "did not leave in peace");
    training.completes();
    ledger::check(&world.run, 150);
}

#[test]
fn a_guest_whose_certificate_is_revoked_is_cut_off_within_seconds() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let mut training = world.train(&[]);
    training.until_step(1);
    world.succeeds(&["cluster", "invite", "guest-1"]);
    let join = ["node", "--join", "guest-1.join", "--dir", "elsewhere"];
    let guest = world.starts(&join, "guest.stderr");
    let seen = |what: fn(&EventKind) -> bool| {
        move |world: &World| world.history().iter().any(|event| what(&event.kind)).then_some(())
    };
    let up =
        seen(|kind| matches!(kind, EventKind::NodeUp { peer, .. } if peer.as_str() == "guest-1"));
    training.until("the guest", || up(&world));
    world.succeeds(&["tls", "revoke", "guest-1"]);
    let down = seen(|kind| {
        matches!(kind, EventKind::NodeDown { peer, reason }
            if peer.as_str() == "guest-1" && reason.contains("revoked"))
    });
    training.until("the end of the guest", || down(&world));
    let heard = world.folder.path().join("guest.stderr");
    training.until("word of it", || {
        std::fs::read_to_string(&heard).is_ok_and(|said| said.contains("revoked")).then_some(())
    });
    // The others go on.
    training.until_step(world.steps() + 2);
    end(guest.id(), Signal::SIGTERM);
    let mut guest = guest;
    guest.wait().expect("is ours");
    until_gone(&[guest.id()]);
}

#[test]
fn a_second_guest_of_a_name_is_refused_while_the_first_works_and_let_in_after_it() {
    let world = World::new();
    world.has_patience();
    world.configure("steps = 20", "steps = 100000");
    let mut training = world.train(&[]);
    training.until_step(1);
    world.succeeds(&["cluster", "invite", "guest-1"]);
    let join =
        |dir: &'static str| ["node", "--join", "guest-1.join", "--dir", dir, "--threads", "1"];
    let count = |what: fn(&EventKind) -> bool| {
        world.history().iter().filter(|event| what(&event.kind)).count()
    };
    let up: fn(&EventKind) -> bool =
        |kind| matches!(kind, EventKind::NodeUp { peer, .. } if peer.as_str() == "guest-1");
    let down: fn(&EventKind) -> bool =
        |kind| matches!(kind, EventKind::NodeDown { peer, .. } if peer.as_str() == "guest-1");
    let work: fn(&EventKind) -> bool =
        |kind| matches!(kind, EventKind::Dispatched { to, .. } if to.as_str() == "guest-1");
    let mut first = world.starts(&join("elsewhere"), "first.stderr");
    training.until("the first", || (count(up) == 1).then_some(()));
    // The same file in another folder: another process of the same name.
    let mut second = world.starts(&join("another"), "second.stderr");
    let heard = world.folder.path().join("second.stderr");
    let said = training.until("a refusal", || {
        let said = std::fs::read_to_string(&heard).ok()?;
        said.contains("another guest-1 is connected").then_some(said)
    });
    assert!(said.contains("no two nodes may have one name"), "{said}");
    // The first holds four: more than that come to it as it brings them back.
    let before = count(work);
    training.until("work for the first", || (count(work) > before + 8).then_some(()));
    assert_eq!((count(up), count(down)), (1, 0), "it was dropped for the other");
    end(first.id(), Signal::SIGTERM);
    assert!(first.wait().expect("is ours").success(), "did not leave in peace");
    training.until("the second", || (count(up) == 2).then_some(()));
    end(second.id(), Signal::SIGTERM);
    assert!(second.wait().expect("is ours").success(), "did not leave in peace");
    training.until_step(world.steps() + 1);
}

#[test]
fn an_invitation_that_is_none_is_named() {
    let world = World::new();
    std::fs::write(world.folder.path().join("no.join"), "hello").expect("writable");
    let (code, said) = world.refused(&["node", "--join", "no.join"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no.join is no invitation"), "{said}");
    let (code, said) = world.refused(&["cluster", "invite", "guest-1"]);
    assert_eq!(code, 2, "{said}");
    let (code, said) = world.refused(&["tls", "list"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("has no authority"), "{said}");
}

#[test]
fn a_guest_joins_with_a_token_once_and_comes_back_with_what_it_got() {
    let world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let mut training = world.train(&[]);
    training.until_step(1);
    let output = world.crrl(&["cluster", "invite", "guest-1", "--token"]);
    let token = String::from_utf8(output.stdout).expect("text").trim().to_owned();
    assert!(token.starts_with("crrl1"), "{token}");
    let join = ["node", "--join", &token, "--dir", "elsewhere", "--threads", "1"];
    let seen = |what: &str, n: usize| {
        let ups = world.history().into_iter().filter(
            |event| matches!(&event.kind, EventKind::NodeUp { peer, .. } if peer.as_str() == what),
        );
        (ups.count() >= n).then_some(())
    };
    for life in 1..=2 {
        let mut guest = world.starts(&join, "guest.stderr");
        training.until("the guest", || seen("guest-1", life));
        end(guest.id(), Signal::SIGTERM);
        assert!(guest.wait().expect("is ours").success(), "did not leave in peace");
    }
    let key = std::fs::read_to_string(world.folder.path().join("elsewhere/tls/guest-1.key"));
    assert!(key.expect("made there").contains("PRIVATE KEY"));
    assert!(!world.run.tls().join("guest-1.key").exists(), "the key has travelled");
    // Somebody else with the same token.
    let other = ["node", "--join", &token, "--dir", "another", "--threads", "1"];
    let (code, said) = world.refused(&other);
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("was used already"), "{said}");
    let (code, said) = world.refused(&["node", "--join", &token[..40]]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("cut or mistyped") && said.contains("--token"), "{said}");
    training.until_step(world.steps() + 1);
}
