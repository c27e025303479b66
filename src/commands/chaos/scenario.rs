//! Scenarios by the words of the command line, and what shows that a node is over one.

use std::path::Path;

use crrl_config::faults::{SCENARIOS, Scenario, named, parse};
use crrl_control::resilience::Sign;
use crrl_control::wire::NodeRole;
use crrl_types::fault::Fault;

use crate::commands::failure::Coded;

/// The scenarios a word of the command line stands for: one, all, or a file's.
pub(super) fn resolve(word: &str) -> anyhow::Result<Vec<Scenario>> {
    if word == "all" {
        return Ok(SCENARIOS.iter().filter_map(|(name, _)| named(name)).collect());
    }
    if let Some(scenario) = named(word) {
        return Ok(vec![scenario]);
    }
    let path = Path::new(word);
    if path.extension().is_none_or(|extension| extension != "toml") {
        let known = SCENARIOS.iter().map(|(name, _)| *name);
        let nearest = known.min_by_key(|name| strsim::levenshtein(name, word)).unwrap_or_default();
        return Err(Coded::usage(format!(
            "no scenario {word:?}; did you mean {nearest}? `crrl chaos list` names them all, and a \
             file of one's own ends in .toml"
        )));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| Coded::usage(format!("cannot read {word}: {error}")))?;
    parse(&text).map_err(|error| Coded::usage(format!("{word}: {error}")))
}

/// What a node of these roles is needed for most.
pub(super) fn sign(roles: &[NodeRole], fault: Fault) -> Sign {
    if roles.contains(&NodeRole::ParameterServer) && fault == Fault::CorruptAdapter {
        Sign::Activated
    } else if roles.contains(&NodeRole::Coordinator) {
        Sign::Finished
    } else if roles.contains(&NodeRole::Learner) {
        Sign::Stepped
    } else if roles.contains(&NodeRole::Rollout) {
        Sign::Dispatched
    } else {
        Sign::Activated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_is_listed_is_there() {
        assert_eq!(resolve("all").expect("known").len(), SCENARIOS.len());
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_nearest() {
        let error = resolve("kill-rolout").expect_err("unknown").to_string();
        assert!(error.contains("did you mean kill-rollout?"), "{error}");
    }
}
