//! Checkpoints and adapters on disk (I6, I13).

use crrl_types::Step;

use super::{CheckpointFact, CheckpointFacts, Court, Invariant, Known};

pub(super) fn judge(known: &Known, transcripts: u64, court: &mut Court) {
    let facts = &known.setting;
    let checkpoints = facts.checkpoints.here();
    for checkpoint in checkpoints {
        let evidence = || format!("checkpoints/{}", checkpoint.name);
        match &checkpoint.holds {
            Ok(held) if !held.finite => {
                let what = "a value of the checkpoint is not finite".to_owned();
                court.against(Invariant::I13, what, evidence());
            }
            Ok(_) => {}
            Err(reason) => court.note(format!("{} would not load: {reason}", evidence())),
        }
    }
    match &facts.checkpoints {
        CheckpointFacts::Here(checkpoints) => judge_newest(known, checkpoints, court),
        CheckpointFacts::Elsewhere(node) => {
            court.cannot_judge(Invariant::I6, format!("the checkpoints are with {node}"));
            court.note(format!(
                "the checkpoints are with {node}: I2 and I13 are judged without them"
            ));
        }
    }
    for adapter in &facts.adapters {
        let evidence = || format!("adapters/{}.safetensors", adapter.version);
        if !adapter.finite {
            let what = format!("a value of adapter {} is not finite", adapter.version);
            court.against(Invariant::I13, what, evidence());
        }
        if known.published.get(&adapter.version).is_some_and(|digest| *digest != adapter.digest) {
            let what = format!("adapter {} is not the one that was published", adapter.version);
            court.against(Invariant::I5, what, evidence());
        }
    }
    court.looked_at(
        Invariant::I13,
        format!(
            "{} checkpoints, {} adapters, {transcripts} transcripts",
            whole(checkpoints),
            facts.adapters.len()
        ),
    );
}

/// Whether the newest checkpoint that loads is of the last step that was committed.
fn judge_newest(known: &Known, checkpoints: &[CheckpointFact], court: &mut Court) {
    let committed = known.committed();
    let loading = checkpoints.iter().filter_map(|checkpoint| checkpoint.holds.as_ref().ok());
    let newest = loading.map(|held| held.step).max();
    let damaged = checkpoints.iter().any(|checkpoint| checkpoint.holds.is_err());
    match newest {
        None if committed > Step(0) => {
            let what = format!("step {committed} is committed and no checkpoint loads");
            court.against(Invariant::I6, what, "checkpoints/");
        }
        Some(newest) if newest < committed && damaged => court.note(format!(
            "the run would go on from step {newest}: what is newer would not load, and steps {} to \
             {committed} would be made again from the same batches",
            newest.next()
        )),
        Some(newest) if newest < committed => {
            let what =
                format!("step {committed} is committed and the newest checkpoint is of {newest}");
            court.against(Invariant::I6, what, "checkpoints/");
        }
        _ => {}
    }
    let (whole, all) = (whole(checkpoints), checkpoints.len());
    court.looked_at(
        Invariant::I6,
        format!("{whole} of {all} checkpoints load, {committed} steps committed"),
    );
}

/// How many load.
fn whole(checkpoints: &[CheckpointFact]) -> usize {
    checkpoints.iter().filter(|checkpoint| checkpoint.holds.is_ok()).count()
}
