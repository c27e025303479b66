#![expect(unsafe_code, reason = "system calls that have no safe wrapper")]
//! System calls without a safe wrapper.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{ForkResult, Pid};

/// Closes every descriptor from `first` on.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: called first thing in a process that has opened nothing yet.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Points standard input and output at /dev/null.
pub(super) fn null_standard() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for standard in [0, 1] {
        // SAFETY: both are open descriptors; nobody holds a borrowed handle of the old ones.
        check(unsafe { libc::dup2(null.as_raw_fd(), standard) }.into())?;
    }
    Ok(())
}

/// Forks; `None` in the child.
pub(super) fn fork() -> nix::Result<Option<Pid>> {
    // SAFETY: the launcher has one thread, so the child is in a sound state.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Attributes of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Sets attributes on a mount and everything below it.
pub(super) fn restrict_mount(at: &Path, set: u64) -> nix::Result<()> {
    let path = CString::new(at.as_os_str().as_encoded_bytes()).map_err(|_| nix::Error::EINVAL)?;
    let attr = MountAttr { set, clear: 0, propagation: 0, userns: 0 };
    // SAFETY: path and attributes live through the call, and the size is that of the struct.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    nix::Error::result(done).map(drop)
}

/// Gives up every capability, for good.
pub(super) fn drop_capabilities() -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    for capability in 0..64 {
        // SAFETY: plain integers. Fails from the last capability of this kernel on.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [0_u32; 6];
    // SAFETY: version 3 takes two structs of three words each, all zero here.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    nix::Error::result(done).map(drop)
}

/// A descriptor that becomes readable when a process ends.
pub(super) fn watch(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers; the descriptor is new and nobody else's.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Makes a command start in a session of its own under these limits. `limits` are pairs of
/// resource and value.
pub(super) fn confine(command: &mut Command, limits: Vec<(libc::__rlimit_resource_t, u64)>) {
    let confine = move || {
        for &(resource, value) in &limits {
            let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
            // SAFETY: the struct lives through the call.
            check(unsafe { libc::setrlimit(resource, &raw const limit) }.into())?;
        }
        // SAFETY: plain integers.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into())?;
        check(unsafe { libc::setsid() }.into()).map(drop)
    };
    // SAFETY: only async-signal-safe calls between fork and exec; nothing is allocated.
    unsafe { command.pre_exec(confine) };
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
