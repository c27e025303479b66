//! Tokens: each generated one under an adapter that was published (I5), and as the ledger has it.

use crrl_types::TokenSpan;

use super::cases::{Case, Cases, Standing};
use super::{Court, Invariant, Known, Transcript};

/// What was looked at.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    generated: u64,
    transcripts: u64,
}

impl Tokens {
    pub(super) fn transcripts(&self) -> u64 {
        self.transcripts
    }

    /// Looks at a transcript.
    pub(super) fn read(
        &mut self,
        transcript: &Transcript,
        known: &Known,
        cases: &mut Cases,
        court: &mut Court,
    ) {
        self.transcripts += 1;
        self.generated += transcript.generated.iter().filter(|g| **g).count() as u64;
        let evidence = || format!("run.sqlite trajectories, episode {}", transcript.episode);
        if let Some(what) = uncovered(transcript) {
            court.against(Invariant::I5, what, evidence());
        }
        for TokenSpan { version, digest, .. } in &transcript.spans {
            match known.published.get(version) {
                Some(known) if known == digest => {}
                Some(known) => {
                    let what = format!(
                        "tokens were drawn under {} as adapter {version}, which was published as {}",
                        digest.short(),
                        known.short()
                    );
                    court.against(Invariant::I5, what, evidence());
                }
                None => {
                    let what =
                        format!("tokens were drawn under adapter {version}, never published");
                    court.against(Invariant::I5, what, evidence());
                }
            }
        }
        if !transcript.finite {
            let what = "a log-probability is not finite".to_owned();
            court.against(Invariant::I13, what, evidence());
        }
        let Some(case) = cases.get_mut(transcript.episode) else { return };
        case.has_transcript = true;
        let oldest = transcript.spans.iter().map(|span| span.version).min();
        if let Some(told) = case.oldest
            && told != oldest
        {
            let name = |v: Option<_>| v.map_or("none".to_owned(), |v| format!("{v}"));
            let what = format!(
                "its oldest token is of adapter {}, the ledger has {}",
                name(oldest),
                name(told)
            );
            court.against(Invariant::I7, what, evidence());
        }
    }

    /// After all of them: what was trained on must be there.
    pub(super) fn judge(&self, known: &Known, cases: &Cases, court: &mut Court) {
        let gone = |case: &&Case| !case.has_transcript && !known.is_lost(case.episode);
        for case in cases.ledger().iter().filter(gone) {
            if matches!(case.standing, Standing::Trained(_) | Standing::Batched(_)) {
                let what = format!(
                    "episode {} is {} and its tokens are not there",
                    case.episode,
                    case.standing.name()
                );
                court.against(Invariant::I5, what, "run.sqlite trajectories");
            }
        }
        court.looked_at(
            Invariant::I5,
            format!("{} generated tokens of {} transcripts", self.generated, self.transcripts),
        );
    }
}

/// What is wrong with the spans of a transcript: they cover each generated token once, and nothing
/// else.
fn uncovered(transcript: &Transcript) -> Option<String> {
    let mut covered = vec![0_u8; transcript.generated.len()];
    for span in &transcript.spans {
        let Some(part) = covered.get_mut(span.start as usize..span.end as usize) else {
            return Some(format!(
                "an adapter is named for tokens {} to {} of {}",
                span.start,
                span.end,
                transcript.generated.len()
            ));
        };
        part.iter_mut().for_each(|n| *n = n.saturating_add(1));
    }
    let wrong = transcript
        .generated
        .iter()
        .zip(&covered)
        .position(|(generated, n)| u8::from(*generated) != *n)?;
    Some(match covered[wrong] {
        0 => format!("generated token {wrong} carries no adapter"),
        1 => format!("token {wrong} was not generated and carries an adapter"),
        _ => format!("token {wrong} carries more than one adapter"),
    })
}
