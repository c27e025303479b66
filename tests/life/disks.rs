//! Disks that are full, for a while or for good.

use std::io::Write;
use std::path::Path;

use crrl_cluster::host;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::skips::skipped;
use crate::world::World;
use crate::{MANY_STEPS, ledger};

/// A small disk at a folder.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path, size: &str) -> nix::Result<Self> {
        let options = format!("size={size}");
        let options = Some(options.as_str());
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), options).map(|()| Self(at))
    }

    /// Writes until nothing fits any more.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).expect("has room for a name");
        for size in [1 << 16, 1 << 12, 1 << 9] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Whoever still has a file open loses the name only.
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

fn small_disk(world: &World) -> Option<SmallDisk<'_>> {
    std::fs::create_dir_all(world.run.path()).expect("writable");
    match SmallDisk::mount(world.run.path(), "48m") {
        Ok(disk) => Some(disk),
        Err(error) => {
            skipped(&format!("a small disk cannot be mounted here (it takes root): {error}"));
            None
        }
    }
}

#[test]
fn a_disk_that_has_room_again_in_time_only_holds_the_run_up() {
    let world = World::long();
    let Some(disk) = small_disk(&world) else { return };
    let mut training = world.train(&[]);
    training.until_step(2);
    let ballast = disk.fill();
    // Its last words before the disk was full reached the log; what it says now, the board.
    training.until("a node that waits", || {
        let output = world.crrl(&["cluster", "status", "--json"]);
        String::from_utf8_lossy(&output.stdout).contains("waiting for room").then_some(())
    });
    let reached = world.steps();
    assert!(reached < MANY_STEPS, "filled too late to tell anything");
    std::fs::remove_file(ballast).expect("is there");
    training.completes();
    let state = host::state(&world.run).expect("was started");
    assert!(state.nodes.iter().all(|node| node.restarts == 0), "{state:?}");
    ledger::check_without_history(&world.run, MANY_STEPS);
}

#[test]
fn a_full_disk_ends_the_run_with_its_file_named_and_room_resumes_it() {
    let world = World::long();
    world.configure("idle_timeout_ms = 1500", "idle_timeout_ms = 1500\ndisk_wait_s = 0.5");
    let Some(disk) = small_disk(&world) else { return };
    let mut training = world.train(&[]);
    training.until_step(2);
    let ballast = disk.fill();
    let (code, said) = training.ended();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.to_lowercase().contains("no space left"), "{said}");
    assert!(said.contains(&world.run.path().display().to_string()), "{said}");
    assert!(said.contains("--resume"), "{said}");
    assert!(world.steps() < MANY_STEPS, "filled too late to tell anything");
    std::fs::remove_file(ballast).expect("is there");
    world.train(&["--resume"]).completes();
    ledger::check_without_history(&world.run, MANY_STEPS);
}
