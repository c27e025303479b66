//! Which run a command is about: the one of a configuration file, or the one in a folder.

use std::path::PathBuf;

use crrl_cluster::RunDir;
use crrl_config::Overrides;

use crate::run::absolute;

/// Which run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Configuration file of the cluster.
    #[arg(short = 'f', long, global = true, default_value = "cluster.toml", value_name = "FILE")]
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
}
