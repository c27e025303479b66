//! Checks what is submitted before anything of a sequence changes.

use crrl_types::Sampling;

use crate::error::SubmitError;
use crate::sequence::{Generation, Sequence};

/// Stop texts of one generation; each is searched for after every token.
pub const STOP_TEXTS_MAX: usize = 16;
/// Length of one stop text.
pub const STOP_TEXT_BYTES_MAX: usize = 256;

/// Checks ids and sampling parameters.
pub(crate) fn check(tokens: &[u32], sampling: &Sampling, vocab: usize) -> Result<(), SubmitError> {
    if let Some(id) = tokens.iter().find(|id| **id as usize >= vocab) {
        return Err(SubmitError::Vocabulary { id: *id, vocab });
    }
    let refuse = |name, reason: String| Err(SubmitError::Sampling { name, reason });
    let Sampling { temperature, top_p, max_tokens, stop, top_k: _, seed: _ } = sampling;
    if !temperature.is_finite() || *temperature < 0.0 {
        return refuse(
            "temperature",
            format!("{temperature} is not a temperature; give 0 or more"),
        );
    }
    if !(*top_p > 0.0 && *top_p <= 1.0) {
        return refuse(
            "top_p",
            format!("{top_p} keeps no token or more than all; give 0 < p <= 1"),
        );
    }
    if *max_tokens == 0 {
        return refuse("max_tokens", "nothing would be generated; give 1 or more".to_owned());
    }
    if stop.len() > STOP_TEXTS_MAX {
        return refuse("stop", format!("{} texts; at most {STOP_TEXTS_MAX}", stop.len()));
    }
    if let Some(text) = stop.iter().find(|t| t.is_empty() || t.len() > STOP_TEXT_BYTES_MAX) {
        let len = text.len();
        return refuse("stop", format!("a text of {len} bytes; give 1 to {STOP_TEXT_BYTES_MAX}"));
    }
    Ok(())
}

/// Appends checked tokens and begins a generation.
pub(crate) fn submit(
    sequence: &mut Sequence,
    tokens: &[u32],
    sampling: Sampling,
    context: usize,
) -> Result<(), SubmitError> {
    if sequence.generation.is_some() {
        return Err(SubmitError::Busy(sequence.id));
    }
    let have = sequence.tokens.len();
    if have + tokens.len() >= context {
        return Err(SubmitError::ContextFull { have, adding: tokens.len(), max: context });
    }
    if have + tokens.len() == 0 {
        return Err(SubmitError::Empty);
    }
    if have == 0 {
        sequence.prompt = tokens.len();
    }
    sequence.tokens.extend_from_slice(tokens);
    sequence.generation = Some(Generation::new(sampling, sequence.tokens.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crrl_model::SlotId;

    use super::*;
    use crate::sequence::SeqId;

    #[test]
    fn every_wrong_parameter_is_named() {
        let good = Sampling::default();
        assert_eq!(check(&[0, 9], &good, 10), Ok(()));
        for (name, sampling) in [
            ("temperature", Sampling { temperature: -1.0, ..good.clone() }),
            ("temperature", Sampling { temperature: f32::NAN, ..good.clone() }),
            ("top_p", Sampling { top_p: 0.0, ..good.clone() }),
            ("top_p", Sampling { top_p: f32::NAN, ..good.clone() }),
            ("max_tokens", Sampling { max_tokens: 0, ..good.clone() }),
            ("stop", Sampling { stop: vec![String::new()], ..good.clone() }),
            ("stop", Sampling { stop: vec!["x".into(); 17], ..good }),
        ] {
            match check(&[], &sampling, 10) {
                Err(SubmitError::Sampling { name: named, .. }) => assert_eq!(named, name),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!(check(&[10], &good, 10), Err(SubmitError::Vocabulary { id: 10, vocab: 10 }));
    }

    #[test]
    fn a_sequence_that_refuses_tokens_is_as_it_was() {
        let mut sequence = Sequence::new(SeqId(1), SlotId(0));
        assert_eq!(submit(&mut sequence, &[], Sampling::default(), 8), Err(SubmitError::Empty));
        assert_eq!(
            submit(&mut sequence, &[1; 8], Sampling::default(), 8),
            Err(SubmitError::ContextFull { have: 0, adding: 8, max: 8 })
        );
        assert!(sequence.tokens.is_empty() && sequence.generation.is_none());
        submit(&mut sequence, &[1; 7], Sampling::default(), 8).expect("fits");
        assert_eq!(
            submit(&mut sequence, &[], Sampling::default(), 8),
            Err(SubmitError::Busy(SeqId(1)))
        );
    }
}
