//! The walls: namespaces, a private root, no privileges. Order matters; each step says why it is
//! where it is.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{
    Gid, Pid, Uid, chdir, getegid, geteuid, pivot_root, setgroups, sethostname, setresgid,
    setresuid,
};

use super::{Refused, filter, sys};
use crate::options::Limits;

/// User and group inside.
pub(super) const USER: u32 = 1000;
/// First of the host users that sandboxes of root run as: far from any account.
const HOST_USER_FIRST: u32 = 1_900_000_000;
/// Host user where that range is not mapped (root in a container).
const HOST_USER_NOBODY: u32 = 65_534;
/// Where the new root is put together; only this mount namespace sees it.
const NEW: &str = "/tmp";
/// Devices a program may expect, each with the host's device that takes its part. `zero` is `full`, which
/// reads the same and cannot be mapped: shared mappings of `zero` are memory that nothing bounds.
const DEVICES: [(&str, &str); 5] = [
    ("null", "null"),
    ("zero", "full"),
    ("full", "full"),
    ("random", "random"),
    ("urandom", "urandom"),
];

/// Which process this is after the walls were built.
pub(super) enum Side {
    /// Process 1 of the sandbox.
    Inside,
    /// The parent, which only waits.
    Outside(Pid),
}

/// Builds the walls.
pub(super) fn enter(limits: &Limits) -> Result<Side, Refused> {
    leave_root()?;
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(Refused::because("user namespace", "unshare(CLONE_NEWUSER)"))?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{USER} {user} 1")),
        ("gid_map", format!("{USER} {group} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| Refused {
            layer: "user namespace",
            reason: format!("write /proc/self/{file}: {error}"),
        })?;
    }
    let rest = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(rest).map_err(Refused::because("namespaces", "unshare"))?;
    match sys::fork().map_err(Refused::because("process namespace", "fork"))? {
        Some(child) => Ok(Side::Outside(child)),
        None => inside(limits).map(|()| Side::Inside),
    }
}

/// Waits for process 1 and gives its exit status.
pub(super) fn wait(child: Pid) -> i32 {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Err(nix::Error::EINTR) => {}
            _ => return 1,
        }
    }
}

/// Root on the host becomes a user that owns nothing before anything else happens.
fn leave_root() -> Result<(), Refused> {
    if !geteuid().is_root() || !is_mapped(HOST_USER_NOBODY) {
        return Ok(());
    }
    let refused = |what| Refused::because("unprivileged user", what);
    setgroups(&[]).map_err(refused("setgroups"))?;
    let wanted = HOST_USER_FIRST + std::process::id();
    let become_user = |id: u32| {
        let group = Gid::from_raw(id);
        setresgid(group, group, group)?;
        let user = Uid::from_raw(id);
        setresuid(user, user, user)
    };
    become_user(wanted).or_else(|_| become_user(HOST_USER_NOBODY)).map_err(refused("setresuid"))?;
    // Or /proc/self/uid_map would stay root's.
    prctl::set_dumpable(true).map_err(refused("prctl(PR_SET_DUMPABLE)"))
}

/// Whether a user exists here. Root of a container without other users is an ordinary user of the
/// host already.
fn is_mapped(user: u32) -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let fields: Vec<u64> = line.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        matches!(fields[..], [first, _, n] if (first..first + n).contains(&u64::from(user)))
    })
}

fn inside(limits: &Limits) -> Result<(), Refused> {
    // If the parent dies, so does this, and with process 1 everything in its namespace.
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(Refused::because("process namespace", "prctl(PR_SET_PDEATHSIG)"))?;
    sethostname("sandbox").map_err(Refused::because("namespaces", "sethostname"))?;
    root(limits)?;
    prctl::set_no_new_privs().map_err(Refused::because("no_new_privs", "prctl"))?;
    filter::landlock()?;
    sys::drop_capabilities().map_err(Refused::because("capabilities", "capset"))?;
    // Same user inside: this keeps the agent's processes from reading or changing process 1.
    prctl::set_dumpable(false).map_err(Refused::because("capabilities", "PR_SET_DUMPABLE"))?;
    filter::seccomp()
}

fn root(limits: &Limits) -> Result<(), Refused> {
    let none: Option<&str> = None;
    let tight = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // Nothing of ours may reach the host's mounts, whatever the distribution shares.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(Refused::because("mounts", "make mounts private"))?;
    mount(
        Some("root"),
        NEW,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("size=1m,nr_inodes=256,mode=755"),
    )
    .map_err(Refused::because("mounts", "mount tmpfs"))?;
    let new = Path::new(NEW);
    for folder in ["usr", "etc", "dev", "proc", "repo", "tmp", "home", "home/agent", "work"] {
        made(fs::create_dir(new.join(folder)))?;
    }
    bind(Path::new("/usr"), &new.join("usr"))?;
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let (host, ours) = (Path::new("/").join(name), new.join(name));
        if let Ok(target) = fs::read_link(&host) {
            made(symlink(target, &ours))?;
        } else if host.is_dir() {
            made(fs::create_dir(&ours))?;
            bind(&host, &ours)?;
        }
    }
    made(fs::write(
        new.join("etc/passwd"),
        format!("agent:x:{USER}:{USER}::/home/agent:/bin/rbash\n"),
    ))?;
    made(fs::write(new.join("etc/group"), format!("agent:x:{USER}:\n")))?;
    made(fs::write(new.join("etc/hosts"), "127.0.0.1 localhost\n"))?;
    for name in ["ld.so.cache", "alternatives"] {
        let (host, ours) = (Path::new("/etc").join(name), new.join("etc").join(name));
        if host.is_dir() {
            made(fs::create_dir(&ours))?;
            bind(&host, &ours)?;
        } else if host.is_file() {
            made(File::create(&ours).map(drop))?;
            bind(&host, &ours)?;
        }
    }
    for (name, device) in DEVICES {
        let (host, ours) = (Path::new("/dev").join(device), new.join("dev").join(name));
        made(File::create(&ours).map(drop))?;
        mount(Some(&host), &ours, none, MsFlags::MS_BIND, none)
            .map_err(Refused::because("mounts", "bind a device"))?;
    }
    for (name, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        made(symlink(target, new.join("dev").join(name)))?;
    }
    mount(Some("proc"), &new.join("proc"), Some("proc"), tight | MsFlags::MS_NOEXEC, none)
        .map_err(Refused::because("private /proc", "mount proc"))?;
    // One tmpfs for all that may be written, so that one size bounds it.
    let size = format!("size={},nr_inodes={},mode=755", limits.disk_bytes, limits.inodes_max);
    let work = new.join("work");
    mount(Some("work"), &work, Some("tmpfs"), tight, Some(size.as_str()))
        .map_err(Refused::because("mounts", "mount tmpfs"))?;
    for (name, at) in [("repo", "repo"), ("tmp", "tmp"), ("home", "home/agent")] {
        made(fs::create_dir(work.join(name)))?;
        mount(Some(&work.join(name)), &new.join(at), none, MsFlags::MS_BIND, none)
            .map_err(Refused::because("mounts", "bind a folder"))?;
    }
    umount2(&work, MntFlags::MNT_DETACH).map_err(Refused::because("mounts", "umount work"))?;
    made(fs::remove_dir(&work))?;
    pivot(new)
}

/// Changes the root; the host's files are out of reach afterwards.
fn pivot(new: &Path) -> Result<(), Refused> {
    let refused = |what| Refused::because("mounts", what);
    chdir(new).map_err(refused("chdir"))?;
    pivot_root(".", ".").map_err(refused("pivot_root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(refused("umount the host's root"))?;
    chdir("/").map_err(refused("chdir"))?;
    let none: Option<&str> = None;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    mount(none, "/", none, flags, none).map_err(refused("make the root read-only"))?;
    mount(none, "/proc", none, flags | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, none)
        .map_err(refused("make /proc read-only"))?;
    chdir("/repo").map_err(refused("chdir /repo"))
}

/// A folder or file of the host, read-only with all that is mounted in it.
fn bind(host: &Path, ours: &Path) -> Result<(), Refused> {
    let none: Option<&str> = None;
    mount(Some(host), ours, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .map_err(Refused::because("mounts", &format!("bind {}", host.display())))?;
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    sys::restrict_mount(ours, set).map_err(Refused::because("mounts", "mount_setattr (Linux 5.12)"))
}

fn made(result: std::io::Result<()>) -> Result<(), Refused> {
    result.map_err(|error| Refused { layer: "mounts", reason: format!("private root: {error}") })
}
