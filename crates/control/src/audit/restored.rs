//! What cannot be judged, because it was lost with a damaged ledger.

use crrl_types::Step;

use super::{Court, Known};

/// Steps that are named one by one; the rest is counted.
const STEPS_MAX: usize = 20;

/// Says so. A loss that was told when it happened contradicts nothing; what is left is judged as ever.
pub(super) fn tell(known: &Known, court: &mut Court) {
    for restored in &known.setting.restored {
        let (copy, step) = (restored.copy, restored.step);
        let from =
            format!("the ledger was restored from its copy of step {copy}, up to step {step}");
        match restored.lost_count() {
            0 => court.note(format!("{from}; no record was lost")),
            lost => court.note(format!(
                "{from}: the records of {lost} episodes were lost ({}); {} of them were trained on, by \
                 checkpoints and history, and under which adapters their tokens were drawn cannot be \
                 judged",
                restored.lost_text(),
                restored.lost_trained
            )),
        }
        if !restored.skipped.is_empty() {
            court.note(format!(
                "episodes {} do not exist: their numbers may have been given out before, and are not used",
                restored.skipped_text()
            ));
        }
        if !restored.unknown.is_empty() {
            court.note(format!(
                "which episodes went into steps {} is not known any more: neither checkpoint nor \
                 history says; none of those that may have was trained on later",
                text(&restored.unknown)
            ));
        }
    }
    let restored = &known.setting.restored;
    let is_told = |step: &Step| restored.iter().any(|restored| restored.unknown.contains(step));
    let batches = known.setting.batches.iter().filter(|batch| known.is_unknown(batch));
    let later: Vec<Step> = batches.map(|batch| batch.step).filter(|step| !is_told(step)).collect();
    if !later.is_empty() {
        court.note(format!(
            "the learner, whose checkpoints were elsewhere, had made steps {} when the ledger was \
             restored, and which episodes went into them is not known any more; none of those that may \
             have was trained on later",
            text(&later)
        ));
    }
}

/// Steps, for people.
fn text(steps: &[Step]) -> String {
    let named: Vec<String> = steps.iter().take(STEPS_MAX).map(ToString::to_string).collect();
    let more = steps.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}
