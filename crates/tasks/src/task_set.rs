//! Task files: JSONL, one task a line, documented in docs/TASKS.md.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crrl_types::{Split, Task};

/// Bytes of one line that are read; a task carries its files, not a repository.
pub const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Tasks of one file that are read.
pub const TASKS_MAX: usize = 1_000_000;

/// The tasks of a file, in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskSet {
    /// Tasks with distinct `instance_id`.
    pub tasks: Vec<Task>,
}

/// A task file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TaskSetError {
    /// The file cannot be read or written.
    #[error("task file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is no task.
    #[error("{}:{line}: not a task: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The file holds no task.
    #[error("{}: holds no task; make some with `crrl tasks mutate` or `crrl tasks mine`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl TaskSet {
    /// Reads a task file. Empty lines are skipped.
    ///
    /// # Errors
    /// When the file cannot be read, a line is no task (named by file and line), an `instance_id`
    /// is empty or comes twice, or there is no task at all.
    pub fn load(path: &Path) -> Result<Self, TaskSetError> {
        let io = |source| TaskSetError::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        let mut reader = BufReader::new(file);
        let (mut tasks, mut seen) = (Vec::new(), HashMap::new());
        let mut bytes = Vec::new();
        for line in 1.. {
            let refuse =
                |reason: String| TaskSetError::Line { path: path.to_owned(), line, reason };
            bytes.clear();
            let read =
                (&mut reader).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes).map_err(io)?;
            if read == 0 {
                break;
            }
            if read as u64 > LINE_BYTES_MAX {
                return Err(refuse(format!("longer than {LINE_BYTES_MAX} bytes")));
            }
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            let task: Task =
                serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
            if task.instance_id.as_str().is_empty() {
                return Err(refuse("`instance_id` is empty".to_owned()));
            }
            if let Some(first) = seen.insert(task.instance_id.clone(), line) {
                let id = &task.instance_id;
                return Err(refuse(format!("`instance_id` {id} is also on line {first}")));
            }
            if tasks.len() == TASKS_MAX {
                return Err(refuse(format!("more than {TASKS_MAX} tasks in one file")));
            }
            tasks.push(task);
        }
        if tasks.is_empty() {
            return Err(TaskSetError::Empty { path: path.to_owned() });
        }
        Ok(Self { tasks })
    }

    /// Writes the tasks, whole or not at all: a file beside it is renamed into place.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TaskSetError> {
        let io = |source| TaskSetError::Io { path: path.to_owned(), source };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let mut file =
            tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(io)?;
        let mut out = std::io::BufWriter::new(file.as_file_mut());
        self.write(&mut out).and_then(|()| out.flush()).map_err(io)?;
        drop(out);
        file.as_file().sync_all().map_err(io)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let readable = std::fs::Permissions::from_mode(0o644);
            file.as_file().set_permissions(readable).map_err(io)?;
        }
        file.persist(path).map_err(|error| io(error.error))?;
        Ok(())
    }

    /// Writes the tasks as JSONL.
    ///
    /// # Errors
    /// When `out` refuses.
    pub fn write(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        for task in &self.tasks {
            serde_json::to_writer(&mut *out, task)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// The tasks on one side of the split.
    pub fn on(&self, split: Split) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(move |task| task.split == split)
    }

    /// The task of that name.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| task.instance_id.as_str() == id)
    }
}

impl From<Vec<Task>> for TaskSet {
    fn from(tasks: Vec<Task>) -> Self {
        Self { tasks }
    }
}
