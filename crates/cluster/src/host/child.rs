//! One node's process. It ends when the host does, however the host ends.

#![expect(
    unsafe_code,
    reason = "only between fork and exec can a process ask to die with its parent"
)]

use std::io;
use std::path::Path;
use std::process::Stdio;

use crrl_config::Node;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use tokio::process::{Child, Command};

/// What a node's process may have of its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The GPU it sees; all of them if none.
    pub gpu: Option<u32>,
    /// Bytes of private memory; 0 sets no bound.
    pub memory_bytes: u64,
}

/// What a program that uses CUDA takes the GPUs it may see from.
pub(crate) const VISIBLE_GPUS: &str = "CUDA_VISIBLE_DEVICES";
/// In which order it numbers them: the driver's, which is not CUDA's own.
pub(crate) const GPU_ORDER: (&str, &str) = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID");

impl Bounds {
    /// Those of a node.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        Self { gpu: node.gpu, memory_bytes: node.memory_mib.saturating_mul(1 << 20) }
    }
}

/// Starts `executable` with `arguments`. The kernel kills it when the calling *thread* ends, so this
/// must be called on the host's main thread.
///
/// # Errors
/// The system refuses.
pub fn spawn(
    executable: &Path,
    arguments: &[&std::ffi::OsStr],
    bounds: Bounds,
) -> io::Result<Child> {
    let parent = Pid::this();
    let mut command = Command::new(executable);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(gpu) = bounds.gpu {
        command.env(GPU_ORDER.0, GPU_ORDER.1).env(VISIBLE_GPUS, gpu.to_string());
    }
    let memory = bounds.memory_bytes;
    let (_, hard) = getrlimit(Resource::RLIMIT_DATA)?;
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `prctl`, `setrlimit` and
    // `getppid` are plain system calls; nothing here allocates, locks or panics.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            if memory > 0 {
                // Only the bound that counts: a sandbox sets its own.
                setrlimit(Resource::RLIMIT_DATA, memory.min(hard), hard)?;
            }
            // The parent may have died before the request was made.
            if getppid() == parent { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
        });
    }
    command.spawn()
}
