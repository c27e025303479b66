//! Curves of a run as JSON lines: one object an optimizer step, names as keys.

use std::io::{self, Write};

use serde_json::{Map, Number, Value};

/// Writes one line a step.
#[derive(Debug)]
pub struct Lines<W: Write>(W);

impl<W: Write> Lines<W> {
    /// To wherever this goes.
    pub fn new(out: W) -> Self {
        Self(out)
    }

    /// One step. `at_ms` is in milliseconds since the Unix epoch. What is not finite is left out:
    /// JSON has no word for it.
    ///
    /// # Errors
    /// Where it goes refuses it.
    pub fn step(
        &mut self,
        step: u64,
        at_ms: Option<u64>,
        values: &[(String, f64)],
    ) -> io::Result<()> {
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        if let Some(at_ms) = at_ms {
            line.insert("at_ms".into(), at_ms.into());
        }
        for (name, value) in values {
            if let Some(number) = Number::from_f64(*value) {
                line.insert(name.clone(), Value::Number(number));
            }
        }
        writeln!(self.0, "{}", Value::Object(line))
    }

    /// Brings everything to where it goes.
    ///
    /// # Errors
    /// Where it goes refuses it.
    pub fn finish(mut self) -> io::Result<W> {
        self.0.flush()?;
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_line_and_what_is_no_number_is_left_out() {
        let mut lines = Lines::new(Vec::new());
        let values = [("loss".to_owned(), 0.5), ("kl".to_owned(), f64::NAN)];
        lines.step(3, Some(9), &values).expect("memory");
        lines.step(4, None, &[]).expect("memory");
        let text = String::from_utf8(lines.finish().expect("memory")).expect("JSON");
        assert_eq!(text, "{\"step\":3,\"at_ms\":9,\"loss\":0.5}\n{\"step\":4}\n");
    }
}
