//! The task files of a plan: every line checked when the run starts, then handed out as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crrl_control::plan::{Phase, Plan};
use crrl_types::{Task, TaskId};

/// A task file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "`path` is the task file in each")]
pub enum TaskFileError {
    /// It cannot be read.
    #[error("cannot read the task file {path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A line is no task.
    #[error("{path}:{line}: not a task: {source}", path = .path.display())]
    Line { path: PathBuf, line: usize, source: serde_json::Error },
    /// Two tasks have one name.
    #[error("{path}:{line}: a task named {task} came before", path = .path.display())]
    Twice { path: PathBuf, line: usize, task: TaskId },
    /// There is nothing in it.
    #[error("{path} has no task: make some with `crrl tasks mutate`", path = .path.display())]
    Empty { path: PathBuf },
}

/// Task ids in file order, and each one's line.
#[derive(Debug, Default)]
pub struct TaskFile {
    /// In file order.
    pub ids: Vec<TaskId>,
    /// The task's JSON line.
    pub lines: BTreeMap<TaskId, String>,
}

impl TaskFile {
    /// Reads a task file.
    ///
    /// # Errors
    /// [`TaskFileError`] names the line.
    pub fn read(path: &Path) -> Result<Self, TaskFileError> {
        let path = path.to_owned();
        let text = std::fs::read_to_string(&path)
            .map_err(|source| TaskFileError::Read { path: path.clone(), source })?;
        let mut file = Self::default();
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let task: Task = serde_json::from_str(line).map_err(|source| TaskFileError::Line {
                path: path.clone(),
                line: number,
                source,
            })?;
            let id = task.instance_id;
            if file.lines.insert(id.clone(), line.to_owned()).is_some() {
                return Err(TaskFileError::Twice { path, line: number, task: id });
            }
            file.ids.push(id);
        }
        if file.ids.is_empty() { Err(TaskFileError::Empty { path }) } else { Ok(file) }
    }

    /// The task file of every phase; relative paths start in `folder`. A file several phases name
    /// is read once.
    ///
    /// # Errors
    /// [`TaskFileError`] names the line.
    pub fn of_plan(plan: &Plan, folder: &Path) -> Result<Vec<Arc<Self>>, TaskFileError> {
        let mut read: BTreeMap<PathBuf, Arc<Self>> = BTreeMap::new();
        plan.phases
            .iter()
            .map(|phase| {
                let path = folder.join(phase.tasks());
                if let Some(file) = read.get(&path) {
                    return Ok(file.clone());
                }
                let file = Arc::new(Self::read(&path)?);
                read.insert(path, file.clone());
                Ok(file)
            })
            .collect()
    }

    /// The ids a phase works on: all, or the first `tasks_max` of an evaluation.
    #[must_use]
    pub fn ids_of(&self, phase: &Phase) -> Vec<TaskId> {
        match phase {
            Phase::Evaluate(evaluate) if evaluate.tasks_max > 0 => {
                self.ids.iter().take(evaluate.tasks_max as usize).cloned().collect()
            }
            _ => self.ids.clone(),
        }
    }
}
