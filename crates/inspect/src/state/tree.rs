//! Who supervises whom, across nodes.

use std::collections::HashMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::actors::ActorRow;
use super::nodes::NodeRow;
use super::world::World;

/// Levels below a node that are drawn; deeper ones are drawn at this one.
const DEPTH_MAX: u8 = 12;

/// A line of the tree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TreeRow<'a> {
    /// The branches in front of it: `│  ├─ `.
    pub branch: Branch,
    /// What hangs there.
    pub what: Leaf<'a>,
}

/// The branches in front of a line, three columns a level. Ten thousand lines are laid out and fifty are
/// drawn, so it is text only when it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Branch {
    level: u8,
    /// Bit `n`: another one of level `n` comes below.
    goes_on: u16,
}

impl Branch {
    /// Levels below the node: 0 is the node itself.
    #[must_use]
    pub fn level(self) -> usize {
        self.level.into()
    }

    /// One level below this, the last there or not.
    fn below(self, is_last: bool) -> Self {
        // As deep as it gets, a line stands beside its supervisor instead of below it.
        let level = self.level.min(DEPTH_MAX);
        let goes_on = self.goes_on & !(u16::MAX << level) | u16::from(!is_last) << level;
        Self { level: level + 1, goes_on }
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(own) = self.level.checked_sub(1) else { return Ok(()) };
        let goes_on = |level: u8| self.goes_on >> level & 1 == 1;
        for level in 0..own {
            f.write_str(if goes_on(level) { "│  " } else { "   " })?;
        }
        f.write_str(if goes_on(own) { "├─ " } else { "└─ " })
    }
}

impl Serialize for Branch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
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
    let mut of_nodes: HashMap<&str, Vec<&ActorRow>> = HashMap::new();
    for chunk in world.actors().chunk_by(|a, b| a.node == b.node) {
        of_nodes.entry(&chunk[0].node).or_default().extend(chunk);
    }
    let mut out = Vec::with_capacity(world.nodes().len() + world.actors().len());
    for node in world.nodes() {
        out.push(TreeRow { branch: Branch::default(), what: Leaf::Node(node) });
        if let Some(actors) = of_nodes.get(node.name.as_str()) {
            Bush::of(actors).hang_all(&mut out);
        }
    }
    out
}

/// The actors of one node, by who supervises whom.
struct Bush<'r, 'a> {
    actors: &'r [&'a ActorRow],
    roots: Vec<usize>,
    children: Vec<Vec<usize>>,
    hangs: Vec<bool>,
}

impl<'r, 'a> Bush<'r, 'a> {
    fn of(actors: &'r [&'a ActorRow]) -> Self {
        let places: HashMap<&str, usize> =
            actors.iter().enumerate().map(|(at, actor)| (actor.name.as_str(), at)).collect();
        let (mut roots, mut children) = (Vec::new(), vec![Vec::new(); actors.len()]);
        for (at, actor) in actors.iter().enumerate() {
            match actor.parent.as_deref().and_then(|parent| places.get(parent)) {
                Some(parent) => children[*parent].push(at),
                None => roots.push(at),
            }
        }
        Self { actors, roots, children, hangs: vec![false; actors.len()] }
    }

    fn hang_all(mut self, out: &mut Vec<TreeRow<'a>>) {
        let roots = std::mem::take(&mut self.roots);
        self.hang(roots, out);
        // A circle has no root; it is shown all the same.
        for at in 0..self.actors.len() {
            self.hang(vec![at], out);
        }
    }

    /// Without recursion: how deep it is, another machine says.
    fn hang(&mut self, siblings: Vec<usize>, out: &mut Vec<TreeRow<'a>>) {
        let mut path = vec![(siblings.into_iter(), Branch::default())];
        while let Some((siblings, from)) = path.last_mut() {
            let Some(at) = siblings.next() else {
                path.pop();
                continue;
            };
            if std::mem::replace(&mut self.hangs[at], true) {
                continue;
            }
            let branch = from.below(siblings.len() == 0);
            out.push(TreeRow { branch, what: Leaf::Actor(self.actors[at]) });
            path.push((std::mem::take(&mut self.children[at]).into_iter(), branch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_drawn_from_whether_another_one_comes_below() {
        let text = |branch: Branch| branch.to_string();
        let node = Branch::default();
        let (first, last) = (node.below(false), node.below(true));
        assert_eq!((text(node), text(first), text(last)), ("".into(), "├─ ".into(), "└─ ".into()));
        assert_eq!(text(first.below(true)), "│  └─ ");
        assert_eq!(text(last.below(false).below(true)), "   │  └─ ");
        assert_eq!((node.level(), first.level(), first.below(true).level()), (0, 1, 2));
        let deepest = (0..40).fold(node, |branch, _| branch.below(true));
        assert_eq!(deepest.level(), usize::from(DEPTH_MAX) + 1);
        assert_eq!(text(deepest).chars().count(), 3 * deepest.level());
    }
}
