//! `crrl reward GOLD PATCH`: scores one patch file against another and prints every component.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use crrl_rl::diff::{self, Patch};
use crrl_rl::reward::{Conduct, RewardOptions, compose};
use crrl_rl::similarity::{self, Similarity};
use crrl_types::Reward;

use super::failure::Coded;
use crate::meter::{Meter, Quiet};

/// Bytes of a patch file that are read.
const PATCH_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Scores PATCH against GOLD, as an episode would be: similarity by lines and by characters, file
/// match, exactness, and the weighted total.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The right patch, a unified diff.
    gold: PathBuf,
    /// The patch to score; `-` reads standard input. One that is empty or no patch scores 0.
    patch: PathBuf,
    /// Folder both patches are against. `exact` then compares the files they leave; without it,
    /// what the two patches themselves tell of them.
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Weight of a component in the total (line, gestalt, file_match, exact). Those not given are
    /// 0 once one is given. Default: line=1.
    #[arg(long = "weight", value_name = "NAME=WEIGHT", value_parser = weight)]
    weights: Vec<(Part, f64)>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Line,
    Gestalt,
    FileMatch,
    Exact,
}

fn weight(text: &str) -> Result<(Part, f64), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=WEIGHT, line=1 say")?;
    let part = match name {
        "line" => Part::Line,
        "gestalt" => Part::Gestalt,
        "file_match" => Part::FileMatch,
        "exact" => Part::Exact,
        _ => {
            return Err(format!(
                "no component {name:?}; there are line, gestalt, file_match, exact"
            ));
        }
    };
    let value = value.parse().map_err(|_| format!("{value:?} is not a number"))?;
    Ok((part, value))
}

/// Scores and prints.
///
/// # Errors
/// When a file cannot be read, GOLD is no patch, or the weights make no reward. A bad PATCH is no
/// error: it scores 0, with the reason.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { gold: gold_path, patch, base, weights: given, json: as_json, quiet } = args;
    let weights = weights(&given);
    weights.validate().map_err(|error| Coded::usage(error.to_string()))?;
    let gold = read(&gold_path)?;
    let patch = read(&patch)?;
    let comparing = Meter::start(quiet, "comparing", "", 0);
    let mut similarity = similarity::compare(&gold, &patch, true).map_err(|error| {
        let path = gold_path.display();
        Coded::usage(format!("{path} is no patch to score against: {error}"))
    })?;
    if let Some(base) = &base
        && similarity.nothing.is_none()
    {
        compare_results(base, &gold, &patch, &mut similarity)?;
    }
    drop(comparing);
    let reward = compose(&weights, &similarity, &Conduct::default())?;
    let text = if as_json {
        format!("{}\n", json(&similarity, &reward))
    } else {
        table(&similarity, &reward)
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn weights(given: &[(Part, f64)]) -> RewardOptions {
    if given.is_empty() {
        return RewardOptions::default();
    }
    let mut weights = RewardOptions { line: 0.0, ..RewardOptions::default() };
    for (part, value) in given {
        match part {
            Part::Line => weights.line = *value,
            Part::Gestalt => weights.gestalt = *value,
            Part::FileMatch => weights.file_match = *value,
            Part::Exact => weights.exact = *value,
        }
    }
    weights
}

/// A patch file as text; bytes that are not UTF-8 become replacement characters.
fn read(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(PATCH_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(PATCH_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    let path = path.display();
    read.map_err(|error| Coded::usage(format!("cannot read the patch {path}: {error}")))?;
    if bytes.len() as u64 > PATCH_BYTES_MAX {
        let max = PATCH_BYTES_MAX;
        return Err(Coded::usage(format!(
            "{path} has more than {max} bytes, too many for a patch"
        )));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Judges exactness by the files both patches leave. A patch that does not apply is not exact.
fn compare_results(
    folder: &Path,
    gold: &str,
    patch: &str,
    similarity: &mut Similarity,
) -> anyhow::Result<()> {
    let (gold, patch) = (diff::parse(gold)?, diff::parse(patch)?);
    let base = contents(folder, [&gold, &patch])?;
    diff::apply_all(&base, &gold).map_err(|error| {
        let folder = folder.display();
        Coded::usage(format!("the gold patch does not apply to {folder}: {error}"))
    })?;
    let exact = similarity::same_result_on(&base, &gold, &patch).unwrap_or(false);
    similarity.exact = exact;
    if exact {
        (similarity.line, similarity.gestalt, similarity.file_match) = (1.0, Some(1.0), 1.0);
    }
    Ok(())
}

/// The files the patches touch, as they are in the folder.
fn contents(folder: &Path, patches: [&Patch; 2]) -> anyhow::Result<BTreeMap<String, String>> {
    if !folder.is_dir() {
        return Err(Coded::usage(format!("--base {} is not a folder", folder.display())));
    }
    let files = patches.into_iter().flat_map(|patch| &patch.files);
    let paths = files.flat_map(|file| file.old_path.iter().chain(&file.new_path));
    let mut contents = BTreeMap::new();
    for path in paths {
        // The parser lets no path out of the folder.
        let at = folder.join(path);
        if at.is_file() {
            let bytes = std::fs::read(&at)
                .map_err(|error| Coded::usage(format!("cannot read {}: {error}", at.display())))?;
            contents.insert(path.clone(), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(contents)
}

fn json(similarity: &Similarity, reward: &Reward) -> serde_json::Value {
    let files: Vec<_> = similarity
        .files
        .iter()
        .map(|file| {
            serde_json::json!({"path": file.path, "line": file.line, "gestalt": file.gestalt})
        })
        .collect();
    serde_json::json!({
        "line": similarity.line,
        "gestalt": similarity.gestalt.unwrap_or(0.0),
        "file_match": similarity.file_match,
        "exact": f64::from(u8::from(similarity.exact)),
        "total": reward.total,
        "success": reward.success,
        "files": files,
        "reason": similarity.nothing.as_ref().map(ToString::to_string),
    })
}

fn table(similarity: &Similarity, reward: &Reward) -> String {
    let mut text = String::new();
    let exact = f64::from(u8::from(similarity.exact));
    for (name, value) in [
        ("line", similarity.line),
        ("gestalt", similarity.gestalt.unwrap_or(0.0)),
        ("file_match", similarity.file_match),
        ("exact", exact),
        ("total", reward.total),
    ] {
        text.push_str(&format!("{name:<12}{value:.6}\n"));
    }
    if similarity.files.len() > 1 {
        for file in &similarity.files {
            text.push_str(&format!("  {:.6}  {}\n", file.line, file.path));
        }
    }
    if let Some(reason) = &similarity.nothing {
        text.push_str(&format!("{:<12}{reason}\n", "because"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_and_refused_by_name() {
        assert!(matches!(weight("exact=0.5"), Ok((Part::Exact, value)) if value == 0.5));
        assert!(weight("exact").expect_err("was taken").contains("NAME=WEIGHT"));
        assert!(weight("lines=1").expect_err("was taken").contains("there are line"));
        assert!(weight("line=x").expect_err("was taken").contains("not a number"));
    }

    #[test]
    fn results_on_a_base_decide_exactness() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("m"), "a\nb\n").expect("written");
        let gold = "--- a/m\n+++ b/m\n@@ -2 +2 @@\n-b\n+c\n";
        // The position is wrong; the place where its lines stand is not.
        let moved = gold.replace("@@ -2 +2 @@", "@@ -7 +7 @@");
        let mut similarity = similarity::compare(gold, &moved, true).expect("a patch");
        assert!(!similarity.exact);
        compare_results(dir.path(), gold, &moved, &mut similarity).expect("a base");
        let reward = compose(&RewardOptions::default(), &similarity, &Conduct::default());
        let printed = json(&similarity, &reward.expect("good weights"));
        assert_eq!((&printed["exact"], &printed["total"]), (&1.0.into(), &1.0.into()));

        let refused = compare_results(&dir.path().join("none"), gold, &moved, &mut similarity);
        assert!(refused.expect_err("was taken").to_string().contains("is not a folder"));
    }
}
