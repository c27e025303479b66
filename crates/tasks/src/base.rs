//! The tree an agent starts from, in memory and on disk.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crrl_types::{Base, Task, TaskId};

use crate::git::{GitError, Repository};

/// Files of one base.
pub const FILES_MAX: usize = 100_000;
/// Bytes of one base.
pub const BYTES_MAX: usize = 1024 * 1024 * 1024;

/// A base that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The repository does not give it.
    #[error("task {task}: {source}")]
    Git {
        /// The task.
        task: TaskId,
        /// Why.
        source: GitError,
    },
    /// The base is a checkout, and `repo` is no folder here.
    #[error(
        "task {task}: its base is commit {commit} of {repo:?}, which is no repository on this machine; clone it and put its path into `repo`"
    )]
    NoRepository {
        /// The task.
        task: TaskId,
        /// The repository as the task names it.
        repo: String,
        /// The commit.
        commit: String,
    },
    /// A path leads out of the tree.
    #[error("task {task}: path {path:?} does not stay in the tree")]
    Path {
        /// The task.
        task: TaskId,
        /// The path.
        path: String,
    },
    /// The base is too large.
    #[error("task {task}: the base has over {FILES_MAX} files or {BYTES_MAX} bytes")]
    TooLarge {
        /// The task.
        task: TaskId,
    },
    /// A file cannot be read or written.
    #[error("task {task}: {}: {source}", path.display())]
    Io {
        /// The task.
        task: TaskId,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The base holds no file.
    #[error("task {task}: the base holds no file")]
    Empty {
        /// The task.
        task: TaskId,
    },
}

/// Every file of a task's base: relative path to content. Symbolic links and submodules of a
/// checkout are left out.
///
/// # Errors
/// When the base cannot be had; the task is named.
pub fn base_files(task: &Task) -> Result<BTreeMap<String, Vec<u8>>, BaseError> {
    let id = || task.instance_id.clone();
    let files = match &task.base {
        Base::Files { files } => {
            files.iter().map(|(path, text)| (path.clone(), text.clone().into_bytes())).collect()
        }
        Base::Tree { root, include, overlay } => tree(task, Path::new(root), include, overlay)?,
        Base::Commit => checkout(task)?,
    };
    if files.is_empty() {
        return Err(BaseError::Empty { task: id() });
    }
    if let Some(path) = files.keys().find(|path| !stays_inside(path)) {
        return Err(BaseError::Path { task: id(), path: path.clone() });
    }
    let bytes: usize = files.values().map(Vec::len).sum();
    if files.len() > FILES_MAX || bytes > BYTES_MAX {
        return Err(BaseError::TooLarge { task: id() });
    }
    Ok(files)
}

/// Writes a task's base into `dest`, which is made if it is not there.
///
/// # Errors
/// When the base cannot be had or a file cannot be written.
pub fn materialize(task: &Task, dest: &Path) -> Result<(), BaseError> {
    for (path, content) in base_files(task)? {
        let at = dest.join(&path);
        let io =
            |source| BaseError::Io { task: task.instance_id.clone(), path: at.clone(), source };
        if let Some(folder) = at.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        std::fs::write(&at, content).map_err(io)?;
    }
    Ok(())
}

/// Whether a path is relative, `/` separated and without `..` or git's own folder.
fn stays_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\0', '\\'])
        && Path::new(path).components().all(|part| match part {
            Component::Normal(name) => !name.eq_ignore_ascii_case(".git"),
            _ => false,
        })
}

fn tree(
    task: &Task,
    root: &Path,
    include: &[String],
    overlay: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Vec<u8>>, BaseError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| BaseError::Io {
            task: task.instance_id.clone(),
            path: path.to_owned(),
            source,
        })
    };
    let mut files = BTreeMap::new();
    if let Some(path) = include.iter().find(|path| !stays_inside(path)) {
        return Err(BaseError::Path { task: task.instance_id.clone(), path: path.clone() });
    }
    if include.is_empty() {
        std::fs::read_dir(root).map_err(|source| BaseError::Io {
            task: task.instance_id.clone(),
            path: root.to_owned(),
            source,
        })?;
        let mut bytes = 0;
        for entry in
            ignore::WalkBuilder::new(root).parents(false).follow_links(false).build().flatten()
        {
            let file = entry.file_type().is_some_and(|kind| kind.is_file());
            let relative = entry.path().strip_prefix(root).ok().and_then(Path::to_str);
            if let (true, Some(relative)) = (file, relative) {
                let content = read(entry.path())?;
                bytes += content.len();
                files.insert(relative.to_owned(), content);
            }
            if files.len() > FILES_MAX || bytes > BYTES_MAX {
                return Err(BaseError::TooLarge { task: task.instance_id.clone() });
            }
        }
    }
    for path in include.iter().filter(|path| !overlay.contains_key(*path)) {
        files.insert(path.clone(), read(&root.join(path))?);
    }
    files.extend(overlay.iter().map(|(path, text)| (path.clone(), text.clone().into_bytes())));
    Ok(files)
}

/// The blobs of a commit, straight from the object store: no filter, hook or index is involved.
fn checkout(task: &Task) -> Result<BTreeMap<String, Vec<u8>>, BaseError> {
    let git = |source| BaseError::Git { task: task.instance_id.clone(), source };
    if !Path::new(&task.repo).is_dir() || task.base_commit.is_empty() {
        return Err(BaseError::NoRepository {
            task: task.instance_id.clone(),
            repo: task.repo.clone(),
            commit: task.base_commit.clone(),
        });
    }
    let repository = Repository::open(Path::new(&task.repo)).map_err(git)?;
    let commit = task.base_commit.as_str();
    // An object name, never an option or an expression.
    if !commit.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(git(GitError::Failed {
            command: "ls-tree".to_owned(),
            repo: repository.root().to_owned(),
            message: format!("{commit:?} is no commit"),
        }));
    }
    let listed = repository.run(&["ls-tree", "-r", "-z", commit], b"").map_err(git)?;
    let mut wanted = Vec::new();
    for entry in listed.split(|b| *b == 0).filter(|entry| !entry.is_empty()) {
        let entry = String::from_utf8_lossy(entry);
        let Some((about, path)) = entry.split_once('\t') else { continue };
        let mut about = about.split(' ');
        if let (Some("100644" | "100755"), Some("blob"), Some(id)) =
            (about.next(), about.next(), about.next())
        {
            wanted.push((path.to_owned(), id.to_owned()));
        }
    }
    if wanted.len() > FILES_MAX {
        return Err(BaseError::TooLarge { task: task.instance_id.clone() });
    }
    let mut names = String::new();
    for (_, id) in &wanted {
        names.push_str(id);
        names.push('\n');
    }
    let batch = repository.run(&["cat-file", "--batch"], names.as_bytes()).map_err(git)?;
    contents(&wanted, &batch).ok_or_else(|| {
        git(GitError::Failed {
            command: "cat-file --batch".to_owned(),
            repo: repository.root().to_owned(),
            message: "an object is missing or damaged".to_owned(),
        })
    })
}

/// Reads `<id> blob <length>\n<bytes>\n`, once for each path.
fn contents(wanted: &[(String, String)], mut batch: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for (path, _) in wanted {
        let newline = batch.iter().position(|b| *b == b'\n')?;
        let head = std::str::from_utf8(&batch[..newline]).ok()?;
        let length: usize = head.split(' ').nth(2)?.parse().ok()?;
        let body = batch.get(newline + 1..newline + 1 + length)?;
        files.insert(path.clone(), body.to_vec());
        batch = batch.get(newline + length + 2..)?;
    }
    Some(files)
}
