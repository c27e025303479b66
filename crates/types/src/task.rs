//! A repair task: a base, an issue statement, and the gold patch that nobody shows the agent.
//!
//! On disk a task set is JSONL, one task a line. The field names are SWE-bench's where SWE-bench
//! has the field (`instance_id`, `repo`, `base_commit`, `problem_statement`, `patch`,
//! `test_patch`), so that its files load as they are; everything else is optional.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::TaskId;

/// One repair task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Unique name in its file.
    pub instance_id: TaskId,
    /// Where the code comes from: `owner/name`, a path, or the name of a source tree.
    #[serde(default)]
    pub repo: String,
    /// Commit the base is a checkout of; empty where the base is carried in `base`.
    #[serde(default)]
    pub base_commit: String,
    /// What the agent is told: the symptom, never the line.
    pub problem_statement: String,
    /// Gold patch, a unified diff against the base (git's format, `a/` and `b/` prefixes).
    pub patch: String,
    /// Diff of the tests that went with the fix, kept apart; never shown to the agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub test_patch: String,
    /// How to obtain the base.
    #[serde(default)]
    pub base: Base,
    /// Where the task came from.
    #[serde(default)]
    pub origin: Origin,
    /// How hard it is, as far as it can be read off the task itself.
    #[serde(default)]
    pub difficulty: Difficulty,
    /// The side of the split it is on.
    #[serde(default)]
    pub split: Split,
    /// Fields of other formats, carried along untouched.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// How to obtain the tree the agent starts from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Base {
    /// A checkout of `base_commit` of the repository at `repo`.
    #[default]
    Commit,
    /// The files themselves: path (relative, `/` separated) to content.
    Files {
        /// Path to content.
        files: BTreeMap<String, String>,
    },
    /// A source tree on this machine, with some files replaced.
    Tree {
        /// Folder the tree is in.
        root: String,
        /// Files of the tree the agent sees (paths relative to `root`); empty means all.
        include: Vec<String>,
        /// Path to the content that replaces the tree's.
        overlay: BTreeMap<String, String>,
    },
}

/// Where a task came from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum Origin {
    /// A file in another project's format.
    #[default]
    Imported,
    /// A bug injected into working code.
    Mutated {
        /// Which operator made the bug.
        bug: BugKind,
        /// Path of the changed file.
        path: String,
        /// Qualified name of the changed function (`Class.method`).
        function: String,
        /// 1-based line of the bug in the base.
        line: u32,
    },
    /// A bug-fix commit of a history.
    Mined {
        /// The commit that fixed the bug.
        fix_commit: String,
    },
}

/// The mutation operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BugKind {
    /// `<` for `<=`, `>` for `<`, and so on.
    Comparison,
    /// `==` for `!=`.
    Equality,
    /// `and` for `or`.
    Boolean,
    /// `not` dropped or added.
    Negation,
    /// `is None` for `is not None`.
    NoneCheck,
    /// `in` for `not in`.
    Membership,
    /// `+` for `-`, `*` for `/`, and so on.
    Arithmetic,
    /// `n` for `n + 1` or `n - 1`, in an index or a range.
    OffByOne,
    /// Another literal.
    Constant,
    /// `True` for `False`.
    Flag,
    /// Two arguments of a call exchanged.
    ArgumentSwap,
    /// A guard clause removed.
    RemovedGuard,
    /// Another variable in scope.
    WrongVariable,
    /// Another value returned.
    WrongReturn,
    /// `min` for `max`, `append` for `extend`, and the like.
    WrongCall,
    /// `+=` for `-=`, or `=`.
    Assignment,
    /// `break` for `continue`.
    LoopControl,
}

/// How hard a task is, as far as the task itself tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Difficulty {
    /// Files the gold patch changes.
    pub files: u32,
    /// Hunks of the gold patch.
    pub hunks: u32,
    /// Lines the gold patch adds or removes.
    pub changed_lines: u32,
    /// Lines of the function (or of the smallest changed files, where there is none).
    pub scope_lines: u32,
}

/// The side of a split. A source file (or, for mined tasks, a repository) is on one side only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For reinforcement learning.
    #[default]
    Train,
    /// For evaluation; no training of any kind may see it.
    HeldOut,
    /// For supervised fine-tuning.
    Sft,
}
