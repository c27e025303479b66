//! What nodes wrote, and go on writing.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use crrl_cluster::{RunDir, host};

use super::LOOK_EVERY;
use crate::commands::failure::Coded;

/// Bytes of a log that `logs` shows without `-f`, and that it begins with.
const LOG_BYTES: u64 = 16 << 10;

pub(super) fn run(run: &RunDir, wanted: &[String], follow: bool) -> anyhow::Result<ExitCode> {
    let state = host::state(run).with_context(|| {
        format!("{} has no logs: it was never brought up", run.path().display())
    })?;
    let mut known: Vec<String> = state.nodes.into_iter().map(|node| node.name).collect();
    known.push("host".into());
    if let Some(wrong) = wanted.iter().find(|name| !known.contains(name)) {
        let hint = if wrong.ends_with(".toml") {
            "; a configuration file is given with --file here, -f follows"
        } else {
            ""
        };
        return Err(Coded::usage(format!(
            "no node {wrong:?}; there are {}{hint}",
            known.join(", ")
        )));
    }
    let shown = known.into_iter().filter(|name| wanted.is_empty() || wanted.contains(name));
    let mut tails: Vec<Tail> = shown.map(|name| Tail::new(run.log(&name), name)).collect();
    let label = tails.len() > 1;
    loop {
        let mut out = std::io::stdout().lock();
        for tail in &mut tails {
            tail.print(&mut out, label)?;
        }
        out.flush()?;
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        drop(out);
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A log that is read as it grows.
struct Tail {
    path: PathBuf,
    name: String,
    offset: Option<u64>,
    partial: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf, name: String) -> Self {
        Self { path, name, offset: None, partial: Vec::new() }
    }

    fn print(&mut self, out: &mut impl std::io::Write, label: bool) -> anyhow::Result<()> {
        let bytes = self.read().with_context(|| format!("cannot read {}", self.path.display()))?;
        self.partial.extend_from_slice(&bytes);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(());
        };
        let rest = self.partial.split_off(end + 1);
        for line in String::from_utf8_lossy(&self.partial).lines() {
            if label {
                writeln!(out, "{:<16} {line}", self.name)?;
            } else {
                writeln!(out, "{line}")?;
            }
        }
        self.partial = rest;
        Ok(())
    }

    /// What came since the last look, at most 1 MiB; a file that got shorter begins anew.
    fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let mut file = match std::fs::File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let len = file.metadata()?.len();
        let first = self.offset.is_none();
        let start = match self.offset {
            None => len.saturating_sub(LOG_BYTES),
            Some(offset) if offset > len => 0,
            Some(offset) => offset,
        };
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(1 << 20).read_to_end(&mut bytes)?;
        self.offset = Some(start + bytes.len() as u64);
        if first && start > 0 {
            // Begin with a whole line.
            let begin = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            bytes.drain(..begin);
        }
        Ok(bytes)
    }
}
