//! `crrl tls`: the certificates of a run.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Subcommand;
use crrl_cluster::mesh::{ROLES, role_text, roles_of};
use crrl_cluster::token::Tokens;
use crrl_cluster::{RunDir, host, renewal};
use crrl_control::rights::is_tool;
use crrl_transport::{Authority, Facts, Validity, is_revoked, revoke_all, revoked};
use crrl_types::NodeName;
use serde::Serialize;

use super::failure::Coded;
use super::place::Place;

/// Arguments of `crrl tls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the authority of a run, if it has none (`cluster up` does that by itself).
    Init {
        #[command(flatten)]
        place: Place,
    },
    /// List who has a certificate, for which roles, until when, and what was revoked.
    List {
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Issue a new key and certificate for a name. An older certificate of it stays valid until it
    /// expires or is revoked. A name that was revoked is let in again.
    Issue {
        /// The name.
        name: String,
        /// Its roles: coordinator, parameter-server, learner, rollout; or of a person's tool: viewer
        /// (watches and traces), operator (and gives orders), chaos (watches and injects faults).
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<String>,
        /// Hours until it expires.
        #[arg(long, default_value_t = 24 * 7, value_name = "HOURS")]
        hours: u32,
        #[command(flatten)]
        place: Place,
    },
    /// Issue new keys and certificates for everyone (or the names given), with the roles they have,
    /// and revoke the old ones. Only while the cluster is down: nodes read theirs when they start.
    Rotate {
        /// Names; everyone who was not revoked without any.
        names: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Revoke a name: its certificates, those it had before included, and its tokens. Whoever uses one
    /// is cut off within seconds and gets no other, until the name is invited or issued a certificate
    /// again. Nodes this machine starts, and its own operator and chaos, are issued another key when they
    /// are started or used again.
    Revoke {
        /// The name.
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

/// A run that has an authority.
fn existing(place: &Place) -> anyhow::Result<RunDir> {
    let run = place.run_dir()?;
    if !run.tls().join("ca.pem").is_file() {
        return Err(Coded::usage(format!(
            "{} has no authority yet; `crrl tls init` or `crrl cluster up` makes one",
            run.path().display()
        )));
    }
    Ok(run)
}

/// A certificate of the folder.
#[derive(Debug, Serialize)]
struct Certificate {
    name: String,
    roles: Vec<String>,
    valid_until_s: i64,
    fingerprint: String,
    revoked: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Init { place } => {
            let run = place.run_dir()?;
            Authority::open_or_create(&run.tls())?;
            eprintln!("the authority is {}", run.tls().join("ca.pem").display());
        }
        Action::List { place, json } => list(&existing(&place)?, json)?,
        Action::Issue { name, roles, hours, place } => {
            let known = roles_of(&roles);
            if let Some(wrong) =
                roles.iter().find(|role| !known.iter().any(|k| role_text(*k) == role.as_str()))
            {
                return Err(Coded::usage(format!(
                    "no role {wrong:?}; there are {}",
                    all_roles().join(", ")
                )));
            }
            let run = existing(&place)?;
            Authority::open_or_create(&run.tls())?.issue_anew(
                &name.as_str().into(),
                &roles,
                Validity::hours(hours),
            )?;
            eprintln!("{}", run.tls().join(format!("{name}.pem")).display());
        }
        Action::Rotate { names, place } => rotate(&existing(&place)?, &names)?,
        Action::Revoke { name, place } => revoke(&existing(&place)?, &name)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Revokes a name that has a certificate in the folder, or a token that nobody has used yet.
fn revoke(run: &RunDir, name: &str) -> anyhow::Result<()> {
    let (tokens, node) = (Tokens::of(&run.tls()), NodeName::from(name));
    let held = find(run, name);
    if held.is_err() && !tokens.has(&node)? {
        return held.map(drop);
    }
    let count = revoke_all(&run.tls(), &node, renewal::now_s())?;
    // Afterwards: a token that is used at this moment is for a name that was revoked.
    let withdrawn = tokens.withdraw(&node)?;
    if let Ok(certificate) = held {
        let rest = match count {
            0 => "revoked already".to_owned(),
            1 => "counts no more".to_owned(),
            _ => format!("and {} older ones count no more", count - 1),
        };
        eprintln!("the certificate {} of {name}: {rest}", &certificate.fingerprint[..12]);
    }
    if withdrawn > 0 {
        eprintln!("tokens of {name} that let nobody in any more: {withdrawn}");
    }
    Ok(())
}

fn all_roles() -> Vec<&'static str> {
    ROLES.map(role_text).to_vec()
}

fn certificates(run: &RunDir) -> anyhow::Result<Vec<Certificate>> {
    let revoked = revoked(&run.tls())?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(run.tls())? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "pem") || stem == "ca" {
            continue;
        }
        let facts = Facts::from_pem(&std::fs::read(&path)?)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        let fingerprint = facts.fingerprint.to_string();
        found.push(Certificate {
            name: facts.identity.name.to_string(),
            roles: facts.identity.roles,
            valid_until_s: facts.valid_until_s,
            revoked: revoked.contains_key(&fingerprint),
            fingerprint,
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn find(run: &RunDir, name: &str) -> anyhow::Result<Certificate> {
    let mut all = certificates(run)?;
    match all.iter().position(|certificate| certificate.name == name) {
        Some(at) => Ok(all.swap_remove(at)),
        None => {
            let names: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
            Err(Coded::usage(format!(
                "{name} has no certificate in {}; there are {}",
                run.tls().display(),
                names.join(", ")
            )))
        }
    }
}

fn list(run: &RunDir, json: bool) -> anyhow::Result<()> {
    let all = certificates(run)?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&all)?)?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<16} {:<30} {:<18} {:<13} state",
        "name", "roles", "valid for", "fingerprint"
    )?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    for certificate in all {
        let left_s = certificate.valid_until_s - now;
        let state = if certificate.revoked {
            "revoked"
        } else if left_s < 0 {
            "expired"
        } else {
            "good"
        };
        let left = match left_s / 3600 {
            hours if hours < 48 => format!("{} h", hours.max(0)),
            hours => format!("{} days", hours / 24),
        };
        writeln!(
            out,
            "{:<16} {:<30} {left:<18} {:<13} {state}",
            certificate.name,
            certificate.roles.join(","),
            &certificate.fingerprint[..12]
        )?;
    }
    Ok(())
}

fn rotate(run: &RunDir, names: &[String]) -> anyhow::Result<()> {
    if let Some(pid) = host::host_pid(run)? {
        return Err(Coded::usage(format!(
            "the cluster is up (host pid {pid}): its nodes would be cut off from one another. Take \
             it down first: crrl cluster down --run {}",
            run.path().display()
        )));
    }
    let authority = Authority::open_or_create(&run.tls())?;
    let chosen: Vec<Certificate> = if names.is_empty() {
        let mut chosen = Vec::new();
        for certificate in certificates(run)? {
            // The build before knew no names that were revoked, only certificates.
            let name = certificate.name.as_str().into();
            if certificate.revoked || is_revoked(&run.tls(), &name)? {
                eprintln!("{}: was revoked, and stays so", certificate.name);
            } else {
                chosen.push(certificate);
            }
        }
        chosen
    } else {
        names.iter().map(|name| find(run, name)).collect::<anyhow::Result<_>>()?
    };
    let hours = run.config().map(|config| config.cluster.certificate_hours);
    let of_node = Validity::hours(hours.unwrap_or(crrl_config::CERTIFICATE_HOURS));
    for Certificate { name, roles, .. } in chosen {
        let name = NodeName::from(name);
        revoke_all(&run.tls(), &name, renewal::now_s())?;
        // The key that has used one could ask with it again.
        Tokens::of(&run.tls()).withdraw(&name)?;
        let tool = roles_of(&roles).into_iter().all(is_tool);
        authority.issue_anew(&name, &roles, if tool { Validity::RUN } else { of_node })?;
        eprintln!("{name}: a new key and certificate; the old one counts no more");
    }
    Ok(())
}
