//! What a sandbox may use, and how it is started.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Wall time of one command; then everything it started is killed.
    pub command_time_max: Duration,
    /// CPU time of one process, in seconds.
    pub cpu_time_max_s: u64,
    /// Address space of one process, and memory of all of them together, swapped pages and page
    /// tables too, in bytes. The sum is looked at every 20 ms while a command runs.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub processes_max: u64,
    /// Size of one file, in bytes.
    pub file_bytes: u64,
    /// Size of everything written: repository, home and `/tmp` together, in bytes. It is memory.
    pub disk_bytes: u64,
    /// Files and folders at once.
    pub inodes_max: u64,
    /// Descriptors of one process.
    pub descriptors_max: u64,
    /// Output of one command that is kept, in bytes; the rest is counted and dropped.
    pub output_bytes: usize,
    /// Bytes of changed files that are read back at most.
    pub export_bytes: usize,
    /// Changed files that are read back at most.
    pub export_files_max: usize,
    /// Bytes of a diff.
    pub diff_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_time_max: Duration::from_secs(10),
            cpu_time_max_s: 10,
            memory_bytes: 512 << 20,
            processes_max: 64,
            file_bytes: 16 << 20,
            disk_bytes: 64 << 20,
            inodes_max: 16_384,
            descriptors_max: 256,
            output_bytes: 64 << 10,
            export_bytes: 4 << 20,
            export_files_max: 256,
            diff_bytes: 1 << 20,
        }
    }
}

/// How sandboxes are made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// What each may use.
    pub limits: Limits,
    /// The program that is started with `sandbox-launch` as its argument and then calls
    /// [`crate::launcher::main`]. `None`: the running program.
    pub launcher: Option<PathBuf>,
    /// Go on with no isolation where a layer cannot be had: whatever the policy types then runs
    /// as you, on your files and your network. Limits of time and size of single processes hold.
    pub run_without_isolation: bool,
}
