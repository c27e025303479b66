//! `crrl tasks`: make, list, show and verify repair tasks.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use crrl_tasks::mutate::{kind_name, kind_of, sides};
use crrl_tasks::{
    Detail, MineError, MineOptions, MutateError, MutateOptions, OracleOptions, SourceOptions,
    SplitOptions, TaskSet, Verdict, mine_watched, mutate_watched, verify,
};
use crrl_types::{BugKind, Origin, Split, Task};
use serde_json::json;

use super::failure::Coded;
use crate::meter::{Meter, Quiet};

/// Make, list, show and verify repair tasks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Tasks from working code: one bug injected into one Python function each.
    Mutate(Mutate),
    /// Tasks from the bug-fix commits of a git history, in any language.
    Mine(Mine),
    /// One line for each task of a file.
    List(List),
    /// One task: what the agent is told, and the gold patch.
    Show(Show),
    /// Check that every base can be had, every gold patch applies, and base + patch is the fix.
    Verify(Verify),
}

/// How much the statement gives away.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Statement {
    /// File, function and kind of symptom.
    Function,
    /// File and kind of symptom.
    Path,
    /// Kind of symptom only.
    Vague,
}

/// A side of the split.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Side {
    Sft,
    Train,
    HeldOut,
}

#[derive(Debug, clap::Args)]
struct Shares {
    /// Seed of the split: which file, or which repository, is on which side.
    #[arg(long, default_value_t = 0)]
    split_seed: u64,
    /// Share of sources for fine-tuning; what the two shares leave is for training.
    #[arg(long, default_value_t = 0.6)]
    sft_share: f64,
    /// Share of sources that no training sees.
    #[arg(long, default_value_t = 0.2)]
    held_out_share: f64,
}

impl Shares {
    fn options(&self) -> anyhow::Result<SplitOptions> {
        let (sft, held_out) = (self.sft_share, self.held_out_share);
        // Rounding must not make an empty share negative.
        let train = (1.0 - sft - held_out).max(0.0);
        let options = SplitOptions { seed: self.split_seed, sft, train, held_out };
        options.validate().map_err(|error| Coded::usage(error.to_string()))?;
        Ok(options)
    }
}

#[derive(Debug, clap::Args)]
struct Output {
    /// File to write; without it, or with `-`, the tasks go to standard output.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON object with the counts (needs --out).
    #[arg(long, requires = "out")]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
}

#[derive(Debug, clap::Args)]
struct Mutate {
    /// A folder of Python files, or one file.
    path: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Tasks made at most.
    #[arg(short = 'n', long, default_value_t = 500)]
    count: usize,
    /// Another seed, other bugs.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Least lines of a function.
    #[arg(long, default_value_t = 4)]
    lines_min: usize,
    /// Most lines of a function.
    #[arg(long, default_value_t = 15)]
    lines_max: usize,
    /// Tasks made from one function at most.
    #[arg(long, default_value_t = 1)]
    per_function: usize,
    /// Kinds of bug, separated by commas; all without it: comparison, equality, boolean, negation,
    /// none_check, membership, arithmetic, off_by_one, constant, flag, argument_swap, removed_guard,
    /// wrong_variable, wrong_return, wrong_call, assignment, loop_control.
    #[arg(long, value_delimiter = ',', value_parser = bug_kind)]
    kinds: Vec<BugKind>,
    /// How much the statement gives away.
    #[arg(long, value_enum, default_value = "function")]
    statement: Statement,
    /// Other files of the same folder the agent also sees.
    #[arg(long, default_value_t = 0)]
    siblings: usize,
    /// Only this side of the split; all without it.
    #[arg(long, value_enum)]
    split: Option<Side>,
    /// Keep only tasks that can be solved by reading 16 lines and replacing one text.
    #[arg(long)]
    solvable: bool,
    #[command(flatten)]
    shares: Shares,
}

#[derive(Debug, clap::Args)]
struct Mine {
    /// A git repository on this machine.
    repo: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Tasks made at most.
    #[arg(short = 'n', long, default_value_t = 500)]
    count: usize,
    /// Where to begin: a branch, tag or commit.
    #[arg(long, default_value = "HEAD")]
    from: String,
    /// Commits looked at, newest first.
    #[arg(long, default_value_t = 10_000)]
    commits_max: usize,
    /// Extensions of source files, separated by commas; `any` takes all but documentation.
    #[arg(long, value_delimiter = ',', default_value = "py")]
    extensions: Vec<String>,
    /// Source files a fix may change.
    #[arg(long, default_value_t = 3)]
    files_max: usize,
    /// Source lines a fix may add or remove.
    #[arg(long, default_value_t = 60)]
    lines_max: usize,
    #[command(flatten)]
    shares: Shares,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Task file.
    file: PathBuf,
    /// Only this side of the split.
    #[arg(long, value_enum)]
    split: Option<Side>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Task file.
    file: PathBuf,
    /// `instance_id` of the task; without it, the first.
    id: Option<String>,
    /// Print the task as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// Task file.
    file: PathBuf,
    /// Print one JSON object with every verdict.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
}

fn bug_kind(name: &str) -> Result<BugKind, String> {
    kind_of(name).ok_or_else(|| {
        let all: Vec<String> = crrl_tasks::operators::ALL.into_iter().map(kind_name).collect();
        format!("no kind of bug is called {name:?}; there are {}", all.join(", "))
    })
}

fn side(side: Side) -> Split {
    match side {
        Side::Sft => Split::Sft,
        Side::Train => Split::Train,
        Side::HeldOut => Split::HeldOut,
    }
}

fn side_name(split: Split) -> &'static str {
    match split {
        Split::Sft => "sft",
        Split::Train => "train",
        Split::HeldOut => "held_out",
    }
}

/// Runs the subcommand.
///
/// # Errors
/// When a path, a file or an option cannot be used; the message names it.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Mutate(args) => run_mutate(args),
        Action::Mine(args) => run_mine(args),
        Action::List(args) => run_list(&args),
        Action::Show(args) => run_show(&args),
        Action::Verify(args) => run_verify(&args),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).context("standard output")
}

/// Writes the tasks where they should go and says how many there are.
fn deliver(tasks: Vec<Task>, output: &Output, facts: &serde_json::Value) -> anyhow::Result<()> {
    let [sft, train, held_out] = sides(&tasks);
    let count = tasks.len();
    let set = TaskSet::from(tasks);
    let Some(path) = output.out.as_deref().filter(|path| *path != Path::new("-")) else {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        set.write(&mut out).and_then(|()| out.flush()).context("standard output")?;
        if !output.quiet.quiet {
            eprintln!("{count} tasks: {sft} sft, {train} train, {held_out} held out");
        }
        return Ok(());
    };
    set.save(path).map_err(|error| Coded::usage(error.to_string()))?;
    if output.json {
        let mut object = json!({
            "tasks": count, "sft": sft, "train": train, "held_out": held_out, "out": path,
        });
        if let (Some(object), Some(facts)) = (object.as_object_mut(), facts.as_object()) {
            object.extend(facts.clone());
        }
        return print(&format!("{object}\n"));
    }
    let path = path.display();
    if !output.quiet.quiet {
        eprintln!("{path}: {count} tasks: {sft} sft, {train} train, {held_out} held out");
    }
    Ok(())
}

fn run_mutate(args: Mutate) -> anyhow::Result<ExitCode> {
    let source = SourceOptions {
        split: args.shares.options()?,
        side: args.split.map(side),
        lines_min: args.lines_min,
        lines_max: args.lines_max,
        ..SourceOptions::default()
    };
    let mut options = MutateOptions {
        source,
        seed: args.seed,
        tasks_max: args.count,
        per_function: args.per_function,
        detail: match args.statement {
            Statement::Function => Detail::Function,
            Statement::Path => Detail::Path,
            Statement::Vague => Detail::Vague,
        },
        siblings: args.siblings,
        solvable: args.solvable.then(OracleOptions::default),
        ..MutateOptions::default()
    };
    if !args.kinds.is_empty() {
        options.kinds = args.kinds;
    }
    let meter = Meter::start(args.output.quiet, "making tasks", "functions", 0);
    let count = meter.count();
    let told = |done: usize, of: usize| {
        count.of(of as u64);
        count.at(done as u64);
    };
    let made = mutate_watched(&args.path, &options, &told).map_err(|error| match error {
        MutateError::NoSite { .. } => anyhow::Error::new(error),
        _ => Coded::usage(error.to_string()),
    })?;
    let skipped = made.skipped;
    meter.note(&format!("{} files, {} functions; {skipped}", made.files, made.functions));
    drop(meter);
    let facts = json!({
        "files": made.files, "functions": made.functions, "unreadable": skipped.unreadable,
        "not_utf8": skipped.not_utf8, "too_large": skipped.too_large,
        "unparsable": skipped.unparsable, "leaked": skipped.leaked,
    });
    deliver(made.tasks, &args.output, &facts)?;
    Ok(ExitCode::SUCCESS)
}

fn run_mine(args: Mine) -> anyhow::Result<ExitCode> {
    let any = args.extensions.iter().any(|extension| extension == "any");
    let extensions = args.extensions.iter().map(|e| e.trim_start_matches('.').to_owned());
    let options = MineOptions {
        from: args.from,
        commits_max: args.commits_max,
        tasks_max: args.count,
        extensions: if any { Vec::new() } else { extensions.collect() },
        files_max: args.files_max,
        lines_max: args.lines_max,
        split: args.shares.options()?,
    };
    let meter = Meter::start(args.output.quiet, "mining", "commits", 0);
    let count = meter.count();
    let told = |done: usize, of: usize| {
        count.of(of as u64);
        count.at(done as u64);
    };
    let mined = mine_watched(&args.repo, &options, &told).map_err(|error| match error {
        MineError::Nothing { .. } => anyhow::Error::new(error),
        _ => Coded::usage(error.to_string()),
    })?;
    let (commits, fixes, unfit) = (mined.commits, mined.fixes, mined.unfit);
    let line = format!(
        "{commits} commits, {fixes} speak of a fix, {unfit} of those do not fit the limits"
    );
    meter.note(&line);
    drop(meter);
    let facts = json!({"commits": commits, "fixes": fixes, "unfit": unfit});
    deliver(mined.tasks, &args.output, &facts)?;
    Ok(ExitCode::SUCCESS)
}

fn load(path: &Path) -> anyhow::Result<TaskSet> {
    TaskSet::load(path).map_err(|error| Coded::usage(error.to_string()))
}

/// What made the task: an operator's name, `mined` or `imported`.
fn origin(task: &Task) -> String {
    match &task.origin {
        Origin::Mutated { bug, .. } => kind_name(*bug),
        Origin::Mined { .. } => "mined".to_owned(),
        Origin::Imported => "imported".to_owned(),
    }
}

fn run_list(args: &List) -> anyhow::Result<ExitCode> {
    let set = load(&args.file)?;
    let wanted = args.split.map(side);
    let tasks: Vec<&Task> =
        set.tasks.iter().filter(|task| wanted.is_none_or(|side| side == task.split)).collect();
    if args.json {
        let rows: Vec<_> = tasks
            .iter()
            .map(|task| {
                json!({
                    "instance_id": task.instance_id, "split": task.split,
                    "origin": origin(task), "difficulty": task.difficulty,
                    "problem_statement": task.problem_statement,
                })
            })
            .collect();
        print(&format!("{}\n", serde_json::Value::from(rows)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for task in &tasks {
        let first = task.problem_statement.lines().next().unwrap_or_default();
        let first: String = first.chars().take(100).collect();
        text.push_str(&format!(
            "{:<9}{:<15}{:>3} lines  {}\n    {first}\n",
            side_name(task.split),
            origin(task),
            task.difficulty.changed_lines,
            task.instance_id,
        ));
    }
    print(&text)?;
    eprintln!("{} of {} tasks", tasks.len(), set.tasks.len());
    Ok(ExitCode::SUCCESS)
}

fn run_show(args: &Show) -> anyhow::Result<ExitCode> {
    let set = load(&args.file)?;
    let task = match &args.id {
        Some(id) => set.get(id),
        None => set.tasks.first(),
    };
    let Some(task) = task else {
        let id = args.id.as_deref().unwrap_or_default();
        let file = args.file.display();
        return Err(Coded::usage(format!(
            "{file}: no task is called {id:?}; `crrl tasks list {file}` names them"
        )));
    };
    if args.json {
        print(&format!("{}\n", serde_json::to_string(task)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let difficulty = task.difficulty;
    let mut text = format!(
        "{}\n{} · {} · {} files, {} hunks, {} changed lines, {} lines of scope\n\n{}\n\n{}",
        task.instance_id,
        side_name(task.split),
        origin(task),
        difficulty.files,
        difficulty.hunks,
        difficulty.changed_lines,
        difficulty.scope_lines,
        task.problem_statement,
        task.patch,
    );
    if !task.test_patch.is_empty() {
        text.push_str("\ntests:\n");
        text.push_str(&task.test_patch);
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn run_verify(args: &Verify) -> anyhow::Result<ExitCode> {
    let set = load(&args.file)?;
    let meter = Meter::start(args.quiet, "verifying", "tasks", set.tasks.len() as u64);
    let count = meter.count();
    let one = |task| {
        let verdict = verify(task);
        count.one();
        verdict
    };
    let verdicts: Vec<Verdict> = set.tasks.iter().map(one).collect();
    drop(meter);
    let bad = verdicts.iter().filter(|verdict| !verdict.good()).count();
    if args.json {
        let object = json!({"tasks": verdicts.len(), "failed": bad, "verdicts": verdicts});
        print(&format!("{object}\n"))?;
    } else {
        for verdict in &verdicts {
            if let Some((check, reason)) = &verdict.failed {
                let check = serde_json::to_value(check)?;
                let check = check.as_str().unwrap_or_default().to_owned();
                print(&format!("{}: {check}: {reason}\n", verdict.task))?;
            }
        }
        eprintln!("{} of {} tasks are good", verdicts.len() - bad, verdicts.len());
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
