//! What an episode earns: named components, each in 0..=1, and their weights.

use crrl_types::{Component, Reward};
use serde::{Deserialize, Serialize};

use crate::diff::ParseError;
use crate::similarity::{self, Similarity};

/// What each component counts. Those of the first group are divided by their sum, so that an exact
/// repair earns 1 whatever they are; penalties are taken off as they stand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardOptions {
    /// Patch similarity by lines.
    pub line: f64,
    /// Patch similarity by characters.
    pub gestalt: f64,
    /// Touching the right files.
    pub file_match: f64,
    /// Leaving exactly the gold patch's contents.
    pub exact: f64,
    /// Share of `apply_patch` calls that found their text.
    pub edit: f64,
    /// Penalty: share of calls that were malformed.
    pub malformed: f64,
    /// Penalty: running into the token limit (DAPO's soft overlong penalty).
    pub overlong: f64,
}

impl Default for RewardOptions {
    fn default() -> Self {
        Self {
            line: 1.0,
            gestalt: 0.0,
            file_match: 0.0,
            exact: 0.0,
            edit: 0.0,
            malformed: 0.0,
            overlong: 0.0,
        }
    }
}

/// RewardOptions that make no reward.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WeightsError {
    /// A weight is negative or not a number.
    #[error("reward weight {name} is {value}; give 0 or more")]
    Negative {
        /// The component.
        name: &'static str,
        /// Its weight.
        value: f64,
    },
    /// Every weight is 0.
    #[error("every reward weight is 0: an episode could earn nothing")]
    AllZero,
}

/// An episode that cannot be scored, through no fault of the policy's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScoreError {
    /// The task's gold patch cannot be read.
    #[error("gold patch: {0}")]
    Gold(#[from] ParseError),
    /// The weights make no reward.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// How the agent behaved, as far as rewards may be shaped with it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Conduct {
    /// Share of `apply_patch` calls that found their text; 0 where none was made.
    pub edit: f64,
    /// Share of calls that were malformed; 0 where none was made.
    pub malformed: f64,
    /// [`crate::overlong::penalty`], 0 to -1.
    pub overlong: f64,
}

impl RewardOptions {
    /// Checks the weights.
    ///
    /// # Errors
    /// Names the weight that is negative, or says that all are 0.
    pub fn validate(&self) -> Result<(), WeightsError> {
        let penalties = [("malformed", self.malformed), ("overlong", self.overlong)];
        for (name, value) in self.earning().into_iter().chain(penalties) {
            if !(value.is_finite() && value >= 0.0) {
                return Err(WeightsError::Negative { name, value });
            }
        }
        if self.earning().iter().all(|(_, weight)| *weight == 0.0) {
            return Err(WeightsError::AllZero);
        }
        Ok(())
    }

    /// Whether the slower measure by characters is needed.
    #[must_use]
    pub fn needs_gestalt(&self) -> bool {
        self.gestalt > 0.0
    }

    fn earning(&self) -> [(&'static str, f64); 5] {
        [
            ("line", self.line),
            ("gestalt", self.gestalt),
            ("file_match", self.file_match),
            ("exact", self.exact),
            ("edit", self.edit),
        ]
    }
}

/// The reward of a patch: compares it with the gold patch and composes the components.
///
/// # Errors
/// When the gold patch or the weights are bad. A bad `patch` scores 0.
pub fn score(
    gold: &str,
    patch: &str,
    options: &RewardOptions,
    conduct: &Conduct,
) -> Result<Reward, ScoreError> {
    options.validate()?;
    let similarity = similarity::compare(gold, patch, options.needs_gestalt())?;
    Ok(compose(options, &similarity, conduct)?)
}

/// Composes the reward. An exact repair has every component at 1, a patch that is empty or cannot
/// be read has all at 0. A measure that was not computed is left out of the components.
///
/// # Errors
/// When the weights make no reward.
pub fn compose(
    weights: &RewardOptions,
    similarity: &Similarity,
    conduct: &Conduct,
) -> Result<Reward, WeightsError> {
    weights.validate()?;
    let sum: f64 = weights.earning().iter().map(|(_, weight)| weight).sum();
    let edit = if similarity.nothing.is_some() { 0.0 } else { conduct.edit };
    let values = [
        Some(similarity.line),
        similarity.gestalt,
        Some(similarity.file_match),
        Some(0.0),
        Some(edit),
    ];
    let mut components: Vec<Component> = weights
        .earning()
        .into_iter()
        .zip(values)
        .filter(|((_, weight), value)| value.is_some() || *weight > 0.0)
        .map(|((name, weight), value)| Component {
            name: name.to_owned(),
            value: if similarity.exact { 1.0 } else { value.unwrap_or(0.0) },
            weight: weight / sum,
        })
        .collect();
    for (name, value, weight) in [
        ("malformed", -conduct.malformed, weights.malformed),
        ("overlong", conduct.overlong, weights.overlong),
    ] {
        if weight > 0.0 {
            components.push(Component { name: name.to_owned(), value, weight });
        }
    }
    Ok(Reward::from_components(components, similarity.exact))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::similarity::Nothing;

    fn similarity(line: f64, exact: bool) -> Similarity {
        Similarity { line, gestalt: Some(0.5), file_match: 1.0, exact, ..Similarity::default() }
    }

    #[test]
    fn the_default_is_line_similarity() {
        let reward =
            compose(&RewardOptions::default(), &similarity(0.25, false), &Conduct::default());
        let reward = reward.expect("good weights");
        assert_eq!((reward.total, reward.success), (0.25, false));
        assert_eq!(reward.get("file_match"), Some(1.0));
    }

    #[test]
    fn an_exact_repair_earns_one_whatever_the_weights() {
        let weights =
            RewardOptions { gestalt: 3.0, exact: 0.7, edit: 2.0, ..RewardOptions::default() };
        let reward = compose(&weights, &similarity(0.9, true), &Conduct::default());
        let reward = reward.expect("good weights");
        assert!((reward.total - 1.0).abs() < 1e-12 && reward.success);
    }

    #[test]
    fn components_are_weighted_and_penalties_taken_off() {
        let weights =
            RewardOptions { line: 3.0, edit: 1.0, malformed: 0.5, ..RewardOptions::default() };
        let conduct = Conduct { edit: 0.5, malformed: 0.2, overlong: -1.0 };
        let reward = compose(&weights, &similarity(0.4, false), &conduct).expect("good weights");
        assert!((reward.total - (0.75 * 0.4 + 0.25 * 0.5 - 0.5 * 0.2)).abs() < 1e-12);
        assert_eq!(reward.get("overlong"), None, "a weight of 0 leaves a penalty out");
    }

    #[test]
    fn nothing_earns_nothing_even_where_edits_were_made() {
        let weights = RewardOptions { edit: 1.0, ..RewardOptions::default() };
        let nothing = Similarity { nothing: Some(Nothing::Empty), ..Similarity::default() };
        let conduct = Conduct { edit: 1.0, ..Conduct::default() };
        assert_eq!(compose(&weights, &nothing, &conduct).expect("good weights").total, 0.0);
    }

    #[test]
    fn a_measure_that_was_not_asked_for_is_left_out() {
        let gold = "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n";
        let plain = RewardOptions::default();
        let reward = score(gold, gold, &plain, &Conduct::default()).expect("a patch");
        assert_eq!((reward.total, reward.get("gestalt")), (1.0, None));
        let both = RewardOptions { gestalt: 1.0, ..plain };
        let reward = score(gold, gold, &both, &Conduct::default()).expect("a patch");
        assert_eq!((reward.total, reward.get("gestalt")), (1.0, Some(1.0)));
        assert!(score("no patch", gold, &plain, &Conduct::default()).is_err());
    }

    #[test]
    fn weights_that_make_no_reward_are_refused() {
        let said = |weights: RewardOptions| weights.validate().expect_err("was taken").to_string();
        assert!(
            said(RewardOptions { line: 0.0, ..RewardOptions::default() })
                .contains("every reward weight")
        );
        assert!(
            said(RewardOptions { exact: -1.0, ..RewardOptions::default() }).contains("exact is -1")
        );
        assert!(
            said(RewardOptions { overlong: f64::NAN, ..RewardOptions::default() })
                .contains("overlong")
        );
    }
}
