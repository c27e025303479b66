//! A task's base, made once: our pristine copy, and the repository with one commit the agent gets.
//!
//! Both live in one image, in a file that has no name: it is gone when the last handle is, however
//! the program ends. Never reads the `.git` of the folder it is made from.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use crate::image::{self, Kind};
use crate::repository;

/// Bytes of a base with its repository: it is copied into memory for every sandbox.
const IMAGE_BYTES_MAX: usize = 256 << 20;
/// Files and folders of a base with its repository.
const ENTRIES_MAX: usize = 50_000;

/// A template could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// Git is missing or failed.
    #[error("git {command}: {reason}")]
    Git {
        /// What it was asked.
        command: String,
        /// What it said.
        reason: String,
    },
    /// The base is too large.
    #[error(
        "the base {folder} is too large: at most {IMAGE_BYTES_MAX} bytes in {ENTRIES_MAX} files"
    )]
    TooLarge {
        /// Where it was.
        folder: String,
    },
    /// A file's name cannot be carried.
    #[error("the name {name} is not plain text")]
    Name {
        /// The name, made printable.
        name: String,
    },
}

/// One file of the pristine base.
#[derive(Debug, Clone)]
pub(crate) struct BaseFile {
    pub(crate) kind: Kind,
    span: Range<u64>,
}

/// A task's base, ready to be opened any number of times.
#[derive(Debug)]
pub struct Template {
    image: File,
    files: BTreeMap<String, BaseFile>,
}

impl Template {
    /// Reads a folder and makes its repository, blocking (milliseconds; git is run). `cache` is
    /// any folder of ours with room for the base; it is made where missing.
    ///
    /// # Errors
    /// When the folder cannot be read, is too large, or git fails.
    pub fn prepare(folder: &Path, cache: &Path) -> Result<Self, TemplateError> {
        fs::create_dir_all(cache).map_err(at(cache))?;
        let scratch = tempfile::tempdir_in(cache).map_err(at(cache))?;
        let git = scratch.path().join("git");

        let mut base = Walk { top: folder, limit: IMAGE_BYTES_MAX, image: Vec::new(), entries: 0 };
        base.folder(folder, "", true)?;
        repository::make(&base.image, &git)?;
        let base_bytes = base.image.len();

        let mut walk = Walk { top: folder, ..base };
        image::push(&mut walk.image, Kind::Folder, ".git", b"").map_err(|_| name(".git"))?;
        walk.folder(&git, ".git", false)?;
        let bytes = walk.image;

        let mut image = tempfile::tempfile_in(cache).map_err(at(cache))?;
        image.write_all(&bytes).map_err(at(cache))?;
        Ok(Self { image, files: index(&bytes[..base_bytes])? })
    }

    /// A handle of the image that cannot change it.
    pub(crate) fn open_image(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.image.as_raw_fd()))
    }

    /// A file of the pristine base, by its path.
    pub(crate) fn base(&self, path: &str) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let Some(file) = self.files.get(path) else { return Ok(None) };
        let bytes = usize::try_from(file.span.end - file.span.start).map_err(io::Error::other)?;
        let mut content = vec![0; bytes];
        self.image.read_exact_at(&mut content, file.span.start)?;
        Ok(Some((file.kind, content)))
    }

    /// Paths of the pristine base.
    #[must_use]
    pub fn paths(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }
}

/// Where each file's content is.
fn index(image: &[u8]) -> Result<BTreeMap<String, BaseFile>, TemplateError> {
    let entries = image::entries(image).map_err(|error| name(&error.to_string()))?;
    let start = image.as_ptr().addr();
    let files = entries.into_iter().filter(|entry| entry.kind != Kind::Folder);
    Ok(files
        .map(|entry| {
            let from = (entry.content.as_ptr().addr() - start) as u64;
            let span = from..from + entry.content.len() as u64;
            (entry.path.to_owned(), BaseFile { kind: entry.kind, span })
        })
        .collect())
}

/// Collects a folder into an image, in the order of names.
struct Walk<'a> {
    top: &'a Path,
    limit: usize,
    image: Vec<u8>,
    entries: usize,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, prefix: &str, skip_git: bool) -> Result<(), TemplateError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(at(folder))? {
            names.push(entry.map_err(at(folder))?.file_name());
        }
        names.sort();
        for file in names {
            let Some(text) = file.to_str() else { return Err(name(&file.to_string_lossy())) };
            if skip_git && image::is_git(text) {
                continue;
            }
            let path = if prefix.is_empty() { text.to_owned() } else { format!("{prefix}/{text}") };
            self.entry(&folder.join(&file), &path, skip_git)?;
        }
        Ok(())
    }

    fn entry(&mut self, from: &Path, path: &str, skip_git: bool) -> Result<(), TemplateError> {
        let meta = fs::symlink_metadata(from).map_err(at(from))?;
        let (kind, content) = if meta.is_dir() {
            (Kind::Folder, Vec::new())
        } else if meta.is_symlink() {
            let target = fs::read_link(from).map_err(at(from))?;
            (Kind::Link, target.as_os_str().as_bytes().to_vec())
        } else if meta.is_file() {
            if meta.len() > self.limit as u64 {
                return Err(self.too_large());
            }
            let executable = meta.permissions().mode() & 0o100 != 0;
            let kind = if executable { Kind::Executable } else { Kind::File };
            (kind, fs::read(from).map_err(at(from))?)
        } else {
            // Sockets, pipes and devices are no part of a base.
            return Ok(());
        };
        self.entries += 1;
        if self.entries > ENTRIES_MAX || self.image.len() + content.len() > self.limit {
            return Err(self.too_large());
        }
        image::push(&mut self.image, kind, path, &content).map_err(|_| name(path))?;
        if kind == Kind::Folder { self.folder(from, path, skip_git) } else { Ok(()) }
    }

    fn too_large(&self) -> TemplateError {
        TemplateError::TooLarge { folder: self.top.display().to_string() }
    }
}

pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> TemplateError {
    let path = path.display().to_string();
    move |source| TemplateError::Io { path: path.clone(), source }
}

pub(crate) fn name(name: &str) -> TemplateError {
    TemplateError::Name { name: name.escape_debug().to_string() }
}
