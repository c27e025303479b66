//! A node that was started over ssh ends with whoever started it. A connection that breaks ends the
//! standard input at once where the break is seen, and falls silent where it is not.

use std::io::Read as _;
use std::sync::mpsc;
use std::time::Duration;

use crrl_cluster::remote::TIED_SILENCE_MAX;
use nix::sys::signal::{Signal, raise};

/// How long the node may take to leave before the process ends all the same.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// From now on the process leaves, as at SIGTERM, once the standard input ends or is silent for
/// [`TIED_SILENCE_MAX`].
///
/// # Errors
/// No thread can be had.
pub(super) fn to_stdin() -> std::io::Result<()> {
    let (heard, signs) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut buffer = [0; 64];
        while std::io::stdin().lock().read(&mut buffer).is_ok_and(|len| len > 0) {
            // One that is not looked at yet is as good as two.
            let _ = heard.try_send(());
        }
    })?;
    std::thread::Builder::new().name("tie".into()).spawn(move || {
        while signs.recv_timeout(TIED_SILENCE_MAX).is_ok() {}
        tracing::info!("whoever started this node is gone: leaving");
        let _ = raise(Signal::SIGTERM);
        std::thread::sleep(LEAVE_TIMEOUT);
        std::process::exit(1);
    })?;
    Ok(())
}
