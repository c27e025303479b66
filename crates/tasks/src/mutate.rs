//! Tasks from working code: one bug injected into one function, the way back as the gold patch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crrl_types::{Base, BugKind, Difficulty, Digest, Origin, Split, Task, TaskId};
use rand::SeedableRng as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tree_sitter::Parser;

use crate::function::{Function, Site};
use crate::local_diff;
use crate::operators;
use crate::oracle::{OracleOptions, Repair, plan};
use crate::source::{self, Skipped, SourceError, SourceFile, SourceOptions, SourceTree};
use crate::statement::{Detail, statement};

/// Field of a task's JSON that holds the BLAKE3 of the changed file once repaired.
pub const FIX_DIGEST: &str = "fix_digest";

/// How tasks are made.
#[derive(Debug, Clone)]
pub struct MutateOptions {
    /// Which files and functions.
    pub source: SourceOptions,
    /// Another seed, other bugs.
    pub seed: u64,
    /// Tasks made at most.
    pub tasks_max: usize,
    /// Tasks made from one function at most.
    pub per_function: usize,
    /// The operators used.
    pub kinds: Vec<BugKind>,
    /// What the statement gives away.
    pub detail: Detail,
    /// Other files of the same folder the agent also sees.
    pub siblings: usize,
    /// Keep only tasks this oracle solves.
    pub solvable: Option<OracleOptions>,
}

impl Default for MutateOptions {
    fn default() -> Self {
        Self {
            source: SourceOptions::default(),
            seed: 0,
            tasks_max: 500,
            per_function: 1,
            kinds: operators::ALL.to_vec(),
            detail: Detail::Function,
            siblings: 0,
            solvable: None,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Mutated {
    /// The tasks, by path and place.
    pub tasks: Vec<Task>,
    /// Files read.
    pub files: usize,
    /// Functions of the right size in them.
    pub functions: usize,
    /// What was left out.
    pub skipped: Skipped,
}

/// No tasks can be made.
#[derive(Debug, thiserror::Error)]
pub enum MutateError {
    /// The tree cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An option makes no sense.
    #[error("{0}")]
    Option(&'static str),
    /// No function carries a bug of the kinds asked for.
    #[error(
        "{functions} functions of {files} files in {root} carry no bug of the kinds asked for; allow longer functions or more kinds"
    )]
    NoSite {
        /// The tree.
        root: String,
        /// Files read.
        files: usize,
        /// Functions of the right size.
        functions: usize,
    },
}

/// Makes tasks from the Python files under `root`. The same tree, options and seed give the same
/// tasks.
///
/// # Errors
/// When there is nothing usable at `root`, or no place for a bug.
pub fn mutate(root: &Path, options: &MutateOptions) -> Result<Mutated, MutateError> {
    mutate_watched(root, options, &|_, _| ())
}

/// The same; `told` hears how many functions were looked at, and of how many.
///
/// # Errors
/// As [`mutate`].
pub fn mutate_watched(
    root: &Path,
    options: &MutateOptions,
    told: &dyn Fn(usize, usize),
) -> Result<Mutated, MutateError> {
    if options.tasks_max == 0 || options.per_function == 0 {
        return Err(MutateError::Option("0 tasks were asked for; ask for 1 or more"));
    }
    if options.kinds.is_empty() {
        return Err(MutateError::Option("no bug kind was asked for; name one or more"));
    }
    if options.source.lines_min > options.source.lines_max {
        return Err(MutateError::Option("the least lines of a function are above the most"));
    }
    let tree = SourceTree::load(root, &options.source)?;
    let mut places: Vec<(usize, usize)> = tree
        .files
        .iter()
        .enumerate()
        .flat_map(|(file, source)| (0..source.functions.len()).map(move |f| (file, f)))
        .collect();
    let functions = places.len();
    places.shuffle(&mut ChaCha8Rng::seed_from_u64(options.seed));
    let mut parser = source::parser();
    let mut made = Vec::new();
    'all: for (nth, (file, function)) in places.into_iter().enumerate() {
        told(nth, functions);
        let source = &tree.files[file];
        let function = &source.functions[function];
        for site in draw(source, function, options) {
            if !parses(&mut parser, source, function, &site) {
                continue;
            }
            let broken = site.apply(&source.text);
            if let Some(task) = task(&tree, source, function, &site, broken, options) {
                made.push((file, site.start, task));
                if made.len() == options.tasks_max {
                    break 'all;
                }
            }
        }
    }
    if made.is_empty() {
        let (root, files) = (root.display().to_string(), tree.files.len());
        return Err(MutateError::NoSite { root, files, functions });
    }
    made.sort_by(|a, b| (a.0, a.1, &a.2.instance_id).cmp(&(b.0, b.1, &b.2.instance_id)));
    let mut tasks: Vec<Task> = made.into_iter().map(|(_, _, task)| task).collect();
    tasks.dedup_by(|a, b| a.instance_id == b.instance_id);
    Ok(Mutated { tasks, files: tree.files.len(), functions, skipped: tree.skipped })
}

/// Generator of one function: its bugs do not depend on what else is in the tree.
fn function_rng(source: &SourceFile, function: &Function, seed: u64) -> ChaCha8Rng {
    let key = format!("{seed}\0{}\0{}\0{}", source.path, function.qualified, function.line);
    ChaCha8Rng::from_seed(*blake3::hash(key.as_bytes()).as_bytes())
}

/// Bugs to try, of different kinds first: a kind is drawn, then a place of it.
fn draw(source: &SourceFile, function: &Function, options: &MutateOptions) -> Vec<Site> {
    let mut rng = function_rng(source, function, options.seed);
    let mut kinds: Vec<BugKind> = function
        .sites
        .iter()
        .map(|site| site.kind)
        .filter(|kind| options.kinds.contains(kind))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    kinds.shuffle(&mut rng);
    let mut drawn: Vec<Site> = Vec::new();
    for round in 0..options.per_function {
        let Some(kind) = kinds.get(round % kinds.len().max(1)) else { break };
        let of_kind: Vec<&Site> =
            function.sites.iter().filter(|s| s.kind == *kind && !drawn.contains(s)).collect();
        if let Some(site) = of_kind.choose(&mut rng) {
            drawn.push((*site).clone());
        }
    }
    drawn
}

fn task(
    tree: &SourceTree,
    source: &SourceFile,
    function: &Function,
    site: &Site,
    broken: String,
    options: &MutateOptions,
) -> Option<Task> {
    let mut rng = function_rng(source, function, options.seed ^ site.start as u64);
    if let Some(oracle) = &options.solvable {
        let repair = Repair {
            path: &source.path,
            base: &broken,
            fixed: &source.text,
            function: &function.name,
        };
        plan(&repair, &mut rng, oracle)?;
    }
    let repo = tree.root.file_name().and_then(|name| name.to_str()).unwrap_or("source");
    let mut task = bug_task(source, function, site, broken, options.detail, &mut rng)?;
    task.repo = repo.to_owned();
    if options.siblings > 0
        && let Base::Files { files } = &mut task.base
    {
        files.extend(siblings(tree, source, options.siblings));
    }
    Some(task)
}

/// Whether the function still parses with the bug, looked at by itself: the rest of
/// the file is as it was.
pub(crate) fn parses(
    parser: &mut Parser,
    source: &SourceFile,
    function: &Function,
    site: &Site,
) -> bool {
    let text = &source.text[function.start..function.end];
    let (start, end) = (site.start - function.start, site.end - function.start);
    if start > text.len() || end > text.len() {
        return false;
    }
    // An indented function needs a block around it.
    let block = if text.starts_with([' ', '\t']) { "if 1:\n" } else { "" };
    let whole = [block, &text[..start], &site.replacement, &text[end..], "\n"].concat();
    source::parse(parser, &whole).is_some()
}

/// Other files of the folder on the same side, in order.
fn siblings(tree: &SourceTree, source: &SourceFile, count: usize) -> BTreeMap<String, String> {
    let folder = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let here = folder(&source.path);
    let others = tree.files.iter().filter(|file| {
        file.path != source.path && file.split == source.split && folder(&file.path) == here
    });
    others.take(count).map(|file| (file.path.clone(), file.text.clone())).collect()
}

/// The task of one bug.
pub(crate) fn bug_task(
    source: &SourceFile,
    function: &Function,
    site: &Site,
    broken: String,
    detail: Detail,
    rng: &mut ChaCha8Rng,
) -> Option<Task> {
    let patch = local_diff::write(&source.path, &broken, &source.text);
    let changed = patch.lines().filter(|line| {
        line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---")
    });
    let changed_lines = u32::try_from(changed.count()).ok()?;
    let line = source.text[..site.start].matches('\n').count() + 1;
    let text = statement(site.kind, &source.path, called(source, function), detail, rng);
    let stem = source.path.trim_end_matches(".py").replace('/', ".");
    // Two bugs at one place differ in what stands there.
    let tag: u16 = Digest::of(format!("{}\0{}", site.start, site.replacement).as_bytes()).0[..2]
        .iter()
        .fold(0, |tag, byte| tag << 8 | u16::from(*byte));
    let id = format!("{stem}-{}-{}-{line}-{tag:04x}", function.qualified, kind_name(site.kind));
    let fix = Digest::of(source.text.as_bytes()).to_string();
    Some(Task {
        instance_id: TaskId(id),
        repo: String::new(),
        base_commit: String::new(),
        problem_statement: text,
        patch,
        test_patch: String::new(),
        base: Base::Files { files: BTreeMap::from([(source.path.clone(), broken)]) },
        origin: Origin::Mutated {
            bug: site.kind,
            path: source.path.clone(),
            function: function.qualified.clone(),
            line: u32::try_from(line).ok()?,
        },
        difficulty: Difficulty {
            files: 1,
            hunks: 1,
            changed_lines,
            scope_lines: u32::try_from(function.lines).ok()?,
        },
        split: source.split,
        extra: BTreeMap::from([(FIX_DIGEST.to_owned(), fix.into())]),
    })
}

/// What a statement calls a function: its own name where that is clear, else the qualified one.
pub(crate) fn called<'f>(source: &SourceFile, function: &'f Function) -> &'f str {
    let once = source.text.matches(&format!("def {}(", function.name)).count() == 1;
    if once { &function.name } else { &function.qualified }
}

/// An operator's name as task files and the command line spell it.
#[must_use]
pub fn kind_name(kind: BugKind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{kind:?}"),
    }
}

/// The operator of that name.
#[must_use]
pub fn kind_of(name: &str) -> Option<BugKind> {
    operators::ALL.into_iter().find(|kind| kind_name(*kind) == name)
}

/// How many tasks each side has: fine-tuning, training, held out.
#[must_use]
pub fn sides(tasks: &[Task]) -> [usize; 3] {
    let count = |side| tasks.iter().filter(|task| task.split == side).count();
    [count(Split::Sft), count(Split::Train), count(Split::HeldOut)]
}
