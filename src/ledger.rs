//! Going on with a run whose ledger is damaged, shared by `quickstart` and `train`.

use crrl_actors::restore::{self, Place, Report, RestoreError};
use crrl_cluster::RunDir;
use crrl_cluster::host::{self, Alone};
use crrl_config::Role;
use crrl_store::Copies;
use crrl_store::error::LAST_GOOD;

use crate::commands::failure::{Coded, host_error, say};
use crate::meter::{Meter, Quiet};
use crate::run::Run;

/// Ranges of lost episodes that are named; an audit names all.
const RANGES_MAX: usize = 8;

/// Which ledger a run goes on from.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Ledger {
    /// With --resume, for a damaged run.sqlite: put it aside and go on from its last good copy and the
    /// newest checkpoint.
    #[arg(long, value_name = "WHICH", requires = "resume")]
    ledger: Option<Which>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// The newest copy that is whole.
    LastGood,
}

impl Ledger {
    /// Restores the ledger of a run that is to be resumed, if that was asked for. `_alone` keeps others
    /// from bringing the run up meanwhile.
    ///
    /// # Errors
    /// It cannot be restored, or shows no damage; or it is missing or empty, and was not asked for.
    pub(crate) fn choose(self, run: &Run, quiet: Quiet, _alone: &Alone) -> anyhow::Result<()> {
        let folder = RunDir::new(&run.dir);
        match self.ledger {
            Some(Which::LastGood) => restore(run, &folder, quiet),
            // A coordinator would begin an empty one, which belongs to no checkpoint.
            None if Copies::new(folder.ledger_copies(), 1).outlive(&folder.store()) => {
                Err(Coded::usage(format!(
                    "{} is missing or empty; to go on from the last good copy of it: {} {LAST_GOOD}",
                    folder.store().display(),
                    run.resume
                )))
            }
            None => Ok(()),
        }
    }
}

fn restore(run: &Run, folder: &RunDir, quiet: Quiet) -> anyhow::Result<()> {
    if let Some(pid) = host::host_pid(folder).map_err(host_error)? {
        return Err(Coded::preflight(format!(
            "{} is up (host pid {pid}): take it down first: crrl cluster down",
            folder.path().display()
        )));
    }
    let nodes = run.config.nodes();
    let of_role = |role: Role| nodes.iter().find(|node| node.roles.contains(&role));
    let place = Place {
        coordinator: of_role(Role::Coordinator)
            .map_or("coordinator", |node| node.name.as_str())
            .into(),
        has_checkpoints: of_role(Role::Learner).is_none_or(crrl_config::Node::is_local),
    };
    let restoring = Meter::start(quiet, "restoring the ledger", "", 0);
    let restored = restore::restore(folder, &place);
    drop(restoring);
    match restored {
        Ok(report) => {
            for line in lines(folder, &report) {
                say(&line);
            }
            Ok(())
        }
        Err(error @ (RestoreError::Whole { .. } | RestoreError::NoCopy { .. })) => {
            Err(Coded::usage(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// What was done and what is lost, in plain words.
fn lines(folder: &RunDir, report: &Report) -> Vec<String> {
    let Report { damage, aside, copy, passed_over, restored, undone, unread } = report;
    let store = folder.store();
    let mut lines = vec![match aside {
        Some(aside) => format!(
            "ledger   {} was damaged ({damage}) and is put aside as {}",
            store.display(),
            aside.display()
        ),
        None => format!("ledger   {}: {damage}", store.display()),
    }];
    lines.extend(passed_over.iter().map(|why| format!("         passed over: {why}")));
    lines.push(format!(
        "         restored from its copy of step {}, and up to step {} from checkpoints and history; \
         nothing is trained on twice",
        copy.step, restored.step
    ));
    if let (Some(first), Some(last)) = (undone.first(), undone.last()) {
        lines.push(format!(
            "         no checkpoint of steps {first} to {last} loads: they are made again, from other \
             episodes"
        ));
    }
    if let Some(open) = restored.open {
        lines.push(format!(
            "         the learner's checkpoints are elsewhere: if it is past step {open}, what went into \
             the steps since is not known, and none that may have is trained on again"
        ));
    }
    if *unread > 0 {
        lines.push(format!("         {unread} lines of events.jsonl could not be read"));
    }
    if !restored.unknown.is_empty() {
        lines.push(format!(
            "         of {} steps it is not known any more which episodes went into them; none that \
             may have is trained on again",
            restored.unknown.len()
        ));
    }
    match restored.lost_count() {
        0 => lines.push("lost     no episode's record".to_owned()),
        lost => {
            let named = restored.lost_text();
            let mut parts: Vec<&str> = named.split(", ").take(RANGES_MAX).collect();
            if restored.lost.len() > RANGES_MAX {
                parts.push("...");
            }
            lines.push(format!(
                "lost     the records (tokens, turns) of {lost} episodes: {}",
                parts.join(", ")
            ));
            lines.push(format!(
                "         {} of them were trained on and count as such, the others are left out; crrl \
                 audit {} says so too",
                restored.lost_trained,
                folder.path().display()
            ));
        }
    }
    lines
}
