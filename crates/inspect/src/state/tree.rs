//! Who supervises whom, across nodes.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::actors::ActorRow;
use super::nodes::NodeRow;
use super::world::World;

/// Levels below a node that are drawn; deeper ones are drawn at this one.
const DEPTH_MAX: usize = 12;

/// A line of the tree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TreeRow<'a> {
    /// The branches in front of it: `│  ├─ `.
    pub branch: String,
    /// What hangs there.
    pub what: Leaf<'a>,
}

/// What hangs in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leaf<'a> {
    /// A node.
    Node(&'a NodeRow),
    /// An actor of the node above it.
    Actor(&'a ActorRow),
}

/// The whole tree. An actor whose supervisor is unknown hangs at its node; none hangs twice.
#[must_use]
pub fn rows(world: &World) -> Vec<TreeRow<'_>> {
    let mut out = Vec::new();
    let mut of_nodes: HashMap<&str, Vec<&ActorRow>> = HashMap::new();
    for actor in world.actors() {
        of_nodes.entry(&actor.node).or_default().push(actor);
    }
    for node in world.nodes() {
        out.push(TreeRow { branch: String::new(), what: Leaf::Node(node) });
        let actors = of_nodes.remove(node.name.as_str()).unwrap_or_default();
        let names: HashSet<&str> = actors.iter().map(|actor| actor.name.as_str()).collect();
        let mut children: HashMap<Option<&str>, Vec<&ActorRow>> = HashMap::new();
        for actor in &actors {
            let parent = actor.parent.as_deref().filter(|parent| names.contains(parent));
            children.entry(parent).or_default().push(actor);
        }
        let mut seen = HashSet::new();
        let roots = children.get(&None).cloned().unwrap_or_default();
        hang(&roots, "", 0, &children, &mut seen, &mut out);
        // A circle has no root; it is shown all the same.
        let rest: Vec<&ActorRow> =
            actors.iter().copied().filter(|actor| !seen.contains(actor.name.as_str())).collect();
        for actor in rest {
            if !seen.contains(actor.name.as_str()) {
                hang(&[actor], "", 0, &children, &mut seen, &mut out);
            }
        }
    }
    out
}

fn hang<'a>(
    siblings: &[&'a ActorRow],
    indent: &str,
    depth: usize,
    children: &HashMap<Option<&str>, Vec<&'a ActorRow>>,
    seen: &mut HashSet<&'a str>,
    out: &mut Vec<TreeRow<'a>>,
) {
    for (at, actor) in siblings.iter().enumerate() {
        if !seen.insert(&actor.name) {
            continue;
        }
        let is_last = at + 1 == siblings.len();
        let branch = format!("{indent}{}", if is_last { "└─ " } else { "├─ " });
        out.push(TreeRow { branch, what: Leaf::Actor(actor) });
        if let Some(below) = children.get(&Some(actor.name.as_str())) {
            let deeper = if depth >= DEPTH_MAX {
                indent.to_owned()
            } else {
                format!("{indent}{}", if is_last { "   " } else { "│  " })
            };
            hang(below, &deeper, depth + 1, children, seen, out);
        }
    }
}
