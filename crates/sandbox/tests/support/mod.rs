//! What the tests share: a small repository, a backend, sandboxes.
#![allow(dead_code, reason = "every test program uses a part of it")]

#[path = "../../../../tests/support/skips.rs"]
mod skips;
#[path = "../../../../tests/support/until.rs"]
mod until;

use std::path::PathBuf;
use std::sync::Arc;

use crrl_sandbox::{Limits, LocalBackend, Options, Sandbox, Template, Unavailable};
pub(crate) use skips::skipped;

/// Options that start this crate's own launcher.
pub(crate) fn options(limits: Limits) -> Options {
    let launcher = Some(PathBuf::from(env!("CARGO_BIN_EXE_crrl-sandbox-launch")));
    Options { limits, launcher, run_without_isolation: false }
}

/// A backend, or `None` with a message where this machine has no namespaces.
pub(crate) fn backend(limits: Limits) -> Option<LocalBackend> {
    match LocalBackend::new(options(limits)) {
        Ok(backend) => Some(backend),
        Err(error @ Unavailable::Layer { .. }) => {
            skipped(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A repository of a few files.
pub(crate) fn template() -> Arc<Template> {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |path: &str, text: &str| {
        let to = folder.path().join(path);
        std::fs::create_dir_all(to.parent().expect("has one")).expect("made");
        std::fs::write(to, text).expect("written");
    };
    write("src/calc.py", "def add(a, b):\n    return a - b\n\n\ndef twice(a):\n    return a + a\n");
    write("README.md", "a repository\n");
    write("gone.txt", "to be deleted\n");
    let cache = tempfile::tempdir().expect("a folder");
    Arc::new(Template::prepare(folder.path(), cache.path()).expect("a template"))
}

/// An open sandbox with the usual limits.
pub(crate) async fn open() -> Option<Sandbox> {
    open_with(Limits::default()).await
}

/// An open sandbox.
pub(crate) async fn open_with(limits: Limits) -> Option<Sandbox> {
    let backend = backend(limits)?;
    Some(backend.open(&template()).await.expect("opens"))
}

/// What a command prints, whatever its status.
pub(crate) async fn says(sandbox: &mut Sandbox, cmd: &str) -> String {
    sandbox.exec(cmd).await.expect("the sandbox lives").output
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    until::until(what, || holds().then_some(()));
}
