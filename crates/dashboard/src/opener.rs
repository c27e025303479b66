//! Shows the page in the person's browser. The token is not put on a command line, which every user of
//! the machine could read, but in a file that only its owner can.

use std::io::Write as _;
use std::process::{Command, Stdio};

use tempfile::NamedTempFile;

/// Programs that open a file with what the person set for it.
const OPENERS: [&str; 3] = ["xdg-open", "open", "wslview"];

/// Opens an address. The file it goes through is gone when what is returned is dropped.
///
/// # Errors
/// The file cannot be written, or no program opens it.
pub fn open(address: &str) -> std::io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("crrl-dashboard-").suffix(".html").tempfile()?;
    write!(file, "<!doctype html><meta http-equiv=\"refresh\" content=\"0;url={address}\">")?;
    file.flush()?;
    for opener in OPENERS {
        let started = Command::new(opener)
            .arg(file.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Ok(mut child) = started {
            // It hands the file over and ends; nobody waits for it otherwise.
            std::thread::spawn(move || drop(child.wait()));
            return Ok(file);
        }
    }
    Err(std::io::Error::other(format!("none of {} is installed", OPENERS.join(", "))))
}
