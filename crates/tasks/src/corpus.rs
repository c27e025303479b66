//! Endless fresh traces over the functions of a tree: every trace has its own bug, its own names
//! and its own path, all drawn from a seed and the trace's number.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use crrl_types::{Base, BugKind, Split, Task, TaskId};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tree_sitter::Parser;

use crate::careless::careless;
use crate::function::{Function, Site};
use crate::local_diff;
use crate::mutate;
use crate::operators;
use crate::oracle::{OracleOptions, OracleTurn, Repair, plan};
use crate::rename::{self, Words};
use crate::source::{self, SourceError, SourceFile, SourceOptions, SourceTree};
use crate::statement::Detail;

mod copying;

/// Draws before a sample is given up: names that collide, bugs that do not parse.
const TRIES_MAX: usize = 64;

/// How traces differ from the code they are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Augment {
    /// Share of traces with new names and a new path.
    pub renamed: f64,
    /// Share of names that change in such a trace.
    pub names: f64,
    /// Share of traces whose only work is copying: a random edit on a random line, and a statement
    /// that says what the line should be.
    pub copying: f64,
    /// Share of traces that look too briefly or stop too early; see [`crate::careless`].
    pub careless: f64,
}

impl Default for Augment {
    fn default() -> Self {
        Self { renamed: 0.8, names: 0.8, copying: 0.3, careless: 0.0 }
    }
}

/// What a corpus is made of.
#[derive(Debug, Clone)]
pub struct CorpusOptions {
    /// Which files and functions. Its `side` is the only side samples come from.
    pub source: SourceOptions,
    /// The operators used.
    pub kinds: Vec<BugKind>,
    /// How the oracle works.
    pub oracle: OracleOptions,
    /// How traces differ from the code.
    pub augment: Augment,
}

impl Default for CorpusOptions {
    fn default() -> Self {
        let source = SourceOptions { side: Some(Split::Sft), ..SourceOptions::default() };
        Self {
            source,
            kinds: operators::ALL.to_vec(),
            oracle: OracleOptions::default(),
            augment: Augment::default(),
        }
    }
}

/// A task and its solution.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The task; `problem_statement` is the issue. A copying trace is no repair of a known kind,
    /// and its origin is `Imported`.
    pub task: Task,
    /// The calls, in order.
    pub turns: Vec<OracleTurn>,
    /// What is said at the end.
    pub words: String,
}

/// A corpus that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// The tree cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No function has a trace.
    #[error(
        "{root}: none of {functions} functions has a trace of the kinds asked for; allow longer functions or more kinds"
    )]
    NoTrace {
        /// The tree.
        root: String,
        /// Functions of the right size.
        functions: usize,
    },
    /// A share outside 0..=1.
    #[error("augmentation share {0} is not in 0..=1")]
    Share(f64),
}

/// One function with what its traces need.
#[derive(Debug)]
struct Entry {
    file: usize,
    function: usize,
    /// Byte past the lines the oracle shows.
    shown_end: usize,
    /// Kinds of bug it can carry.
    kinds: Vec<BugKind>,
}

/// Functions ready for sampling.
#[derive(Debug)]
pub struct Corpus {
    files: Vec<SourceFile>,
    /// Words of each file, so that new names collide with none.
    vocabularies: Vec<HashSet<String>>,
    entries: Vec<Entry>,
    words: Words,
    options: CorpusOptions,
}

impl Corpus {
    /// Reads a tree.
    ///
    /// # Errors
    /// When it holds nothing usable, or no function with a trace.
    pub fn load(root: &Path, options: CorpusOptions) -> Result<Self, CorpusError> {
        let Augment { renamed, names, copying, careless } = options.augment;
        if let Some(share) =
            [renamed, names, copying, careless].into_iter().find(|s| !(0.0..=1.0).contains(s))
        {
            return Err(CorpusError::Share(share));
        }
        let files = SourceTree::load(root, &options.source)?.files;
        let mut entries = Vec::new();
        let mut functions = 0;
        for (file, source) in files.iter().enumerate() {
            functions += source.functions.len();
            for (index, function) in source.functions.iter().enumerate() {
                entries.extend(entry(file, index, source, function, &options));
            }
        }
        if entries.is_empty() {
            let root = root.display().to_string();
            return Err(CorpusError::NoTrace { root, functions });
        }
        let words = Words::of(entries.iter().map(|entry| {
            let function = &files[entry.file].functions[entry.function];
            &files[entry.file].text[function.start..function.end]
        }));
        let vocabularies = files.iter().map(|file| rename::vocabulary(&file.text)).collect();
        Ok(Self { files, vocabularies, entries, words, options })
    }

    /// Functions that samples are drawn from.
    #[must_use]
    pub fn functions(&self) -> usize {
        self.entries.len()
    }

    /// Texts of the functions, for training a tokenizer.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| {
            let file = &self.files[entry.file];
            let function = &file.functions[entry.function];
            &file.text[function.start..entry.shown_end]
        })
    }

    /// A fresh trace. `None` where no draw of many came to a trace, which a corpus of more than a
    /// handful of functions does not see.
    #[must_use]
    pub fn sample(&self, rng: &mut ChaCha8Rng) -> Option<Trace> {
        let mut parser = source::parser();
        let trace = (0..TRIES_MAX).find_map(|_| self.draw(&mut parser, rng))?;
        Some(careless(trace, self.options.augment.careless, rng))
    }

    /// Every trace of a seed, by number.
    #[must_use]
    pub fn stream(&self, seed: u64) -> TraceStream<'_> {
        TraceStream { corpus: self, seed, next: 0 }
    }

    fn draw(&self, parser: &mut Parser, rng: &mut ChaCha8Rng) -> Option<Trace> {
        let entry = self.entries.choose(rng)?;
        let source = &self.files[entry.file];
        let function = &source.functions[entry.function];
        let augment = &self.options.augment;
        if rng.random_bool(augment.copying) {
            let whole = &source.text[function.start..function.end];
            let (site, line) = copying::site(whole, rng)?;
            let drawn = self.dress(entry, &shift(site, function.start), rng)?;
            return copying::trace(&drawn, &line, rng, &self.options.oracle);
        }
        let kind = *entry.kinds.choose(rng)?;
        let sites: Vec<&Site> = function.sites.iter().filter(|s| s.kind == kind).collect();
        let site = *sites.choose(rng)?;
        if !mutate::parses(parser, source, function, site) {
            return None;
        }
        let dressed = self.dress(entry, site, rng)?;
        let Dressed { source, function, site, broken, .. } = &dressed;
        let task = mutate::bug_task(source, function, site, broken.clone(), Detail::Function, rng)?;
        let repair = Repair {
            path: &source.path,
            base: broken,
            fixed: &source.text,
            function: &function.name,
        };
        let oracle = plan(&repair, rng, &self.options.oracle)?;
        Some(Trace { task, turns: oracle.turns, words: oracle.words })
    }

    /// The file with its bug, under new names where the draw says so. Only the lines the oracle
    /// shows are renamed: nobody looks at the others, and the rest of the file is not run.
    fn dress(&self, entry: &Entry, site: &Site, rng: &mut ChaCha8Rng) -> Option<Dressed> {
        let source = &self.files[entry.file];
        let function = &source.functions[entry.function];
        let shown = function.start..entry.shown_end;
        if site.end > shown.end {
            return None;
        }
        let augment = &self.options.augment;
        let (names, path) = if rng.random_bool(augment.renamed) {
            let taken = &self.vocabularies[entry.file];
            let text = &source.text[shown.clone()];
            let names = rename::names(text, taken, augment.names, &self.words, rng);
            (names, self.words.path(&source.path, rng))
        } else {
            (rename::Names::new(), source.path.clone())
        };
        let new = |text: &str| rename::rename(text, &names);
        let before = new(&source.text[shown.start..site.start]);
        let there = new(&source.text[site.start..site.end]);
        let after = new(&source.text[site.end..shown.end]);
        let replacement = new(&site.replacement);
        if there == replacement {
            return None;
        }
        let (head, tail) = (&source.text[..shown.start], &source.text[shown.end..]);
        let text = [head, &before, &there, &after, tail].concat();
        let start = shown.start + before.len();
        let end = start + there.len();
        let site = Site { kind: site.kind, start, end, replacement };
        let name = new(&function.name);
        let qualified = match function.qualified.rsplit_once('.') {
            Some((outer, _)) => format!("{outer}.{name}"),
            None => name.clone(),
        };
        let function = Function {
            name,
            qualified,
            start: function.start,
            end: function.end,
            line: function.line,
            lines: function.lines,
            sites: Vec::new(),
        };
        let broken = site.apply(&text);
        let source = SourceFile { path, text, split: source.split, functions: Vec::new() };
        Some(Dressed { source, function, site, broken })
    }
}

/// A file as one trace shows it.
pub(crate) struct Dressed {
    source: SourceFile,
    function: Function,
    site: Site,
    broken: String,
}

impl Dressed {
    /// A task without a known kind of bug.
    fn task(&self, statement: String) -> Task {
        let path = &self.source.path;
        let patch = local_diff::write(path, &self.broken, &self.source.text);
        let files = BTreeMap::from([(path.clone(), self.broken.clone())]);
        let id = crrl_types::Digest::of(patch.as_bytes()).short();
        Task {
            instance_id: TaskId(format!("copy-{id}")),
            repo: String::new(),
            base_commit: String::new(),
            problem_statement: statement,
            patch,
            test_patch: String::new(),
            base: Base::Files { files },
            origin: crrl_types::Origin::Imported,
            difficulty: crrl_types::Difficulty {
                files: 1,
                hunks: 1,
                changed_lines: 2,
                scope_lines: u32::try_from(self.function.lines).unwrap_or(u32::MAX),
            },
            split: self.source.split,
            extra: BTreeMap::new(),
        }
    }
}

fn shift(site: Site, by: usize) -> Site {
    Site { start: site.start + by, end: site.end + by, ..site }
}

/// The entry of a function, if its name is clear in its file and it can be shown.
fn entry(
    file: usize,
    index: usize,
    source: &SourceFile,
    function: &Function,
    options: &CorpusOptions,
) -> Option<Entry> {
    let define = format!("def {}(", function.name);
    let clear = source.text.matches(&define).count() == 1;
    let rest = &source.text[function.start..];
    let mut ends = rest.match_indices('\n').map(|(at, _)| function.start + at + 1);
    let shown_end = ends.nth(options.oracle.after).unwrap_or(source.text.len());
    let short = shown_end - function.start <= 2 * options.oracle.output_chars_max;
    let kinds: BTreeSet<BugKind> = function
        .sites
        .iter()
        .filter(|site| site.end <= shown_end && options.kinds.contains(&site.kind))
        .map(|site| site.kind)
        .collect();
    let usable = clear && short && !kinds.is_empty() && function.end <= shown_end;
    usable.then(|| Entry { file, function: index, shown_end, kinds: kinds.into_iter().collect() })
}

/// The traces of a seed: number `i` depends on the seed and on `i` only.
#[derive(Debug, Clone)]
pub struct TraceStream<'c> {
    corpus: &'c Corpus,
    seed: u64,
    next: u64,
}

impl TraceStream<'_> {
    /// The trace of a number.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<Trace> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(index);
        self.corpus.sample(&mut rng)
    }

    /// Goes on from a number, after a restart say.
    #[must_use]
    pub fn from_index(self, next: u64) -> Self {
        Self { next, ..self }
    }

    /// The number of the next trace.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }
}

impl Iterator for TraceStream<'_> {
    type Item = Trace;

    fn next(&mut self) -> Option<Trace> {
        for _ in 0..TRIES_MAX {
            let trace = self.get(self.next);
            self.next += 1;
            if trace.is_some() {
                return trace;
            }
        }
        None
    }
}
