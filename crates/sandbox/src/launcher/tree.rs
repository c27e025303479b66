//! Files of the repository, as found by process 1: every path is resolved below the repository's
//! folder by the kernel, pipes are never waited for, links are never followed out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

use crate::frame::PatchOutcome;
use crate::image::{self, Entry, Kind};
use crate::options::Limits;

/// Folders below folders that are walked.
const DEPTH_MAX: usize = 64;
/// Files looked at in one export.
const LOOKED_AT_MAX: usize = 100_000;
/// Bytes of a link's target.
const TARGET_BYTES_MAX: usize = 4096;
/// Characters of a path that is only told of: as many as are told of must fit into one frame.
const TOLD_CHARS_MAX: usize = 200;

/// The repository.
pub(super) struct Tree {
    root: File,
}

/// What differs from the base.
#[derive(Default)]
pub(super) struct Found {
    pub(super) image: Vec<u8>,
    pub(super) deleted: Vec<String>,
    pub(super) skipped: Vec<String>,
}

/// Why there is no export.
pub(super) enum NoExport {
    /// More was changed than is read back: the agent's doing.
    TooMuch(String),
    /// It could not be read.
    Failed(String),
}

impl From<io::Error> for NoExport {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Tree {
    pub(super) fn open(repo: &Path) -> io::Result<Self> {
        Ok(Self { root: File::open(repo)? })
    }

    /// Lets us, and the next command, into the repository's folder whatever was done to its mode.
    pub(super) fn unlock(&self) -> io::Result<()> {
        self.root.set_permissions(fs::Permissions::from_mode(0o755))
    }

    /// A plain file, of at most `bytes_max` bytes.
    pub(super) fn read(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
        let file = self.file(path, OFlag::O_RDONLY, Mode::empty()).map_err(|e| e.to_string())?;
        whole(&file, bytes_max)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("larger than {bytes_max} bytes"))
    }

    /// Writes a file and the folders it is in.
    pub(super) fn write(&self, path: &str, content: &[u8]) -> io::Result<()> {
        let path = below(path).ok_or(io::ErrorKind::InvalidInput)?;
        for (at, _) in path.match_indices('/') {
            let parent = path[..at].rsplit_once('/').map_or(".", |(parent, _)| parent);
            let name = path[..at].rsplit('/').next().unwrap_or_default();
            let parent = self.open_at(parent, OFlag::O_DIRECTORY, Mode::empty())?;
            match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let flags = OFlag::O_RDWR | OFlag::O_CREAT;
        let file = self.file(path, flags, Mode::from_bits_truncate(0o644))?;
        replace(&file, content)
    }

    /// Replaces `old` by `new` where it occurs exactly once.
    pub(super) fn patch(
        &self,
        path: &str,
        old: &str,
        new: &str,
        limits: &Limits,
    ) -> io::Result<PatchOutcome> {
        let Some(path) = below(path) else { return Ok(PatchOutcome::Outside) };
        if path.split('/').next() == Some(".git") {
            return Ok(PatchOutcome::Outside);
        }
        let file = match self.file(path, OFlag::O_RDWR, Mode::empty()) {
            Ok(file) => file,
            Err(error) => return not_patched(error),
        };
        let bytes_max = usize::try_from(limits.file_bytes).unwrap_or(usize::MAX);
        let Some(content) = whole(&file, bytes_max)? else { return Ok(PatchOutcome::TooLarge) };
        let first = match matches(&content, old.as_bytes()) {
            (0, _) => return Ok(PatchOutcome::NoMatch),
            (1, first) => first,
            (n, _) => return Ok(PatchOutcome::ManyMatches(n)),
        };
        let patched = [&content[..first], new.as_bytes(), &content[first + old.len()..]].concat();
        if patched.len() > bytes_max {
            return Ok(PatchOutcome::TooLarge);
        }
        if let Err(error) = replace(&file, &patched) {
            // What it held had room before.
            let _ = replace(&file, &content);
            return not_patched(error);
        }
        Ok(PatchOutcome::Applied)
    }

    /// Everything that differs from the base in `image`.
    pub(super) fn export(&self, image: &[u8], limits: &Limits) -> Result<Found, NoExport> {
        let entries = image::entries(image).map_err(io::Error::other)?;
        let base = entries.into_iter().filter(|e| e.kind != Kind::Folder && !image::is_git(e.path));
        let base: BTreeMap<&str, Entry<'_>> = base.map(|entry| (entry.path, entry)).collect();
        let mut walk = Walk {
            tree: self,
            base: &base,
            limits,
            seen: BTreeSet::new(),
            changed: 0,
            looked_at: 0,
            found: Found::default(),
        };
        walk.folder("", 0)?;
        let Walk { seen, mut found, .. } = walk;
        found.deleted =
            base.keys().filter(|path| !seen.contains(**path)).map(|p| (*p).to_owned()).collect();
        if found.deleted.len() > limits.export_files_max {
            return Err(NoExport::TooMuch(format!(
                "{} files were deleted; at most {} may be",
                found.deleted.len(),
                limits.export_files_max
            )));
        }
        Ok(found)
    }

    /// Opens a plain file below the repository; whatever else is there is refused.
    fn file(&self, path: &str, flags: OFlag, mode: Mode) -> io::Result<File> {
        let path = below(path).ok_or(io::ErrorKind::InvalidInput)?;
        let file = self.open_at(path, flags, mode)?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file")),
        }
    }

    fn open_at(&self, path: &str, flags: OFlag, mode: Mode) -> io::Result<File> {
        // Not blocking: a pipe must not hold process 1 up.
        let safe = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let how = OpenHow::new()
            .flags(flags | safe)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(File::from(openat2(self.root.as_fd(), path, how)?))
    }
}

/// A walk over the repository that collects what differs.
struct Walk<'a> {
    tree: &'a Tree,
    base: &'a BTreeMap<&'a str, Entry<'a>>,
    limits: &'a Limits,
    seen: BTreeSet<String>,
    changed: usize,
    looked_at: usize,
    found: Found,
}

impl Walk<'_> {
    fn folder(&mut self, prefix: &str, depth: usize) -> Result<(), NoExport> {
        if depth > DEPTH_MAX {
            return Err(NoExport::TooMuch(format!("folders more than {DEPTH_MAX} deep")));
        }
        let at = if prefix.is_empty() { "." } else { prefix };
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let Ok(folder) = self.tree.open_at(at, flags, Mode::empty()) else {
            self.skip(prefix);
            return Ok(());
        };
        use std::os::fd::AsRawFd;
        let listed = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        let mut names = Vec::new();
        for entry in listed? {
            let entry = entry?;
            self.looked_at += 1;
            if self.looked_at > LOOKED_AT_MAX {
                return Err(NoExport::TooMuch(format!("more than {LOOKED_AT_MAX} files")));
            }
            names.push((entry.file_name(), entry.file_type()?, entry.path()));
        }
        names.sort_by(|x, y| x.0.cmp(&y.0));
        for (name, kind, through) in names {
            let text = name.to_string_lossy();
            let path =
                if prefix.is_empty() { text.to_string() } else { format!("{prefix}/{text}") };
            if image::is_git(&text)
                || (is_compiled(&text) && !self.base.contains_key(path.as_str()))
            {
                continue;
            }
            if name.to_str().is_none() || !image::is_plain(&path) {
                self.skip(&path);
            } else if kind.is_dir() {
                self.folder(&path, depth + 1)?;
            } else if kind.is_symlink() {
                // A folder may be listed and its links not read.
                match fs::read_link(&through) {
                    Ok(target) if target.as_os_str().len() <= TARGET_BYTES_MAX => {
                        self.take(&path, Kind::Link, target.as_os_str().as_bytes())?;
                    }
                    _ => self.skip(&path),
                }
            } else if kind.is_file() {
                self.file(&path)?;
            } else {
                self.skip(&path);
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &str) -> Result<(), NoExport> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW;
        let Ok(file) = self.tree.file(path, flags, Mode::empty()) else {
            self.skip(path);
            return Ok(());
        };
        let mode = file.metadata()?.permissions().mode();
        let kind = if mode & 0o100 == 0 { Kind::File } else { Kind::Executable };
        match whole(&file, self.limits.export_bytes)? {
            Some(content) => self.take(path, kind, &content),
            // A large file of the base that nobody touched is no change.
            None if self.same_as_large_base(path, kind, &file) => {
                self.seen.insert(path.to_owned());
                Ok(())
            }
            None => {
                let (path, max) = (told(path), self.limits.export_bytes);
                Err(NoExport::TooMuch(format!("{path} is larger than {max} bytes")))
            }
        }
    }

    fn same_as_large_base(&self, path: &str, kind: Kind, file: &File) -> bool {
        let Some(base) = self.base.get(path) else { return false };
        base.kind == kind
            && matches!(whole(file, base.content.len()), Ok(Some(content)) if content == base.content)
    }

    fn take(&mut self, path: &str, kind: Kind, content: &[u8]) -> Result<(), NoExport> {
        self.seen.insert(path.to_owned());
        if self.base.get(path).is_some_and(|base| base.kind == kind && base.content == content) {
            return Ok(());
        }
        self.changed += 1;
        let (files_max, bytes_max) = (self.limits.export_files_max, self.limits.export_bytes);
        if self.changed > files_max {
            return Err(NoExport::TooMuch(format!("more than {files_max} files were changed")));
        }
        if self.found.image.len() + content.len() > bytes_max {
            return Err(NoExport::TooMuch(format!("more than {bytes_max} bytes were changed")));
        }
        Ok(image::push(&mut self.found.image, kind, path, content).map_err(io::Error::other)?)
    }

    fn skip(&mut self, path: &str) {
        if self.found.skipped.len() < self.limits.export_files_max {
            self.found.skipped.push(told(path));
        }
    }
}

/// A path as it is told of: printable, and short.
fn told(path: &str) -> String {
    path.escape_debug().take(TOLD_CHARS_MAX).collect()
}

/// What came of a replacement that could not be made; an error where that is not the agent's doing.
fn not_patched(error: io::Error) -> io::Result<PatchOutcome> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG) => Ok(PatchOutcome::NotFound),
        Some(libc::EXDEV | libc::ELOOP | libc::EISDIR | libc::ENXIO | libc::EINVAL) => {
            Ok(PatchOutcome::Outside)
        }
        Some(libc::EACCES | libc::EPERM) => Ok(PatchOutcome::NotAllowed),
        Some(libc::ENOSPC) => Ok(PatchOutcome::NoRoom),
        _ if error.kind() == io::ErrorKind::InvalidInput => Ok(PatchOutcome::Outside),
        _ => Err(error),
    }
}

/// What running Python leaves behind.
fn is_compiled(name: &str) -> bool {
    matches!(name, "__pycache__" | ".pytest_cache") || name.ends_with(".pyc")
}

/// A path as the agent writes it, made relative to the repository.
fn below(path: &str) -> Option<&str> {
    let path = path.strip_prefix("/repo/").unwrap_or(path);
    let path = path.strip_prefix("./").unwrap_or(path);
    (!path.is_empty() && !path.starts_with('/') && !path.contains('\0')).then_some(path)
}

/// A file's content from its start; `None` where it is larger than `bytes_max`.
fn whole(mut file: &File, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    file.rewind()?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut content)?;
    Ok((content.len() <= bytes_max).then_some(content))
}

fn replace(mut file: &File, content: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)
}

/// How often `old` occurs, overlaps counted, and where first.
fn matches(content: &[u8], old: &[u8]) -> (usize, usize) {
    if old.is_empty() {
        return (0, 0);
    }
    let mut at = content.windows(old.len()).enumerate().filter(|(_, window)| *window == old);
    match at.next() {
        None => (0, 0),
        Some((first, _)) => (1 + at.count(), first),
    }
}
