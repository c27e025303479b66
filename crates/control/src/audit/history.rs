//! What the history says of every episode, and whether it says the same as the ledger.

use std::collections::BTreeMap;

use crrl_types::{EpisodeId, EventKind, Step};

use super::{Court, Facts, Invariant, Known};
use crate::ledger::State;

/// The file of the history, for evidence.
const FILE: &str = "events.jsonl";

/// What the history says of one episode.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    attempt: u32,
    finished: bool,
    /// How it ended, and the line that says so.
    pub(super) end: Option<(End, u64)>,
    /// Whether a step it was trained on in may have been undone unseen: the coordinator died since.
    may_be_undone: bool,
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

/// Every episode the history names.
pub(super) type Account = BTreeMap<EpisodeId, Life>;

/// Reads the history. Contradictions within it, and of the ledger, are violations.
pub(super) fn read(facts: &Facts, known: &Known<'_>, court: &mut Court) -> Account {
    let mut account = Account::new();
    for line in &facts.history {
        let at = || format!("{FILE}:{}", line.number);
        let event = match &line.event {
            Ok(event) => &event.kind,
            Err(error) => {
                court.against(Invariant::I1, format!("the line cannot be read: {error}"), at());
                continue;
            }
        };
        let (episode, end) = match event {
            EventKind::Dispatched { episode, attempt, .. } => {
                let life = account.entry(*episode).or_default();
                if let Some((end, line)) = life.end {
                    let what = format!(
                        "episode {episode} was handed out although it had been {}",
                        end.name()
                    );
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
                let life = account.entry(*episode).or_default();
                if std::mem::replace(&mut life.finished, true) {
                    let what = format!("episode {episode} came back with a second result");
                    court.against(Invariant::I1, what, at());
                }
                (*episode, None)
            }
            EventKind::Trained { episode, step } => (*episode, Some(End::Trained(*step))),
            EventKind::Dropped { episode, .. } => (*episode, Some(End::Dropped)),
            EventKind::Failed { episode, .. } => (*episode, Some(End::Failed)),
            EventKind::LeaseLost { episode, .. } => (*episode, None),
            EventKind::Started => {
                // That the learner fell back may be among what was lost with the life before.
                for life in account.values_mut() {
                    life.may_be_undone |= matches!(life.end, Some((End::Trained(_), _)));
                }
                continue;
            }
            EventKind::RolledBack { step } => {
                // What was trained on in that step is about to be once more.
                for life in account.values_mut() {
                    if matches!(life.end, Some((End::Trained(at), _)) if at == *step) {
                        life.end = None;
                    }
                }
                continue;
            }
            _ => continue,
        };
        if !known.entries.contains_key(&episode) {
            let what = format!("episode {episode} is in the history and not in the ledger");
            court.against(Invariant::I1, what, at());
        }
        let Some(end) = end else { continue };
        let life = account.entry(episode).or_default();
        let made_again = std::mem::take(&mut life.may_be_undone);
        if let Some((before, line)) = life.end
            && !(made_again && before == end)
        {
            let twice = matches!((before, end), (End::Trained(a), End::Trained(b)) if a != b);
            let invariant = if twice { Invariant::I2 } else { Invariant::I1 };
            let what =
                format!("episode {episode} was {} after it had been {}", end.name(), before.name());
            court.against(invariant, what, format!("{} after line {line}", at()));
        }
        life.end = Some((end, line.number));
    }
    compare(known, &account, court);
    account
}

/// What the history says last of an episode must be what the ledger says.
fn compare(known: &Known<'_>, account: &Account, court: &mut Court) {
    let mut rolled_back = 0;
    for (id, life) in account {
        let (Some((end, line)), Some(entry)) = (life.end, known.entries.get(id)) else { continue };
        let agrees = match (&entry.state, end) {
            (State::Trained(step, _), End::Trained(said)) => *step == said,
            (State::Dropped(_) | State::Measured(_), End::Dropped)
            | (State::Failed(_) | State::Quarantined(_), End::Failed) => true,
            // The learner fell back, and the coordinator died before it wrote that down here.
            (State::Batched(step, _), End::Trained(said)) if *step == said => {
                rolled_back += 1;
                true
            }
            _ => false,
        };
        if !agrees {
            let what = format!(
                "episode {id} was {} by the history and is {} in the ledger",
                end.name(),
                entry.state.name()
            );
            court.against(Invariant::I1, what, format!("{FILE}:{line}, run.sqlite episodes"));
        }
    }
    if rolled_back > 0 {
        court.note(format!("{rolled_back} episodes are in a step the learner is making again"));
    }
    let silent = known
        .entries
        .values()
        .filter(|entry| entry.state.is_terminal())
        .filter(|entry| account.get(&entry.episode).is_none_or(|life| life.end.is_none()))
        .count();
    if silent > 0 {
        court.note(format!(
            "the ends of {silent} episodes are in the ledger and not in {FILE}: the coordinator \
             died between the two"
        ));
    }
}
