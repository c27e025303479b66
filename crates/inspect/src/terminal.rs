//! The terminal while it is ours. It is given back however this ends: by return, error, panic or
//! signal.

use std::io::{self, IsTerminal as _, Stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, terminal};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use tokio::signal::unix::{SignalKind, signal};

/// Time the viewer has to leave by itself after a signal.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
/// Exit code of a viewer that had to be ended.
const STOPPED: i32 = 130;

/// The terminal. On stderr: stdout carries data only.
pub type Tty = Terminal<CrosstermBackend<Stderr>>;

/// The terminal, taken over until this is dropped.
#[derive(Debug)]
pub struct Screen {
    /// To draw on.
    pub tty: Tty,
    leave: Arc<AtomicBool>,
    has_mouse: bool,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// It is none, or does not do what it is told.
    pub fn open() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        let leave = listen()?;
        terminal::enable_raw_mode()?;
        let opened = execute!(io::stderr(), EnterAlternateScreen, cursor::Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stderr())));
        match opened {
            Ok(tty) => Ok(Self { tty, leave, has_mouse: false }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Takes the mouse, or gives it back to the terminal.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn point(&mut self, has_mouse: bool) -> io::Result<()> {
        if has_mouse != self.has_mouse {
            self.has_mouse = has_mouse;
            match has_mouse {
                true => execute!(io::stderr(), EnableMouseCapture)?,
                false => execute!(io::stderr(), DisableMouseCapture)?,
            }
        }
        Ok(())
    }

    /// Whether a signal asked for an end.
    #[must_use]
    pub fn must_leave(&self) -> bool {
        self.leave.load(Ordering::Relaxed)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether a person sits at it.
#[must_use]
pub fn is_there() -> bool {
    io::stderr().is_terminal() && io::stdin().is_terminal()
}

/// Gives the terminal back. Nothing can be done where that fails: it is gone.
fn restore() {
    let _ = terminal::disable_raw_mode();
    let _ = execute!(io::stderr(), DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
}

/// Hears the signals that end a process, from now to its end.
fn listen() -> io::Result<Arc<AtomicBool>> {
    let leave = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut hang_up) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    let heard = Arc::clone(&leave);
    std::thread::Builder::new().name("inspect-signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        heard.store(true, Ordering::Relaxed);
        // Waiting for a key of a terminal that was closed may never end: then this ends the process.
        std::thread::sleep(LEAVE_TIMEOUT);
        restore();
        std::process::exit(STOPPED);
    })?;
    Ok(leave)
}
