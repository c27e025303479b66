//! Scenarios by the words of the command line, and what shows that a node is over one.

use std::collections::BTreeMap;
use std::path::Path;

use crrl_config::faults::{SCENARIOS, Scenario, named, parse};
use crrl_config::{ClusterConfig, Role};
use crrl_control::resilience::Sign;
use crrl_control::wire::NodeRole;
use crrl_types::fault::Fault;
use serde::Serialize;

use crate::commands::failure::Coded;

/// The word for every scenario there is.
const ALL: &str = "all";
/// Those that are meant for a parameter server that is a node of its own.
const OF_PARAMETER_SERVER: [&str; 3] =
    ["kill-parameter-server", "pause-parameter-server", "partition-parameter-server"];

/// The scenarios that are injected, and those of `all` that are not.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) scenarios: Vec<Scenario>,
    pub(super) left_out: Vec<LeftOut>,
}

/// A scenario that says nothing of this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LeftOut {
    pub(super) fault: String,
    pub(super) why: String,
}

impl Chosen {
    /// By the words of the command line and the run's configuration, where there is one yet.
    ///
    /// # Errors
    /// A word that stands for nothing, or a scenario that was named and cannot happen in this cluster.
    pub(super) fn of(words: &[String], config: Option<&ClusterConfig>) -> anyhow::Result<Self> {
        let mut chosen = Self::default();
        for word in words {
            for scenario in resolve(word)? {
                match config.and_then(|config| misfit(&scenario, config)) {
                    None => chosen.scenarios.push(scenario),
                    Some(why) if word == ALL => {
                        chosen.left_out.push(LeftOut { fault: scenario.name, why });
                    }
                    Some(why) => {
                        return Err(Coded::usage(format!("{}: {why}", scenario.name)));
                    }
                }
            }
        }
        Ok(chosen)
    }

    /// What is said of those that are left out: a line for each reason.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for LeftOut { fault, why } in &self.left_out {
            by_reason.entry(why).or_default().push(fault);
        }
        let lines = by_reason.into_iter();
        lines.map(|(why, faults)| format!("left out {}: {why}", faults.join(", "))).collect()
    }
}

/// Why a scenario cannot happen in a cluster, or is another there; none where it is what it says.
fn misfit(scenario: &Scenario, config: &ClusterConfig) -> Option<String> {
    if matches!(scenario.fault, Fault::Bomb(_)) && config.sandbox.run_without_isolation {
        let why = "sandbox.run_without_isolation is set: without walls it would hit the machine";
        return Some(why.to_owned());
    }
    if OF_PARAMETER_SERVER.contains(&scenario.name.as_str()) {
        let nodes = config.nodes();
        let server = nodes.iter().find(|node| node.roles.contains(&Role::ParameterServer))?;
        return (server.roles.len() > 1).then(|| {
            let name = &server.name;
            format!("the parameter server is no node of its own here: {name} has other roles too")
        });
    }
    None
}

/// The scenarios a word of the command line stands for: one, all, or a file's.
fn resolve(word: &str) -> anyhow::Result<Vec<Scenario>> {
    if word == ALL {
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
    use crrl_config::faults::Target;

    use super::*;

    #[test]
    fn every_scenario_that_is_listed_is_there() {
        assert_eq!(resolve("all").expect("known").len(), SCENARIOS.len());
    }

    fn choose(word: &str, config: &ClusterConfig) -> anyhow::Result<Chosen> {
        Chosen::of(&[word.to_owned()], Some(config))
    }

    fn names(scenarios: &[Scenario]) -> Vec<&str> {
        scenarios.iter().map(|scenario| scenario.name.as_str()).collect()
    }

    #[test]
    fn without_walls_bombs_are_refused_by_name_and_left_out_of_all() {
        let mut config = ClusterConfig::default();
        assert_eq!(names(&choose("egress", &config).expect("has walls").scenarios), ["egress"]);
        config.sandbox.run_without_isolation = true;
        let error = choose("egress", &config).expect_err("has none").to_string();
        assert!(error.contains("egress: sandbox.run_without_isolation is set"), "{error}");
        let all = choose("all", &config).expect("the others");
        let bombs = ["fork-bomb", "memory-bomb", "endless-output", "disk-fill", "egress"];
        let left: Vec<&str> = all.left_out.iter().map(|left| left.fault.as_str()).collect();
        assert!(bombs.iter().all(|bomb| left.contains(bomb)), "{left:?}");
        assert!(!names(&all.scenarios).iter().any(|name| left.contains(name)), "{left:?}");
        assert_eq!(all.scenarios.len() + left.len(), SCENARIOS.len());
        let lines = all.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().any(|line| line.contains(&bombs.join(", "))), "{lines:?}");
        // A file's are as good as named.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("mine.toml");
        let text = "[[fault]]\nkind = \"egress\"\nrole = \"rollout\"";
        std::fs::write(&file, text).expect("writable");
        let error = choose(&file.display().to_string(), &config).expect_err("no walls").to_string();
        assert!(error.contains("without walls"), "{error}");
    }

    #[test]
    fn a_parameter_server_is_harmed_by_itself_only_where_it_is_a_node_of_its_own() {
        let shared = ClusterConfig::default();
        let mut apart = shared.clone();
        apart.node = ClusterConfig::default_nodes();
        apart.node[0].roles = vec![Role::Coordinator];
        let (name, roles) = ("server".to_owned(), vec![Role::ParameterServer]);
        apart.node.push(crrl_config::Node { name, roles, ..Default::default() });
        assert_eq!(choose("all", &apart).expect("every one").scenarios.len(), SCENARIOS.len());
        let all = choose("all", &shared).expect("the others");
        let left: Vec<&str> = all.left_out.iter().map(|left| left.fault.as_str()).collect();
        assert_eq!(left, OF_PARAMETER_SERVER);
        for name in OF_PARAMETER_SERVER {
            let chosen = choose(name, &apart).expect("a node of its own").scenarios;
            assert_eq!(chosen[0].target, Target::Role(Role::ParameterServer));
            let error = choose(name, &shared).expect_err("shared").to_string();
            assert!(error.contains("coordinator has other roles too"), "{error}");
        }
        // What the server sends is damaged wherever it is.
        assert_eq!(choose("corrupt-adapter", &shared).expect("applies").scenarios.len(), 1);
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_nearest() {
        let error = resolve("kill-rolout").expect_err("unknown").to_string();
        assert!(error.contains("did you mean kill-rollout?"), "{error}");
    }
}
