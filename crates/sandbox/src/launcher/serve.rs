//! Answers one request after the other until the owner closes the stream.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::frame::{self, Answer, Ask, Request, Response};
use crate::launcher::run;
use crate::launcher::tree::{NoExport, Tree};
use crate::options::Limits;

/// Where the agent lives.
pub(super) struct Home {
    pub(super) repo: PathBuf,
    pub(super) home: PathBuf,
    pub(super) tmp: PathBuf,
    /// Whether there are walls, and this is process 1 behind them.
    pub(super) walled: bool,
    top: Option<PathBuf>,
}

impl Home {
    /// Behind walls.
    pub(super) fn walled() -> Self {
        let (repo, home, tmp) = ("/repo".into(), "/home/agent".into(), "/tmp".into());
        Self { repo, home, tmp, walled: true, top: None }
    }

    /// In a folder of the host, without walls.
    pub(super) fn open(top: PathBuf) -> Self {
        let under = |name: &str| top.join(name);
        let (repo, home, tmp) = (under("repo"), under("home"), under("tmp"));
        Self { repo, home, tmp, walled: false, top: Some(top) }
    }

    /// Removes what is left on disk: nothing behind walls.
    pub(super) fn leave(&self) {
        if !self.walled {
            run::end_all(self.walled);
        }
        if let Some(top) = &self.top {
            // The owner removes it too; either may be first.
            let _ = fs::remove_dir_all(top);
        }
    }
}

/// Lays the image out, greets, and answers.
pub(super) fn serve(
    home: &Home,
    limits: &Limits,
    stream: &mut UnixStream,
    image: &[u8],
) -> io::Result<()> {
    let tree = match prepare(home, image) {
        Ok(tree) => tree,
        Err(error) => {
            let reason = format!("lay the repository out: {error}");
            return send(stream, 0, Answer::Rejected { reason }, &[]);
        }
    };
    send(stream, 0, Answer::Ready, &[])?;
    while let Some((request, body)) = frame::read::<Request>(stream)? {
        // A command may have shut the folder, to us too. Where that stays so, what is asked says it.
        let _ = tree.unlock();
        let (answer, body) = match request.ask {
            Ask::Exec { cmd } => match run::run(home, limits, &cmd, stream) {
                Ok(run::End::Answer(ran, output)) => (Answer::Ran(ran), output),
                Ok(run::End::OwnerGone) => return Ok(()),
                Err(error) => (rejected(&format!("run the command: {error}")), Vec::new()),
            },
            Ask::Read { path, bytes_max } => match tree.read(&path, bytes_max) {
                Ok(content) => (Answer::Content, content),
                Err(reason) => (rejected(&format!("read {path}: {reason}")), Vec::new()),
            },
            Ask::Write { path } => match tree.write(&path, &body) {
                Ok(()) => (Answer::Done, Vec::new()),
                Err(error) => (rejected(&format!("write {path}: {error}")), Vec::new()),
            },
            Ask::Patch { path, old, new } => match tree.patch(&path, &old, &new, limits) {
                Ok(outcome) => (Answer::Patched(outcome), Vec::new()),
                Err(error) => (rejected(&format!("patch {path}: {error}")), Vec::new()),
            },
            Ask::Export => match tree.export(image, limits) {
                Ok(found) => {
                    let (deleted, skipped) = (found.deleted, found.skipped);
                    (Answer::Exported { deleted, skipped }, found.image)
                }
                Err(NoExport::TooMuch(reason)) => (Answer::TooMuch { reason }, Vec::new()),
                Err(NoExport::Failed(reason)) => {
                    (rejected(&format!("read the changes back: {reason}")), Vec::new())
                }
            },
        };
        send(stream, request.id, answer, &body)?;
    }
    Ok(())
}

fn prepare(home: &Home, image: &[u8]) -> io::Result<Tree> {
    if !home.walled {
        nix::sys::prctl::set_child_subreaper(true)?;
        for folder in [&home.repo, &home.home, &home.tmp] {
            fs::create_dir(folder)?;
        }
    }
    lay_out(image, &home.repo)?;
    Tree::open(&home.repo)
}

fn lay_out(image: &[u8], repo: &Path) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::OpenOptionsExt;

    use crate::image::{Kind, entries};

    for entry in entries(image).map_err(io::Error::other)? {
        let to = repo.join(entry.path);
        let file = |mode| {
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(mode).open(&to)?.write_all(entry.content)
        };
        match entry.kind {
            Kind::Folder => fs::create_dir(&to)?,
            Kind::File => file(0o644)?,
            Kind::Executable => file(0o755)?,
            Kind::Link => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(entry.content), &to)?;
            }
        }
    }
    Ok(())
}

fn rejected(reason: &str) -> Answer {
    Answer::Rejected { reason: reason.to_owned() }
}

fn send(stream: &mut UnixStream, id: u64, answer: Answer, body: &[u8]) -> io::Result<()> {
    frame::write(stream, &Response { id, answer }, body)
}
