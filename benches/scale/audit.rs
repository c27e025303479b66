//! What an audit of a long run takes, in a process of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use crrl_actors::evidence;
use crrl_cluster::RunDir;
use serde_json::{Value, json};

use crate::{made_run, usage};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Episodes, one run after the other.
    #[arg(long, value_delimiter = ',', default_value = "20000,200000")]
    episodes: Vec<u64>,
    /// Tokens of each transcript.
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// Where run folders are made.
    #[arg(long, default_value = "target/scale")]
    folder: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OfArgs {
    /// The run's folder.
    run: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.folder)?;
    for episodes in &args.episodes {
        let folder = tempfile::tempdir_in(&args.folder)?;
        let began = Instant::now();
        let run = made_run::make(folder.path(), *episodes, args.tokens)?;
        let made_s = began.elapsed().as_secs_f64();
        let size = |path: PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
        let audited = Command::new(std::env::current_exe()?)
            .arg("audit-of")
            .arg(run.path())
            .output()
            .context("the audit cannot be started")?;
        let of: Value = serde_json::from_slice(&audited.stdout)
            .with_context(|| String::from_utf8_lossy(&audited.stderr).into_owned())?;
        println!(
            "{}",
            json!({
                "bench": "audit", "episodes": episodes, "tokens": args.tokens, "made_s": made_s,
                "store_bytes_per_episode": size(run.store()) as f64 / *episodes as f64,
                "history_bytes_per_episode": size(run.events()) as f64 / *episodes as f64,
                "audit": of,
            })
        );
    }
    Ok(())
}

/// Audits, and says what it took.
pub(crate) fn of(args: &OfArgs) -> anyhow::Result<()> {
    let before_kib = usage::resident_kib("self");
    let began = Instant::now();
    let verdict = evidence::judge(&RunDir::new(&args.run))?;
    println!(
        "{}",
        json!({
            "ok": verdict.ok, "seconds": began.elapsed().as_secs_f64(),
            "peak_mib": usage::peak_kib() as f64 / 1024.0,
            "grew_mib": (usage::peak_kib() - before_kib) as f64 / 1024.0,
        })
    );
    Ok(())
}
