//! `crrl config`: write a commented cluster.toml, or print the resolved configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use crrl_cluster::RunDir;
use crrl_config::{ClusterConfig, ConfigError, Overrides, renew, unsayable};

use super::failure::Coded;

/// Every option, commented, at its default.
const COMMENTED: &str = include_str!("../../cluster.toml");

/// Arguments of `crrl config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a cluster.toml with every option commented at its default.
    Init {
        /// Where to.
        #[arg(default_value = "cluster.toml")]
        path: PathBuf,
    },
    /// Print the configuration that comes of file, environment and flags.
    Show(Source),
}

/// Where a configuration comes from; shared by every command that takes one.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Source {
    /// Configuration file.
    #[arg(short = 'f', long = "file", default_value = "cluster.toml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Override one option; may be given several times.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl Source {
    /// The resolved configuration.
    pub(crate) fn load(&self) -> anyhow::Result<ClusterConfig> {
        let mut overrides = Overrides::from_environment(std::env::vars());
        for text in &self.set {
            overrides.flag(text)?;
        }
        let mut config = crrl_config::load(&self.file, &overrides)?;
        if self.is_of_run(&config) {
            renew(&mut config);
        }
        let problems = unsayable(&config);
        if problems.is_empty() {
            return Ok(config);
        }
        Err(ConfigError::Invalid { path: self.file.clone(), problems }.into())
    }

    /// Whether the file is the one in the folder of its own run, which an earlier build may have written.
    fn is_of_run(&self, config: &ClusterConfig) -> bool {
        let held = RunDir::new(&config.run.dir).config_path();
        let file = std::fs::canonicalize(&self.file).ok();
        file.is_some() && file == std::fs::canonicalize(held).ok()
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Init { path } => {
            if path.exists() {
                if std::fs::read_to_string(&path).is_ok_and(|held| held == COMMENTED) {
                    eprintln!("{} is already there, as this would write it", path.display());
                    return Ok(ExitCode::SUCCESS);
                }
                return Err(Coded::usage(format!(
                    "{} is already there, and another than this would write; name another file or \
                     remove it first",
                    path.display()
                )));
            }
            std::fs::write(&path, COMMENTED)
                .with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("wrote {}", path.display());
        }
        Action::Show(source) => print!("{}", toml::to_string(&source.load()?)?),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_an_earlier_build_began_is_gone_on_with_by_its_own_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path().join("run"));
        std::fs::create_dir(run.path()).expect("writable");
        let mut config = ClusterConfig::default();
        run.path().clone_into(&mut config.run.dir);
        config.tasks.held_out_samples = 0;
        let text = toml::to_string(&config).expect("plain data");
        let load = |file: PathBuf| {
            std::fs::write(&file, &text).expect("writable");
            Source { file, set: Vec::new() }.load()
        };
        let held = load(run.config_path()).expect("it is the run's own");
        assert_eq!(held.tasks.held_out_samples, 1);
        // What somebody wrote elsewhere is what somebody says now.
        let refused = load(folder.path().join("cluster.toml")).expect_err("is refused").to_string();
        assert!(refused.contains("tasks.held_out_samples is 0"), "{refused}");
    }
}
