//! `environment.jsonl`: on what a run was started, one JSON object for each start.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// Name of the file in a run's folder.
pub const ENVIRONMENT_FILE: &str = "environment.jsonl";
/// Starts that are kept; the oldest go.
const STARTS_MAX: usize = 64;
/// Bytes of the file that are read.
const BYTES_MAX: u64 = 256 << 10;
/// Characters of what the system says of itself.
const CHARS_MAX: usize = 200;

/// The program and the machine of one start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Version of the program.
    pub version: String,
    /// BLAKE3 of the program's file, its first digits; empty where it cannot be read.
    pub program: String,
    /// The operating system's name.
    pub system: String,
    /// Version of the kernel.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// Hardware threads this program may use.
    pub cores: u64,
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// The GPUs, where one was asked for.
    pub gpu: Option<String>,
}

impl Environment {
    /// This machine, as far as it says what it is.
    #[must_use]
    pub fn here(at_ms: u64, version: &str, program: String, gpu: Option<String>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let kib: u64 = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .unwrap_or(0);
        let os = read("/etc/os-release");
        let system = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Self {
            at_ms,
            version: version.to_owned(),
            program,
            system: short(system.map_or(std::env::consts::OS, |name| name.trim_matches('"'))),
            kernel: short(read("/proc/sys/kernel/osrelease").trim()),
            cpu: short(&field(&read("/proc/cpuinfo"), "model name").unwrap_or_default()),
            cores: cores as u64,
            memory_bytes: kib.saturating_mul(1024),
            gpu: gpu.map(|gpu| short(&gpu)),
        }
    }

    /// Writes it down after the starts before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&self, folder: &Path) -> Result<(), StoreError> {
        let mut starts = read(folder);
        starts.push(self.clone());
        let path = folder.join(ENVIRONMENT_FILE);
        let refuse = |error: std::io::Error| StoreError::of_file(&path, &error);
        let from = starts.len().saturating_sub(STARTS_MAX);
        let mut text = Vec::new();
        for start in &starts[from..] {
            serde_json::to_writer(&mut text, start).map_err(|error| refuse(error.into()))?;
            text.push(b'\n');
        }
        let beside = folder.join(".environment.jsonl");
        let written = || -> std::io::Result<()> {
            fs::File::create(&beside)?.write_all(&text)?;
            fs::rename(&beside, &path)
        };
        written().map_err(refuse)
    }
}

/// The starts of a run, in order; lines that are none are left out.
#[must_use]
pub fn read(folder: &Path) -> Vec<Environment> {
    let Ok(file) = fs::File::open(folder.join(ENVIRONMENT_FILE)) else { return Vec::new() };
    let lines = BufReader::new(file.take(BYTES_MAX)).lines().map_while(Result::ok);
    let starts = lines.filter_map(|line| serde_json::from_str(&line).ok());
    starts.take(STARTS_MAX).collect()
}

/// `name : value` or `name: value`, a line.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn short(text: &str) -> String {
    text.chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_kept_in_order_and_the_oldest_go() {
        let folder = tempfile::tempdir().expect("a folder");
        for at_ms in 0..STARTS_MAX as u64 + 3 {
            let start = Environment::here(at_ms, "9.9.9", "abc".into(), None);
            start.append(folder.path()).expect("writable");
        }
        let starts = read(folder.path());
        assert_eq!((starts.len(), starts[0].at_ms), (STARTS_MAX, 3));
        let last = starts.last().expect("many");
        assert!(last.cores >= 1 && last.version == "9.9.9" && !last.system.is_empty());
        fs::write(folder.path().join(ENVIRONMENT_FILE), "{\"cores\": 3}\ntorn").expect("a file");
        assert_eq!(read(folder.path()), [Environment { cores: 3, ..Environment::default() }]);
    }
}
