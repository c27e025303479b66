//! Looks that go on: watch, diagnose, record.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crrl_cluster::RunDir;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{json, line, remark, runtime};
use crate::collector::Collector;
use crate::diagnose::{Verdict, diagnose as judge};
use crate::error::InspectError;
use crate::feed::{Session, now_ms};
use crate::frame::Frame;
use crate::recording::{Recorder, Written};
use crate::state::World;
use crate::state::nodes::Standing;
use crate::tail::Tail;
use crate::units::{bytes, clock};

/// Time between two looks at what is recorded beside frames.
const COLLECT_EVERY: Duration = Duration::from_millis(200);
/// How long the first frame is waited for beside the time that was asked for.
const FIRST_FRAME_MAX: Duration = Duration::from_secs(10);
/// How long what is left to be read is waited for, once nothing more is seen.
const LAST_LOOK_MAX: Duration = Duration::from_secs(2);
/// Time between two lines for people.
const LINE_EVERY_MS: u64 = 1_000;
/// History is read in pieces; so many at most before it is judged.
const TAIL_READS: usize = 4;

/// Prints every change, a line each, until the cluster ends or nobody reads.
///
/// # Errors
/// [`InspectError`].
pub fn watch(
    run: &RunDir,
    who: Option<&str>,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<(), InspectError> {
    runtime()?.block_on(async {
        let mut session = Session::open(run, who).await?;
        let mut world = World::new();
        let mut last: Option<Frame> = None;
        let mut said_ms = 0;
        while let Ok(frame) = session.next().await {
            let is_same = last.as_ref().is_some_and(|last| last.snapshot == frame.snapshot);
            if as_json && !is_same && !line(out, &json(&frame)?)? {
                break;
            }
            world.fold(frame.clone());
            if !as_json && frame.at_ms >= said_ms + LINE_EVERY_MS {
                said_ms = frame.at_ms;
                if !line(out, &summary(&world))? {
                    break;
                }
            }
            last = Some(frame);
        }
        session.close().await;
        Ok(())
    })
}

/// The cluster in a line.
#[must_use]
pub fn summary(world: &World) -> String {
    let Some(progress) = world.progress() else { return "nothing was seen yet".to_owned() };
    let ready = world.nodes().iter().filter(|node| node.state == Standing::Ready).count();
    let verdict = judge(world);
    let wrong = match verdict.findings.as_slice() {
        [] => "healthy".to_owned(),
        [one] => one.says.clone(),
        [first, ..] => format!("{} (and {} more)", first.says, verdict.found - 1),
    };
    format!(
        "{}  {}  step {}/{}  {} out {} back  {ready}/{} nodes ready  {wrong}",
        clock(world.now_ms()),
        crate::text::plain(&progress.phase, 60),
        progress.step,
        progress.steps,
        progress.episodes.in_flight,
        progress.episodes.finished,
        world.nodes().len(),
    )
}

/// Looks for a while and judges. Ends early as soon as something is wrong that nobody meant to be: what
/// an injected fault or a suspension leads to shows only later.
///
/// # Errors
/// [`InspectError`]; a cluster that stops answering in between is a finding, not an error.
pub fn diagnose(
    run: &RunDir,
    who: Option<&str>,
    look_for: Duration,
) -> Result<Verdict, InspectError> {
    runtime()?.block_on(async {
        let mut session = Session::open(run, who).await?;
        let mut world = World::new();
        let mut tail = Tail::new(&run.events());
        (0..TAIL_READS).for_each(|_| tail.read(&mut world.history));
        let deadline = Instant::now() + look_for;
        loop {
            // Nothing is judged before anything was seen; the session has a deadline of its own.
            let next = match world.frame() {
                None => Ok(session.next().await),
                Some(_) => timeout_at(deadline, session.next()).await,
            };
            match next {
                Ok(Ok(frame)) => world.fold(frame),
                Ok(Err(source)) if world.frame().is_none() => {
                    return Err(InspectError::Unreachable { path: run.path().to_owned(), source });
                }
                Ok(Err(_)) => {
                    sleep_until(deadline).await;
                    break;
                }
                Err(_) => break,
            }
            tail.read(&mut world.history);
            if judge(&world).findings.iter().any(|finding| !finding.rule.is_meant()) {
                break;
            }
        }
        session.close().await;
        world.tick(now_ms());
        Ok(judge(&world))
    })
}

/// Prints a verdict. Findings that are not told are counted on stderr.
///
/// # Errors
/// Nobody reads.
pub fn print(verdict: &Verdict, as_json: bool, out: &mut dyn Write) -> Result<(), InspectError> {
    if let Some(says) = verdict.left_out() {
        remark(&says);
    }
    if as_json {
        line(out, &json(verdict)?)?;
        return Ok(());
    }
    for finding in &verdict.findings {
        if !line(out, &finding.says)? {
            return Ok(());
        }
    }
    let word = if verdict.healthy { "healthy" } else { "not healthy" };
    line(out, &format!("{word}: looked at {}", verdict.looked_at))?;
    Ok(())
}

/// Writes frames to a file, and beside them history, curves and episodes, until the time is over, the
/// cluster ends, or Ctrl-C. Says what it wrote in the end, and tells with every frame how much that is so far.
///
/// # Errors
/// [`InspectError`].
pub fn record(
    run: &RunDir,
    who: Option<&str>,
    path: &Path,
    seconds: Option<Duration>,
    tell: &dyn Fn(Written),
) -> Result<String, InspectError> {
    runtime()?.block_on(async {
        let mut session = Session::open(run, who).await?;
        let name = run.path().file_name().map_or_else(String::new, |n| n.to_string_lossy().into());
        let mut recorder = Recorder::create(path, &name)?;
        let mut collector = Collector::open(run)?;
        // The time begins with the first frame, which may be long in coming.
        let (mut deadline, mut has_begun) =
            (seconds.map(|seconds| Instant::now() + seconds + FIRST_FRAME_MAX), false);
        let stopped = tokio::signal::ctrl_c();
        tokio::pin!(stopped);
        let mut collecting = tokio::time::interval(COLLECT_EVERY);
        let why = 'recording: loop {
            // A frame that has begun to come is waited for, whatever else is done meanwhile.
            let next = session.next();
            let over = async move {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(next, over);
            let frame = loop {
                tokio::select! {
                    () = &mut over => break 'recording "the time is over",
                    _ = &mut stopped => break 'recording "stopped",
                    _ = collecting.tick() => {
                        collector.pump(std::time::Instant::now(), &mut recorder)?;
                    }
                    frame = &mut next => break frame,
                }
            };
            match frame {
                Ok(frame) => {
                    if !std::mem::replace(&mut has_begun, true) {
                        deadline = seconds.map(|seconds| Instant::now() + seconds);
                    }
                    collector.see(&frame);
                    if !recorder.push(&frame)? {
                        break "the file is as large as it may be";
                    }
                    tell(recorder.written());
                }
                Err(_) => break "the cluster has ended",
            }
        };
        session.close().await;
        collector.look_again();
        let late = Instant::now() + LAST_LOOK_MAX;
        loop {
            collector.pump(std::time::Instant::now(), &mut recorder)?;
            if collector.is_idle() || Instant::now() >= late {
                break;
            }
            collecting.tick().await;
        }
        let says = recorded(why, recorder.written(), path);
        Ok(match collector.problem() {
            Some(problem) => {
                format!("{says}\nnot everything could be read beside the frames: {problem}")
            }
            None => says,
        })
    })
}

fn recorded(why: &str, written: Written, path: &Path) -> String {
    let Written { frames, frames_left_out, transcripts, left_out, bytes: size } = written;
    let long = match frames_left_out {
        0 => String::new(),
        frames => format!(" ({frames} more were left out: longer than a line of 8 MiB may be)"),
    };
    let no_room = match left_out {
        0 => String::new(),
        left_out => format!(" ({left_out} pieces of episodes were left out: too long, or no room)"),
    };
    format!(
        "{why}: {frames} frames{long} and {transcripts} transcripts{no_room}, {} in {}",
        bytes(size),
        path.display()
    )
}
