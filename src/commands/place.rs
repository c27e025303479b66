//! Which run a command is about: the one of a configuration file, or the one in a folder.

use std::path::{Path, PathBuf};

use crrl_cluster::{RunDir, host};
use crrl_config::{ClusterConfig, Overrides};

use super::failure::{Coded, say};
use crate::run::absolute;

/// Where a configuration is looked for.
const FILE: &str = "cluster.toml";

/// Which run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Configuration file of the cluster.
    #[arg(short = 'f', long, global = true, default_value = FILE, value_name = "FILE")]
    file: PathBuf,
    /// Override one option; may be given several times.
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Folder of the run, instead of a configuration file.
    #[arg(long, global = true, value_name = "DIR", conflicts_with_all = ["file", "set"])]
    run: Option<PathBuf>,
}

impl Place {
    /// Of a command whose `-f` means something else.
    pub(crate) fn of(file: PathBuf, run: Option<PathBuf>) -> Self {
        Self { file, set: Vec::new(), run }
    }

    /// The folder of the run.
    pub(crate) fn run_dir(&self) -> anyhow::Result<RunDir> {
        if let Some(dir) = &self.run {
            return Ok(RunDir::new(absolute(dir)));
        }
        let mut overrides = Overrides::from_environment(std::env::vars());
        for text in &self.set {
            overrides.flag(text)?;
        }
        Ok(RunDir::new(absolute(&crrl_config::load(&self.file, &overrides)?.run.dir)))
    }

    /// The folder of the run, for a command that looks. Where nobody named one, it is the default's, or
    /// one beside it if only that is up; where the default's is no run, the newest. Which is said.
    ///
    /// # Errors
    /// As [`Place::run_dir`]; several runs are up.
    pub(crate) fn watched(&self) -> anyhow::Result<RunDir> {
        let told = self.run_dir();
        let usual = RunDir::new(absolute(&ClusterConfig::default().run.dir));
        let is_named = self.run.is_some() || !self.set.is_empty() || self.file != Path::new(FILE);
        let is_usual = told.as_ref().map_or(!self.file.exists(), |run| *run == usual);
        let Some(runs) = usual.path().parent() else { return told };
        if is_named || !is_usual {
            return told;
        }
        let up = up_in(runs);
        if up.contains(&usual) {
            return Ok(usual);
        }
        match &up[..] {
            [] => match newest_in(runs).filter(|_| !usual.config_path().is_file()) {
                Some(run) => {
                    say(&format!("no run is up; {} is the newest", run.path().display()));
                    Ok(run)
                }
                None => told,
            },
            [run] => {
                say(&format!("{} is the run that is up", run.path().display()));
                Ok(run.clone())
            }
            several => {
                let folders = several.iter().map(|run| run.path().display().to_string());
                let folders = folders.collect::<Vec<_>>().join(", ");
                Err(Coded::usage(format!("several runs are up; name one with --run: {folders}")))
            }
        }
    }
}

/// That no cluster is up in a run's folder, for a command that changes one; and which are up beside it.
pub(crate) fn not_up(run: &RunDir) -> String {
    let mut said = format!("no cluster is up in {}", run.path().display());
    for other in run.path().parent().map(up_in).unwrap_or_default() {
        said.push_str(&format!("\n  this one is: --run {}", other.path().display()));
    }
    said
}

/// Runs in a folder, by name.
fn runs_in(folder: &Path) -> Vec<RunDir> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut runs: Vec<RunDir> = entries.map(|entry| RunDir::new(entry.path())).collect();
    runs.retain(|run| run.config_path().is_file());
    runs.sort_by(|a, b| a.path().cmp(b.path()));
    runs
}

/// Those whose processes are up on this machine.
fn up_in(folder: &Path) -> Vec<RunDir> {
    let mut runs = runs_in(folder);
    runs.retain(|run| host::host_pid(run).is_ok_and(|pid| pid.is_some()));
    runs
}

/// The one that was begun last.
fn newest_in(folder: &Path) -> Option<RunDir> {
    let begun =
        |run: &RunDir| std::fs::metadata(run.config_path()).and_then(|file| file.modified());
    runs_in(folder).into_iter().max_by_key(|run| begun(run).ok())
}

#[cfg(test)]
mod tests {
    use crrl_machine::Lock;

    use super::*;

    #[test]
    fn runs_that_are_up_are_found_and_others_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = |name: &str| {
            let run = RunDir::new(folder.path().join(name));
            std::fs::create_dir_all(run.path()).expect("writable");
            std::fs::write(run.config_path(), "").expect("writable");
            run
        };
        let (first, over, second) = (run("first"), run("over"), run("second"));
        std::fs::write(folder.path().join("a-file"), "").expect("writable");
        let hold = |run: &RunDir| Lock::take(&run.host_lock()).expect("free").expect("free");
        assert!(up_in(folder.path()).is_empty());
        let _held = hold(&second);
        assert_eq!(up_in(folder.path()), std::slice::from_ref(&second));
        let _held = hold(&first);
        assert_eq!(up_in(folder.path()), [first.clone(), second.clone()]);
        assert!(up_in(&folder.path().join("nowhere")).is_empty());
        let said = not_up(&over);
        for up in [&first, &second] {
            assert!(said.contains(&format!("--run {}", up.path().display())), "{said}");
        }
        let newest = || newest_in(folder.path()).map(|run| run.path().to_owned());
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        let config = std::fs::File::options().append(true).open(over.config_path());
        config.and_then(|file| file.set_modified(later)).expect("writable");
        assert_eq!(newest().as_deref(), Some(over.path()));
    }
}
