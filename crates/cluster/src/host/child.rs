//! One node's process. It ends when the host does, however the host ends.

#![expect(
    unsafe_code,
    reason = "only between fork and exec can a process ask to die with its parent"
)]

use std::io;
use std::path::Path;
use std::process::Stdio;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use tokio::process::{Child, Command};

/// Starts `executable` with `arguments`. The kernel kills it when the calling *thread* ends, so this
/// must be called on the host's main thread.
///
/// # Errors
/// The system refuses.
pub fn spawn(executable: &Path, arguments: &[&std::ffi::OsStr]) -> io::Result<Child> {
    let parent = Pid::this();
    let mut command = Command::new(executable);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `prctl` and `getppid`
    // are plain system calls; nothing here allocates, locks or panics.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the request was made.
            if getppid() == parent { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
        });
    }
    command.spawn()
}
