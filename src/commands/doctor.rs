//! `crrl doctor`: whether a run can be started here, and what to do where it cannot.

mod facts;
mod hosts;
mod machine;
mod run;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crrl_config::ClusterConfig;
use serde::Serialize;

use self::facts::Facts;
use super::config::Source;
use super::failure::PREFLIGHT;
use crate::meter::{Meter, Quiet};
use crate::recipe;
use crate::run::{absolute, spell_out};

/// Looks at what a run needs: programs, isolation, memory, disk, limits, ports, and, with a
/// configuration, its model, tasks, certificates, GPU, and the machines nodes are started on over
/// ssh: host keys, program, clock, UDP both ways, and the same of each of them as of this one. Every
/// check that fails prints what to do. Exit code 0 if a run can be started, 4 if not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration file; without it cluster.toml, if there is one, else what `crrl quickstart` needs.
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Override one option; may be given several times.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print what this machine has, and nothing else, for a doctor elsewhere.
    #[arg(long, hide = true, conflicts_with_all = ["file", "set", "json"])]
    this_machine: bool,
    /// With --this-machine: a folder whose disk is looked at.
    #[arg(long, hide = true, value_name = "DIR", requires = "this_machine")]
    folder: Vec<PathBuf>,
    #[command(flatten)]
    quiet: Quiet,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// As it should be.
    Good,
    /// A run starts, but may suffer.
    Warning,
    /// A run does not start.
    Bad,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: String,
    /// The machine that was looked at, as its nodes' `host` names it; none is this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<String>,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do; nothing where all is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn of(name: &str, verdict: Verdict, found: String, fix: Option<String>) -> Self {
        Self { name: name.to_owned(), machine: None, verdict, found, fix }
    }

    fn good(name: &str, found: impl Into<String>) -> Self {
        Self::of(name, Verdict::Good, found.into(), None)
    }

    fn warning(name: &str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::of(name, Verdict::Warning, found.into(), Some(fix.into()))
    }

    fn bad(name: &str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::of(name, Verdict::Bad, found.into(), Some(fix.into()))
    }

    /// The same of another machine.
    fn there(self, host: &str) -> Self {
        let name = format!("{} there", self.name);
        Self { name, found: format!("{host}: {}", self.found), ..self }.on(host)
    }

    /// Of another machine; it says so itself.
    fn on(self, host: &str) -> Self {
        Self { machine: Some(host.to_owned()), ..self }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.this_machine {
        let facts = Facts::here(&ClusterConfig::default(), &args.folder);
        let facts = Facts { docker: facts::docker(), ..facts };
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&facts)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Looked { config, is_own, mut checks } = configuration(args.file.as_deref(), &args.set);
    let looking = Meter::start(args.quiet, "looking", "", 0);
    let doing = looking.count();
    doing.say("at this machine");
    let facts = Facts::here(&config, &[absolute(&config.run.dir)]);
    checks.extend(machine::here(&config, &facts));
    doing.say("at the run");
    checks.extend(run::checks(&config, is_own, facts.free_bytes()));
    doing.say("at the machines of its nodes");
    checks.extend(hosts::checks(&config));
    drop(looking);
    let bad = checks.iter().filter(|check| check.verdict == Verdict::Bad).count();
    let mut out = std::io::stdout().lock();
    if args.json {
        let value = serde_json::json!({ "ok": bad == 0, "checks": checks });
        writeln!(out, "{value}")?;
    } else {
        print(&mut out, &checks)?;
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(PREFLIGHT) })
}

/// The configuration to check against.
struct Looked {
    config: ClusterConfig,
    /// Whether somebody wrote it, so that a run of it is to be started; else the quickstart's is.
    is_own: bool,
    checks: Vec<Check>,
}

/// What `train` would go by. Where neither a file nor an option was named, and none is there: the quickstart.
fn configuration(file: Option<&Path>, set: &[String]) -> Looked {
    const NAME: &str = "configuration";
    let path = file.unwrap_or(Path::new("cluster.toml"));
    if file.is_none() && set.is_empty() && !path.exists() {
        let config = usual();
        let found = "no cluster.toml here: what crrl quickstart needs";
        return Looked { config, is_own: false, checks: vec![Check::good(NAME, found)] };
    }
    match (Source { file: path.to_owned(), set: set.to_vec() }).load() {
        Ok(mut config) => {
            spell_out(&mut config);
            let found = path.display().to_string();
            Looked { config, is_own: true, checks: vec![Check::good(NAME, found)] }
        }
        Err(error) => {
            let fix = "mend it; `crrl config init NEW.toml` writes a file with every default";
            let checks = vec![Check::bad(NAME, error.to_string(), fix)];
            Looked { config: usual(), is_own: false, checks }
        }
    }
}

/// The defaults, with the model that the quickstart takes.
fn usual() -> ClusterConfig {
    let mut config = ClusterConfig::default();
    config.model.path = recipe::find_model().unwrap_or_default();
    config
}

fn print(out: &mut impl std::io::Write, checks: &[Check]) -> std::io::Result<()> {
    for Check { name, machine: _, verdict, found, fix } in checks {
        let word = match verdict {
            Verdict::Good => "good",
            Verdict::Warning => "WARN",
            Verdict::Bad => "BAD",
        };
        writeln!(out, "{word:<5} {name:<19} {found}")?;
        if let Some(fix) = fix {
            writeln!(out, "{:<25} -> {fix}", "")?;
        }
    }
    let count = |wanted| checks.iter().filter(|check| check.verdict == wanted).count();
    match (count(Verdict::Bad), count(Verdict::Warning)) {
        (0, 0) => writeln!(out, "a run can be started here"),
        (0, warnings) => writeln!(out, "a run can be started here; {warnings} warnings"),
        (bad, _) => writeln!(out, "a run cannot be started here: {bad} things to mend"),
    }
}
