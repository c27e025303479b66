//! Tasks that are handed out no more, and letting them out again.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use crrl_cluster::{OperatorClient, RunDir, host};
use crrl_store::{Op, Options, Reader, Writer};
use crrl_types::TaskId;

use crate::commands::failure::Coded;

pub(super) fn run(
    run: &RunDir,
    release: &[String],
    release_all: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let held = Reader::open(&run.store())
        .and_then(|reader| reader.quarantined())
        .map_err(|error| Coded::usage(error.to_string()))?;
    if release.is_empty() && !release_all {
        let mut out = std::io::stdout().lock();
        if json {
            let list: Vec<_> = held
                .iter()
                .map(|(task, reason)| serde_json::json!({ "task": task, "reason": reason }))
                .collect();
            writeln!(out, "{}", serde_json::Value::from(list))?;
        } else {
            for (task, reason) in &held {
                writeln!(out, "{task}  {reason}")?;
            }
            eprintln!("{} tasks in quarantine", held.len());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen: Vec<TaskId> = if release_all {
        held.into_iter().map(|(task, _)| task).collect()
    } else {
        let known = |name: &&String| !held.iter().any(|(task, _)| task.as_str() == name.as_str());
        if let Some(wrong) = release.iter().find(known) {
            return Err(Coded::usage(format!(
                "{wrong} is not in quarantine; crrl cluster quarantine --run {} lists what is",
                run.path().display()
            )));
        }
        release.iter().map(|name| name.as_str().into()).collect()
    };
    match host::host_pid(run)? {
        Some(_) => by_coordinator(run, &chosen)?,
        None => by_hand(run, &chosen)?,
    }
    for task in &chosen {
        eprintln!("{task} may be handed out again");
    }
    Ok(ExitCode::SUCCESS)
}

fn by_coordinator(run: &RunDir, tasks: &[TaskId]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = OperatorClient::connect(run).await?;
        for task in tasks {
            client.release(task).await?;
        }
        client.close().await;
        anyhow::Ok(())
    })
}

/// While nobody else writes to the store.
fn by_hand(run: &RunDir, tasks: &[TaskId]) -> anyhow::Result<()> {
    let (said, heard) = std::sync::mpsc::channel();
    let writer = Writer::start(&run.store(), Options::default(), move |outcome| {
        // Nobody is left to hear it once the command has ended.
        let _ = said.send(outcome);
    })?;
    writer.submit(tasks.iter().cloned().map(Op::Released).collect(), ())?;
    heard.recv().context("the store ended without a word")??;
    Ok(())
}
