//! The launcher: a separate, single-threaded process that builds the walls, and as process 1 inside
//! them answers its owner until the stream between them is closed. Never runs in the owner's
//! process, never prints, never touches a path of the host once the walls stand.
//!
//! - `walls`: namespaces, private root, no privileges
//! - `filter`: Landlock and seccomp
//! - `serve`: one request after the other
//! - `run`: one command, and the end of everything it started
//! - `tree`: files of the repository
//! - `sys`: the system calls that need `unsafe`

mod filter;
mod run;
mod serve;
mod sys;
mod tree;
mod walls;

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::exit;

use crate::frame::{self, Answer, Response, Setup};

/// The argument that makes a program a launcher.
pub const SUBCOMMAND: &str = "sandbox-launch";

/// A wall that could not be built.
#[derive(Debug)]
struct Refused {
    layer: &'static str,
    reason: String,
}

impl Refused {
    fn because(layer: &'static str, what: &str) -> impl FnOnce(nix::Error) -> Self {
        let what = what.to_owned();
        move |error| Self { layer, reason: format!("{what}: {error}") }
    }
}

/// Takes the place of `main` in the launcher process. Standard input is the stream to the owner,
/// standard output the template's image.
pub fn main() -> ! {
    // Nobody is there to be told of an error: the owner has gone or is no owner.
    exit(start().unwrap_or(2))
}

fn start() -> std::io::Result<i32> {
    sys::close_from(3)?;
    let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut image = Vec::new();
    File::from(std::io::stdout().as_fd().try_clone_to_owned()?).read_to_end(&mut image)?;
    sys::null_standard()?;
    let Some((setup, _)) = frame::read::<Setup>(&mut stream)? else { return Ok(0) };
    let home = match &setup.open_folder {
        Some(folder) => serve::Home::open(folder.into()),
        None => match walls::enter(&setup.limits) {
            Ok(walls::Side::Inside) => serve::Home::walled(),
            Ok(walls::Side::Outside(child)) => {
                drop(stream);
                return Ok(walls::wait(child));
            }
            Err(Refused { layer, reason }) => {
                let answer = Answer::Refused { layer: layer.to_owned(), reason };
                frame::write(&mut stream, &Response { id: 0, answer }, &[])?;
                return Ok(1);
            }
        },
    };
    let served = serve::serve(&home, &setup.limits, &mut stream, &image);
    home.leave();
    served.map(|()| 0)
}
