//! What the history says of every episode, and whether it says the same as the ledger.

use crrl_types::{EventKind, Step};

use super::cases::{Cases, Standing};
use super::{Court, Invariant, Line};

/// The file of the history, for evidence.
const FILE: &str = "events.jsonl";

/// What the history says of one episode.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    attempt: u32,
    finished: bool,
    /// How it ended, and the line that says so.
    pub(super) end: Option<(End, u64)>,
}

/// How an episode ended, as the history tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Trained(Step),
    Dropped,
    Failed,
}

impl End {
    fn name(self) -> String {
        match self {
            Self::Trained(step) => format!("trained on in step {step}"),
            Self::Dropped => "dropped".to_owned(),
            Self::Failed => "failed".to_owned(),
        }
    }
}

/// Reads a line of the history. Contradictions within it, and of the ledger, are violations.
pub(super) fn read(line: &Line, cases: &mut Cases, court: &mut Court) {
    let at = || format!("{FILE}:{}", line.number);
    let event = match &line.event {
        Ok(event) => &event.kind,
        Err(error) => {
            return court.against(Invariant::I1, format!("the line cannot be read: {error}"), at());
        }
    };
    let (episode, end) = match event {
        EventKind::Started => {
            cases.started = line.number;
            return;
        }
        EventKind::Dispatched { episode, attempt, .. } => {
            let life = cases.life(*episode);
            if let Some((end, line)) = life.end {
                let what =
                    format!("episode {episode} was handed out although it had been {}", end.name());
                court.against(Invariant::I1, what, format!("{} after line {line}", at()));
            }
            if *attempt <= life.attempt {
                let what = format!(
                    "lease {attempt} on episode {episode} was given out after lease {}",
                    life.attempt
                );
                court.against(Invariant::I1, what, at());
            }
            life.attempt = *attempt;
            (*episode, None)
        }
        EventKind::Finished { episode, .. } => {
            if std::mem::replace(&mut cases.life(*episode).finished, true) {
                let what = format!("episode {episode} came back with a second result");
                court.against(Invariant::I1, what, at());
            }
            (*episode, None)
        }
        EventKind::Trained { episode, step } => (*episode, Some(End::Trained(*step))),
        EventKind::Dropped { episode, .. } => (*episode, Some(End::Dropped)),
        EventKind::Failed { episode, .. } => (*episode, Some(End::Failed)),
        EventKind::LeaseLost { episode, .. } => (*episode, None),
        EventKind::RolledBack { step } => {
            // What was trained on in that step is about to be once more.
            for life in cases.lives_mut() {
                if matches!(life.end, Some((End::Trained(at), _)) if at == *step) {
                    life.end = None;
                }
            }
            return;
        }
        _ => return,
    };
    if cases.get(episode).is_none() {
        let what = format!("episode {episode} is in the history and not in the ledger");
        court.against(Invariant::I1, what, at());
    }
    let Some(end) = end else { return };
    let started = cases.started;
    let life = cases.life(episode);
    // That the learner fell back to before the step may have been among what is missing.
    let again = |(before, at): &(End, _)| *before == end && *at < started;
    let before = life.end.filter(|was| !(matches!(end, End::Trained(_)) && again(was)));
    if let Some((before, line)) = before {
        let twice = matches!((before, end), (End::Trained(a), End::Trained(b)) if a != b);
        let invariant = if twice { Invariant::I2 } else { Invariant::I1 };
        let what =
            format!("episode {episode} was {} after it had been {}", end.name(), before.name());
        court.against(invariant, what, format!("{} after line {line}", at()));
    }
    life.end = Some((end, line.number));
}

/// What the history says last of an episode must be what the ledger says.
pub(super) fn compare(cases: &Cases, court: &mut Court) {
    let (mut rolled_back, mut silent) = (0, 0);
    for case in cases.ledger() {
        let id = case.episode;
        let Some((end, line)) = case.life.as_ref().and_then(|life| life.end) else {
            silent += usize::from(case.standing.is_terminal());
            continue;
        };
        let agrees = match (case.standing, end) {
            (Standing::Trained(step), End::Trained(said)) => step == said,
            (Standing::Dropped { .. } | Standing::Measured, End::Dropped)
            | (Standing::Failed | Standing::Quarantined, End::Failed) => true,
            // The learner fell back, and the coordinator died before it wrote that down here.
            (Standing::Batched(step), End::Trained(said)) if step == said => {
                rolled_back += 1;
                true
            }
            _ => false,
        };
        if !agrees {
            let what = format!(
                "episode {id} was {} by the history and is {} in the ledger",
                end.name(),
                case.standing.name()
            );
            court.against(Invariant::I1, what, format!("{FILE}:{line}, run.sqlite episodes"));
        }
    }
    if rolled_back > 0 {
        court.note(format!("{rolled_back} episodes are in a step the learner is making again"));
    }
    if silent > 0 {
        court.note(format!(
            "the ends of {silent} episodes are in the ledger and not in {FILE}: the coordinator \
             died between the two"
        ));
    }
}
