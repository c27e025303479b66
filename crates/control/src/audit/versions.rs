//! Adapters: versions that only go up, and are what they were published as (I4, I5).

use std::collections::BTreeMap;

use crrl_types::{AdapterVersion, Digest, EventKind, NodeName};

use super::{Court, Facts, Invariant, Known};

const FILE: &str = "events.jsonl";

pub(super) fn judge(facts: &Facts, known: &Known<'_>, court: &mut Court) {
    let mut published: BTreeMap<AdapterVersion, Digest> = BTreeMap::new();
    let mut newest: Option<AdapterVersion> = None;
    // What every node served last, in this life of it.
    let mut serves: BTreeMap<&NodeName, (u64, AdapterVersion)> = BTreeMap::new();
    let mut activations = 0_u64;
    for line in &facts.history {
        let Ok(event) = &line.event else { continue };
        let at = || format!("{FILE}:{}", line.number);
        match &event.kind {
            // What came before this and was not written down yet is missing.
            EventKind::Started => serves.clear(),
            EventKind::NodeUp { peer, incarnation } => {
                let (life, _) = serves.get(peer).copied().unwrap_or_default();
                if *incarnation > life {
                    serves.insert(peer, (*incarnation, AdapterVersion(0)));
                }
            }
            EventKind::Published { version, digest } => {
                // Version 0 is no adapter at all: it is known when the first node says so.
                if *version > AdapterVersion(0) && newest.is_some_and(|newest| *version <= newest) {
                    let what = format!(
                        "adapter {version} was published after adapter {}",
                        newest.unwrap_or_default()
                    );
                    court.against(Invariant::I4, what, at());
                }
                newest = newest.max(Some(*version));
                if let Some(other) = published.insert(*version, *digest)
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
                activations += 1;
                let (life, before) = serves.get(peer).copied().unwrap_or_default();
                if *version < before {
                    let what = format!("{peer} went back from adapter {before} to {version}");
                    court.against(Invariant::I4, what, at());
                }
                serves.insert(peer, (life, *version));
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
    let mut last = None;
    // Steps past the last one committed are being made again, after the learner fell back. Of several
    // whose news was lost, all have the version after the last.
    let committed = known.committed();
    for (step, version) in facts.steps.iter().filter(|(step, _)| *step <= committed) {
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
            "{} adapters published, {activations} activations by nodes, {} steps",
            facts.published.len(),
            facts.steps.len()
        ),
    );
}
