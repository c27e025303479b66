//! A terminal of its own for a program: tmux, which says what is on it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::skips::skipped;

/// How long anything may take on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// A terminal; it and what runs in it end with this.
pub(crate) struct Pane {
    socket: String,
}

impl Pane {
    /// Runs a shell command in a terminal of this size. `None`, and a word on it, where there is no
    /// tmux.
    pub(crate) fn open(size: (u16, u16), folder: &Path, command: &str) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            skipped("no tmux (package tmux)");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pane = Self { socket: format!("crrl-test-{}-{number}", std::process::id()) };
        let (width, height) = (size.0.to_string(), size.1.to_string());
        // The pane stays after the command: what it left behind is looked at.
        let command = format!("{command}; echo \"ENDED $?\"; exec cat");
        let folder = folder.to_str().expect("a path in UTF-8");
        let mut new = vec!["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height];
        new.extend(["-c", folder, &command]);
        let made = pane.tmux(&new);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(pane)
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut tmux = Command::new("tmux");
        tmux.args(["-u", "-L", &self.socket]).args(arguments).env_remove("TMUX");
        tmux.env("LC_ALL", "C.UTF-8").output().expect("tmux was there a moment ago")
    }

    /// Presses keys, by the names tmux has for them.
    pub(crate) fn keys(&self, keys: &[&str]) {
        let sent = self.tmux(&[&["send-keys"], keys].concat());
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    }

    /// Types a text.
    pub(crate) fn types(&self, text: &str) {
        self.keys(&["-l", text]);
    }

    /// Makes it larger or smaller.
    pub(crate) fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// What is on it.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// What tmux knows of it, as a format names it.
    pub(crate) fn knows(&self, format: &str) -> String {
        let said = self.tmux(&["display-message", "-p", format]);
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }

    /// Waits until all of this is on it; gives what is on it then.
    pub(crate) fn until(&self, wanted: &[&str]) -> String {
        self.until_that(&format!("{wanted:?}"), |text| wanted.iter().all(|w| text.contains(w)))
    }

    /// Waits until what is on it is as wanted.
    pub(crate) fn until_that(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let late = Instant::now() + DEADLINE;
        loop {
            let text = self.text();
            if wanted(&text) {
                return text;
            }
            assert!(Instant::now() < late, "{what} did not come:\n{text}");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
