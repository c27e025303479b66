//! Python files of a tree: found in a fixed order, read with bounds, parsed, put on their side of
//! the split. Files that cannot be used are counted by reason, never an error.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crrl_types::Split;
use tree_sitter::{Parser, Tree};

use crate::function::{self, Function};
use crate::split::{InvalidSplit, SplitOptions};

/// Which files of a tree are read.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// How files are put on sides.
    pub split: SplitOptions,
    /// Only files of this side are kept; `None` keeps all.
    pub side: Option<Split>,
    /// Lines of a function, first to last, `def` line included: at least.
    pub lines_min: usize,
    /// Lines of a function at most.
    pub lines_max: usize,
    /// Names of folders that are not entered.
    pub skip_folders: Vec<String>,
    /// Bytes of a file that is read.
    pub file_bytes_max: u64,
    /// Files read.
    pub files_max: usize,
}

impl Default for SourceOptions {
    fn default() -> Self {
        let skip = ["test", "tests", "idle_test", "site-packages", "dist-packages", "node_modules"];
        Self {
            split: SplitOptions::default(),
            side: None,
            lines_min: 4,
            lines_max: 15,
            skip_folders: skip.map(str::to_owned).to_vec(),
            file_bytes_max: 512 * 1024,
            files_max: 20_000,
        }
    }
}

/// A tree that gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such path.
    #[error("{}: no such file or folder", .0.display())]
    Missing(PathBuf),
    /// No file of it can be used.
    #[error("{}: no usable Python file ({skipped})", path.display())]
    Nothing {
        /// The tree.
        path: PathBuf,
        /// What was left out.
        skipped: Skipped,
    },
    /// All its files are on other sides of the split.
    #[error(
        "{}: of its {files} Python files none is on the side {}: take a larger tree, or another --split-seed",
        path.display(), word(*side)
    )]
    Side {
        /// The tree.
        path: PathBuf,
        /// The side that was asked for.
        side: Split,
        /// Files of the tree, whatever their side.
        files: usize,
    },
    /// The split's shares make no split.
    #[error(transparent)]
    Split(#[from] InvalidSplit),
}

/// What a side is called where one is chosen.
fn word(side: Split) -> &'static str {
    match side {
        Split::Sft => "sft",
        Split::Train => "train",
        Split::HeldOut => "held-out",
    }
}

/// What was left out, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    /// Files that cannot be read.
    pub unreadable: usize,
    /// Files that are not UTF-8.
    pub not_utf8: usize,
    /// Files over the size limit.
    pub too_large: usize,
    /// Files that are not valid Python 3.
    pub unparsable: usize,
    /// Held-out functions whose text is also on another side.
    pub leaked: usize,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { unreadable, not_utf8, too_large, unparsable, leaked } = self;
        write!(
            f,
            "left out: {unreadable} unreadable, {not_utf8} not UTF-8, {too_large} too large, {unparsable} unparsable files; {leaked} held-out functions that another side also has"
        )
    }
}

/// One file.
#[derive(Debug)]
pub struct SourceFile {
    /// Path relative to the tree, `/` separated.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Its side.
    pub split: Split,
    /// Its functions, in order.
    pub functions: Vec<Function>,
}

/// The usable files of a tree.
#[derive(Debug)]
pub struct SourceTree {
    /// Where it is.
    pub root: PathBuf,
    /// Files, by path.
    pub files: Vec<SourceFile>,
    /// What was left out.
    pub skipped: Skipped,
}

impl SourceTree {
    /// Reads a folder, or a single file.
    ///
    /// # Errors
    /// When there is nothing at `root`, or nothing usable.
    pub fn load(root: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        options.split.validate()?;
        if !root.exists() {
            return Err(SourceError::Missing(root.to_owned()));
        }
        let mut skipped = Skipped::default();
        let texts = read_all(root, options, &mut skipped);
        let sides = sides(&texts, &options.split);
        let all = texts.len();
        let mut parser = parser();
        let mut files = Vec::new();
        if let Some(side) = options.side
            && all > 0
            && !sides.contains(&side)
        {
            return Err(SourceError::Side { path: root.to_owned(), side, files: all });
        }
        for ((path, text), split) in texts.into_iter().zip(sides) {
            // What leaks into the held-out side is found by looking at all of them.
            let wanted = options.side.is_none_or(|side| side == split || side == Split::HeldOut);
            if !wanted {
                continue;
            }
            let Some(tree) = parse(&mut parser, &text) else {
                skipped.unparsable += 1;
                continue;
            };
            let functions =
                function::functions(&text, &tree, options.lines_min..=options.lines_max);
            files.push(SourceFile { path, text, split, functions });
        }
        skipped.leaked = drop_leaks(&mut files);
        if let Some(side) = options.side {
            files.retain(|file| file.split == side);
        }
        if files.is_empty() {
            return Err(SourceError::Nothing { path: root.to_owned(), skipped });
        }
        Ok(Self { root: root.to_owned(), files, skipped })
    }
}

/// A parser for Python.
pub(crate) fn parser() -> Parser {
    let mut parser = Parser::new();
    parser
        .set_language(&tree_sitter_python::LANGUAGE.into())
        .expect("the grammar's version is within what this tree-sitter reads");
    parser
}

/// The tree of a text; `None` where it has a syntax error.
pub(crate) fn parse(parser: &mut Parser, text: &str) -> Option<Tree> {
    parser.parse(text, None).filter(|tree| !tree.root_node().has_error())
}

/// Path and text of every file that can be read, by path.
fn read_all(root: &Path, options: &SourceOptions, skipped: &mut Skipped) -> Vec<(String, String)> {
    let skip = options.skip_folders.clone();
    let walk = ignore::WalkBuilder::new(root)
        .parents(false)
        .git_global(false)
        .follow_links(false)
        .sort_by_file_path(Path::cmp)
        .filter_entry(move |entry| {
            let folder = entry.depth() > 0 && entry.file_type().is_some_and(|kind| kind.is_dir());
            !(folder && skip.iter().any(|name| entry.file_name() == name.as_str()))
        })
        .build();
    let mut texts = Vec::new();
    for entry in walk {
        let Ok(entry) = entry else {
            skipped.unreadable += 1;
            continue;
        };
        let path = entry.path();
        let python = path.extension().is_some_and(|extension| extension == "py");
        if !python || !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        if entry.metadata().is_ok_and(|data| data.len() > options.file_bytes_max) {
            skipped.too_large += 1;
            continue;
        }
        let Ok(bytes) = std::fs::read(path) else {
            skipped.unreadable += 1;
            continue;
        };
        let (Ok(text), Some(relative)) = (String::from_utf8(bytes), relative(root, path)) else {
            skipped.not_utf8 += 1;
            continue;
        };
        texts.push((relative, text));
        if texts.len() == options.files_max {
            break;
        }
    }
    texts
}

fn relative(root: &Path, path: &Path) -> Option<String> {
    let relative = match path.strip_prefix(root) {
        Ok(rest) if !rest.as_os_str().is_empty() => rest,
        _ => Path::new(path.file_name()?),
    };
    let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
    Some(parts?.join("/"))
}

/// The side of every file. Files of equal content go where the first of them goes.
fn sides(texts: &[(String, String)], options: &SplitOptions) -> Vec<Split> {
    let mut first: HashMap<blake3::Hash, &str> = HashMap::new();
    texts
        .iter()
        .map(|(path, text)| {
            let key = first.entry(blake3::hash(normal(text).as_bytes())).or_insert(path);
            options.side(key)
        })
        .collect()
}

/// Text without indentation, trailing blanks, empty lines and comment lines.
fn normal(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// Drops every held-out function whose text another side has too; how many.
fn drop_leaks(files: &mut [SourceFile]) -> usize {
    let hash = |file: &SourceFile, function: &Function| {
        blake3::hash(normal(&file.text[function.start..function.end]).as_bytes())
    };
    let seen: std::collections::HashSet<blake3::Hash> = files
        .iter()
        .filter(|file| file.split != Split::HeldOut)
        .flat_map(|file| file.functions.iter().map(|function| hash(file, function)))
        .collect();
    let mut dropped = 0;
    for file in files.iter_mut().filter(|file| file.split == Split::HeldOut) {
        let functions = std::mem::take(&mut file.functions);
        let before = functions.len();
        let kept = functions.into_iter().filter(|f| !seen.contains(&hash(file, f))).collect();
        file.functions = kept;
        dropped += before - file.functions.len();
    }
    dropped
}
