//! Adapters: versions that only go up, and are what they were published as (I4, I5).

use std::collections::BTreeMap;

use crrl_types::{AdapterVersion, Digest, EventKind, NodeName};

use super::{Court, Invariant, Known, Line};

const FILE: &str = "events.jsonl";

/// What the history has said so far.
#[derive(Debug, Default)]
pub(super) struct Versions {
    published: BTreeMap<AdapterVersion, Digest>,
    newest: Option<AdapterVersion>,
    /// What every node served last, in this life of it.
    serves: BTreeMap<NodeName, (u64, AdapterVersion)>,
    activations: u64,
}

impl Versions {
    /// Reads a line of the history.
    pub(super) fn read(&mut self, line: &Line, known: &Known, court: &mut Court) {
        let Ok(event) = &line.event else { return };
        let at = || format!("{FILE}:{}", line.number);
        match &event.kind {
            // What came before this and was not written down yet is missing.
            EventKind::Started => self.serves.clear(),
            EventKind::NodeUp { peer, incarnation } => {
                let (life, _) = self.serves.get(peer).copied().unwrap_or_default();
                // Smaller where a node has lost its folder and counts its lives anew.
                if *incarnation != life {
                    self.serves.insert(peer.clone(), (*incarnation, AdapterVersion(0)));
                }
            }
            EventKind::Published { version, digest } => {
                // Version 0 is no adapter at all: it is known when the first node says so.
                if *version > AdapterVersion(0)
                    && self.newest.is_some_and(|newest| *version <= newest)
                {
                    let what = format!(
                        "adapter {version} was published after adapter {}",
                        self.newest.unwrap_or_default()
                    );
                    court.against(Invariant::I4, what, at());
                }
                self.newest = self.newest.max(Some(*version));
                if let Some(other) = self.published.insert(*version, *digest)
                    && other != *digest
                {
                    let what = format!("adapter {version} was published with two digests");
                    court.against(Invariant::I5, what, at());
                }
                if known.published.get(version).is_some_and(|known| known != digest) {
                    let what =
                        format!("adapter {version} has another digest in run.sqlite than here");
                    court.against(Invariant::I5, what, at());
                }
            }
            EventKind::Activated { peer, version, digest } => {
                self.activations += 1;
                let (life, before) = self.serves.get(peer).copied().unwrap_or_default();
                if *version < before {
                    let what = format!("{peer} went back from adapter {before} to {version}");
                    court.against(Invariant::I4, what, at());
                }
                self.serves.insert(peer.clone(), (life, *version));
                match known.published.get(version) {
                    Some(known) if known == digest => {}
                    // Serving it is one thing, the news of its publication another.
                    None => {}
                    Some(known) => {
                        let what = format!(
                            "{peer} serves {} as adapter {version}, which was published as {}",
                            digest.short(),
                            known.short()
                        );
                        court.against(Invariant::I5, what, at());
                    }
                }
            }
            _ => {}
        }
    }

    /// After all of them: the steps.
    pub(super) fn judge(&self, known: &Known, court: &mut Court) {
        let mut last = None;
        // Steps past the last one committed are being made again, after the learner fell back. Of several
        // whose news was lost, all have the version after the last.
        let committed = known.committed();
        for (step, version) in known.setting.steps.iter().filter(|(step, _)| *step <= committed) {
            if last.is_some_and(|(_, before)| *version < before) {
                let (before, of) = last.unwrap_or_default();
                let what =
                    format!("step {step} made adapter {version}, and step {before} adapter {of}");
                court.against(Invariant::I4, what, "run.sqlite steps");
            }
            last = Some((*step, *version));
        }
        court.looked_at(
            Invariant::I4,
            format!(
                "{} adapters published, {} activations by nodes, {} steps",
                known.setting.published.len(),
                self.activations,
                known.setting.steps.len()
            ),
        );
    }
}
