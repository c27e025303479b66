//! `crrl config`: write a commented cluster.toml, or print the resolved configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use crrl_config::{ClusterConfig, ConfigError, Overrides, outdated};

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
        let config = crrl_config::load(&self.file, &overrides)?;
        match outdated(&config) {
            None => Ok(config),
            Some(problem) => {
                let (path, problems) = (self.file.clone(), vec![problem]);
                Err(ConfigError::Invalid { path, problems }.into())
            }
        }
    }
}

/// Refuses a configuration that names no model, for what needs one.
pub(crate) fn model_is_named(config: &ClusterConfig) -> anyhow::Result<()> {
    if config.model.path.as_os_str().is_empty() {
        return Err(Coded::usage(
            "model.path names no model: it is a Hugging Face folder with config.json, *.safetensors and \
             tokenizer.json. For the project's small policy: --set model.path=models/small --set \
             agent.prompt=brief",
        ));
    }
    Ok(())
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
