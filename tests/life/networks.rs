//! A run over a network of its own: the cluster in one network namespace, a guest in another, and between
//! them a cable that is pulled, or drops what goes one way, or is slow and loses a share.
//!
//! Nothing of the program is told of it: packets are dropped by the kernel.

use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use crrl_types::{Event, EventKind};
use nix::sys::signal::Signal;

use crate::skips::skipped;
use crate::world::{Training, World, end, until_gone};

const GUEST: &str = "guest-1";
/// Where the cluster is, and where the guest.
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// Two network namespaces with a cable between them; gone when dropped.
struct Cable {
    names: [String; 2],
}

impl Cable {
    /// `None`, and why, where such a thing cannot be had.
    fn new() -> Option<Self> {
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let name = |side: &str| format!("crrl-{}-{number}-{side}", std::process::id());
        let cable = Self { names: [name("a"), name("b")] };
        let made = cable.make();
        let needs = "no network namespaces (they take root and the package iproute2)";
        made.map_err(|why| skipped(&format!("{needs}: {why}"))).ok()?;
        Some(cable)
    }

    fn make(&self) -> Result<(), String> {
        let [a, b] = &self.names;
        for name in &self.names {
            ran("ip", &["netns", "add", name])?;
            ran("ip", &["-n", name, "link", "set", "lo", "up"])?;
        }
        let cable =
            ["link", "add", "v0", "netns", a, "type", "veth", "peer", "name", "v1", "netns", b];
        ran("ip", &cable)?;
        for ((name, end), address) in self.names.iter().zip(["v0", "v1"]).zip(ADDRESSES) {
            ran("ip", &["-n", name, "addr", "add", &format!("{address}/24"), "dev", end])?;
            ran("ip", &["-n", name, "link", "set", end, "up"])?;
        }
        Ok(())
    }

    /// Pulls the guest's end of the cable, or puts it back.
    fn plugged(&self, is: bool) {
        let state = if is { "up" } else { "down" };
        ran("ip", &["-n", &self.names[1], "link", "set", "v1", state]).expect("is there");
    }

    /// Drops what the guest gets (`input`) or sends (`output`), all of it or so many of a hundred.
    fn drops(&self, hook: &str, of_a_hundred: u32) -> Result<(), String> {
        let which = match of_a_hundred {
            100 => String::new(),
            share => format!("numgen random mod 100 < {share}"),
        };
        let chain = format!("type filter hook {hook} priority 0; {which} drop;");
        let rules = format!("table inet crrl {{ chain {hook} {{ {chain} }}; }}");
        ran("ip", &["netns", "exec", &self.names[1], "nft", &rules])
    }

    fn drops_nothing(&self) {
        let clear = ["netns", "exec", &self.names[1], "nft", "flush", "ruleset"];
        ran("ip", &clear).expect("was set");
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ran("ip", &["netns", "del", name]);
        }
    }
}

fn ran(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A guest that works at the other end of a cable.
struct Guest(Child);

impl Guest {
    fn joins(training: &mut Training<'_>, cable: &Cable) -> Self {
        let world = training.world();
        world.succeeds(&["cluster", "invite", GUEST]);
        let join = ["node", "--join", "guest-1.join", "--dir", "elsewhere", "--threads", "1"];
        let guest = world.starts_in(&cable.names[1], &join, "guest.stderr");
        until_work(training, 0);
        Self(guest)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let pid = self.0.id();
        end(pid, Signal::SIGKILL);
        let _ = self.0.wait();
        until_gone(&[pid]);
    }
}

/// Events that a look at them keeps.
fn count(events: &[Event], keep: impl Fn(&EventKind) -> bool) -> usize {
    events.iter().filter(|event| keep(&event.kind)).count()
}

fn works(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Dispatched { to, .. } if to.as_str() == GUEST)
}

fn is_missed(kind: &EventKind) -> bool {
    matches!(kind, EventKind::NodeDown { peer, .. } if peer.as_str() == GUEST)
}

/// Waits until the guest was handed more episodes than it can hold: results come back from it.
fn until_work(training: &mut Training<'_>, before: usize) {
    let world = training.world();
    // It holds four.
    training.until("work for the guest", || {
        (count(&world.history(), works) > before + 8).then_some(())
    });
}

/// Cuts the guest off, waits until it is missed, lets it back, waits until it works again.
fn cut_off(training: &mut Training<'_>, cut: impl FnOnce(), mend: impl FnOnce()) {
    let world = training.world();
    let missed = count(&world.history(), is_missed);
    cut();
    training.until("the loss of the guest", || {
        (count(&world.history(), is_missed) > missed).then_some(())
    });
    let reached = world.steps();
    training.until_step(reached + 2);
    let before = count(&world.history(), works);
    mend();
    until_work(training, before);
}

fn world_in(cable: &Cable) -> World {
    let mut world = World::new();
    world.configure("steps = 20", "steps = 100000");
    let listen = format!("idle_timeout_ms = 1500\nlisten = \"{}:0\"", ADDRESSES[0]);
    world.configure("idle_timeout_ms = 1500", &listen);
    world.moves_into(&cable.names[0]);
    world
}

fn ends_well(training: Training<'_>) {
    let world = training.world();
    training.signal(Signal::SIGINT);
    let (code, said) = training.ended();
    assert_eq!(code, Some(130), "{said}");
    world.succeeds(&["audit", "run"]);
}

#[test]
fn a_guest_whose_cable_is_pulled_or_works_one_way_only_is_missed_and_comes_back() {
    let Some(cable) = Cable::new() else { return };
    let world = world_in(&cable);
    let mut training = world.train(&[]);
    training.until_step(1);
    let _guest = Guest::joins(&mut training, &cable);
    cut_off(&mut training, || cable.plugged(false), || cable.plugged(true));
    if let Err(why) = cable.drops("input", 1) {
        skipped(&format!("no one-way partitions (package nftables): {why}"));
        return ends_well(training);
    }
    cable.drops_nothing();
    // It is heard and hears nothing; then it hears everything and is not heard.
    for hook in ["input", "output"] {
        let cut = || cable.drops(hook, 100).expect("worked before");
        cut_off(&mut training, cut, || cable.drops_nothing());
    }
    ends_well(training);
}

#[test]
fn a_guest_at_the_end_of_a_slow_cable_that_loses_a_share_works_on() {
    let Some(cable) = Cable::new() else { return };
    let world = world_in(&cable);
    let mut training = world.train(&[]);
    training.until_step(1);
    let _guest = Guest::joins(&mut training, &cable);
    for hook in ["input", "output"] {
        if let Err(why) = cable.drops(hook, 10) {
            skipped(&format!("no lost packets (package nftables): {why}"));
            return ends_well(training);
        }
    }
    // A bucket: what is sent faster waits, up to half a second.
    let slow = ["-n", &cable.names[1], "qdisc", "add", "dev", "v1", "root", "tbf"];
    let slow = [&slow[..], &["rate", "2mbit", "burst", "16kb", "latency", "500ms"]].concat();
    if let Err(why) = ran("tc", &slow) {
        skipped(&format!("no slow cable (package iproute2, kernel module sch_tbf): {why}"));
    }
    let before = count(&world.history(), works);
    let reached = world.steps();
    until_work(&mut training, before);
    training.until_step(reached + 3);
    ends_well(training);
}
