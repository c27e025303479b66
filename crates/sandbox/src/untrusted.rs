//! What the owner of a sandbox, and the launcher, make of bytes: for tests that feed them any. Never
//! used by either.

use std::io::Cursor;

use crate::frame::{self, Request, Response};
use crate::image;

/// Whether a buffer begins with a whole answer, as its owner reads it, and whether the two ways of
/// reading one agree.
#[must_use]
pub fn is_answer(buffer: &[u8]) -> bool {
    let Ok(Some((answer, body, used))) = frame::decode::<Response>(buffer) else { return false };
    let again = frame::encode(&answer, &body).expect("what was read can be written");
    let read = frame::decode::<Response>(&again).expect("what was written can be read");
    assert_eq!(read.map(|(_, body, _)| body).as_deref(), Some(&body[..]));
    assert!(used <= buffer.len());
    true
}

/// Whether a stream begins with a whole request, as the launcher reads it.
#[must_use]
pub fn is_request(stream: &[u8]) -> bool {
    matches!(frame::read::<Request>(&mut Cursor::new(stream)), Ok(Some(_)))
}

/// The paths of an image, if it is one; what is read is written as it was.
#[must_use]
pub fn paths_of_image(bytes: &[u8]) -> Option<Vec<String>> {
    let entries = image::entries(bytes).ok()?;
    let mut again = Vec::new();
    for entry in &entries {
        image::push(&mut again, entry.kind, entry.path, entry.content).expect("was read");
    }
    assert_eq!(again, bytes);
    Some(entries.iter().map(|entry| entry.path.to_owned()).collect())
}

/// What is written, to begin with.
#[derive(Debug)]
pub struct Examples {
    /// Whole answers.
    pub answers: Vec<Vec<u8>>,
    /// Whole requests.
    pub requests: Vec<Vec<u8>>,
    /// Images.
    pub images: Vec<Vec<u8>>,
}

/// Answers, requests and images as they are written, to begin with.
#[must_use]
pub fn examples() -> Examples {
    use crate::frame::{Answer, Ask, Ended, PatchOutcome, Ran};
    use crate::image::Kind;
    let written =
        |answer, body: &[u8]| frame::encode(&Response { id: 3, answer }, body).expect("is small");
    let ran = Ran { code: Some(1), signal: None, ended: Ended::WallTime, cut_bytes: 7 };
    let exported = Answer::Exported { deleted: vec!["a.py".into()], skipped: vec!["p".into()] };
    let answers = vec![
        written(Answer::Ready, b""),
        written(Answer::Refused { layer: "mounts".into(), reason: "no".into() }, b""),
        written(Answer::Ran(ran), b"output\n"),
        written(Answer::Patched(PatchOutcome::ManyMatches(3)), b""),
        written(exported, b"image"),
        written(Answer::Rejected { reason: "no such file".into() }, b""),
        written(Answer::TooMuch { reason: "more than 256 files were changed".into() }, b""),
    ];
    let asked = |ask, body: &[u8]| frame::encode(&Request { id: 9, ask }, body).expect("is small");
    let patch = Ask::Patch { path: "a.py".into(), old: "x".into(), new: "y".into() };
    let requests = vec![
        asked(Ask::Exec { cmd: "ls -la".into() }, b""),
        asked(Ask::Read { path: "a.py".into(), bytes_max: 100 }, b""),
        asked(Ask::Write { path: "a.py".into() }, b"x = 1\n"),
        asked(patch, b""),
        asked(Ask::Export, b""),
    ];
    let mut image = Vec::new();
    for (kind, path, content) in [
        (Kind::Folder, "a", &b""[..]),
        (Kind::File, "a/x.py", b"x = 1\n"),
        (Kind::Executable, "run.sh", b"#!/bin/sh\n"),
        (Kind::Link, "link", b"a/x.py"),
    ] {
        image::push(&mut image, kind, path, content).expect("plain");
    }
    Examples { answers, requests, images: vec![image] }
}
