//! Who fetches from whom: a tree whose root is the parameter server, so that what leaves the server
//! stays the same however many nodes there are.
//!
//! A node passes chunks on as they come, so depth costs the time of a chunk and not of an adapter.
//! Whoever comes late is sent to the nearest that has it. The server itself is always the last
//! resort and is not listed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crrl_types::NodeName;

use crate::cost::Link;
use crate::offer::Source;

/// Copies that leave the server at once, as long as others can pass them on.
pub const EGRESS_MAX: usize = 2;
/// Children of one relay.
const WIDTH_MAX: usize = 4;
/// Relays between a node and the server, where a wider tree avoids more: each is one more that may
/// fail.
const DEPTH_MAX: usize = 4;
/// What one more relay on the way costs before the first byte.
const HOP: Duration = Duration::from_millis(2);
/// What a link is taken for before anything was measured: 1 Gbit/s.
const LINK_BYTES_PER_S: f64 = 125e6;

/// A node as the tree sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub name: NodeName,
    /// The machine it is on, as the server sees it.
    pub host: Option<IpAddr>,
    /// Where others may fetch from it; none only fetches.
    pub relay: Option<SocketAddr>,
    /// Where it stands.
    pub state: State,
}

/// Where a node stands with the adapter that is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Has it.
    Has,
    /// Was sent to this node for it (none: to the server) and is at it.
    Fetching(Option<NodeName>),
    /// Is to be told now.
    Wants,
    /// Nothing is wanted of it.
    Aside,
}

/// How wide the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Children of the server.
    pub egress: usize,
    /// Children of a relay.
    pub width: usize,
}

impl Shape {
    /// The shape in which the last of `receivers` has everything soonest, where each node's link
    /// carries what `link` says.
    #[must_use]
    pub fn best(receivers: usize, bytes: u64, chunk_bytes: u32, link: Link) -> Self {
        let rate = link.bytes_per_s().unwrap_or(LINK_BYTES_PER_S).max(1.0);
        let cost = |shape: &Self| {
            let depth = shape.depth(receivers);
            let widest = shape.egress.max(if depth > 1 { shape.width } else { 1 }) as f64;
            let hop = f64::from(chunk_bytes) * shape.width as f64 / rate + HOP.as_secs_f64();
            (depth > DEPTH_MAX, bytes as f64 * widest / rate + depth as f64 * hop)
        };
        // A chain from one copy would be as fast, and everyone would hang on its first node.
        (1..=WIDTH_MAX)
            .map(|width| Self { egress: EGRESS_MAX, width })
            .min_by(|a, b| {
                let ((a_deep, a), (b_deep, b)) = (cost(a), cost(b));
                a_deep.cmp(&b_deep).then(a.total_cmp(&b))
            })
            .unwrap_or(Self { egress: EGRESS_MAX, width: 2 })
    }

    /// Levels below the server that hold that many.
    fn depth(self, receivers: usize) -> usize {
        let (mut level, mut held, mut depth) = (self.egress, self.egress, 1);
        while held < receivers {
            level *= self.width;
            held += level;
            depth += 1;
        }
        depth
    }
}

/// For each member that wants it, where it is to go first; none: to the server.
#[must_use]
pub fn plan(members: &[Member], shape: Shape) -> Vec<(NodeName, Option<Source>)> {
    let mut growing = Growing::new(members);
    let mut wanting: Vec<&Member> = members.iter().filter(|m| m.state == State::Wants).collect();
    // Those that pass it on come first, so that the others find them.
    wanting.sort_by_key(|member| (member.relay.is_none(), member.name.clone()));
    wanting.into_iter().map(|member| (member.name.clone(), growing.place(member, shape))).collect()
}

/// The tree so far.
struct Growing<'a> {
    /// Relays that have it or are at it, with their depth; the server's is 0.
    relays: Vec<(&'a Member, usize)>,
    /// Children, by node; `None` is the server.
    children: BTreeMap<Option<&'a NodeName>, usize>,
}

impl<'a> Growing<'a> {
    fn new(members: &'a [Member]) -> Self {
        let mut children: BTreeMap<Option<&NodeName>, usize> = BTreeMap::new();
        for member in members {
            if let State::Fetching(from) = &member.state {
                *children.entry(from.as_ref()).or_default() += 1;
            }
        }
        let by_name: HashMap<&NodeName, &Member> =
            members.iter().map(|member| (&member.name, member)).collect();
        let depth_of = |member: &Member| {
            let mut depth = 1;
            let mut at = member;
            // Bounded: a chain cannot be longer than there are members.
            for _ in members {
                let State::Fetching(Some(from)) = &at.state else { break };
                let Some(&parent) = by_name.get(from) else { break };
                (depth, at) = (depth + 1, parent);
            }
            depth
        };
        let relays = members
            .iter()
            .filter(|member| member.relay.is_some())
            .filter_map(|member| match member.state {
                State::Has => Some((member, 0)),
                State::Fetching(_) => Some((member, depth_of(member))),
                State::Wants | State::Aside => None,
            })
            .collect();
        Self { relays, children }
    }

    fn load(&self, node: Option<&NodeName>) -> usize {
        self.children.get(&node).copied().unwrap_or(0)
    }

    fn place(&mut self, member: &'a Member, shape: Shape) -> Option<Source> {
        let reachable: Vec<_> = self
            .relays
            .iter()
            .filter(|(relay, _)| relay.name != member.name && reaches(member, relay))
            .copied()
            .collect();
        let room = |relay: &Member| self.load(Some(&relay.name)) < shape.width;
        // The nearest first; of those equally near whoever has it or will soonest, and the idlest.
        let nearest = |candidates: &mut dyn Iterator<Item = (&'a Member, usize)>| {
            candidates.min_by_key(|(relay, depth)| {
                let near = relay.host.is_some() && relay.host == member.host;
                (Reverse(near), *depth, self.load(Some(&relay.name)), relay.name.clone())
            })
        };
        let has_it = nearest(&mut reachable.iter().copied().filter(|(r, d)| *d == 0 && room(r)));
        let chosen = if has_it.is_some() {
            has_it
        } else if self.load(None) < shape.egress {
            None
        } else {
            let with_room = nearest(&mut reachable.iter().copied().filter(|(r, _)| room(r)));
            // Better a relay with many children than one more copy from the server.
            with_room.or_else(|| nearest(&mut reachable.iter().copied()))
        };
        *self.children.entry(chosen.map(|(relay, _)| &relay.name)).or_default() += 1;
        if member.relay.is_some() {
            self.relays.push((member, chosen.map_or(1, |(_, depth)| depth + 1)));
        }
        let (relay, _) = chosen?;
        Some(Source { name: relay.name.clone(), address: relay.relay? })
    }
}

/// Whether a member can be expected to reach a relay: one that listens on loopback is reached from
/// its own machine alone.
fn reaches(member: &Member, relay: &Member) -> bool {
    relay.relay.is_some_and(|at| !at.ip().is_loopback())
        || (relay.host.is_some() && member.host == relay.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { egress: 2, width: 2 };

    fn member(n: u16, state: State) -> Member {
        Member {
            name: format!("rollout-{n}").into(),
            host: Some(IpAddr::from([127, 0, 0, 1])),
            relay: Some(SocketAddr::from(([127, 0, 0, 1], 7000 + n))),
            state,
        }
    }

    fn on_host(mut member: Member, host: [u8; 4]) -> Member {
        member.host = Some(host.into());
        member.relay = member.relay.map(|at| SocketAddr::from((host, at.port())));
        member
    }

    fn from_server(routes: &[(NodeName, Option<Source>)]) -> usize {
        routes.iter().filter(|(_, source)| source.is_none()).count()
    }

    #[test]
    fn the_server_sends_two_copies_however_many_want_it() {
        for n in [1, 2, 8, 50] {
            let members: Vec<Member> = (0..n).map(|n| member(n, State::Wants)).collect();
            let routes = plan(&members, SHAPE);
            assert_eq!(routes.len(), n as usize);
            assert_eq!(from_server(&routes), usize::from(n).min(2));
            for relay in &members {
                let children = routes
                    .iter()
                    .filter(|(_, source)| source.as_ref().is_some_and(|s| s.name == relay.name));
                assert!(children.count() <= 2, "{}", relay.name);
            }
            // Everyone's way ends at the server.
            for (name, _) in &routes {
                let mut at = name.clone();
                for _ in 0..=n {
                    let (_, source) = routes.iter().find(|(n, _)| *n == at).expect("is planned");
                    match source {
                        Some(source) => at = source.name.clone(),
                        None => break,
                    }
                }
                assert!(routes.iter().any(|(n, s)| *n == at && s.is_none()), "{name}");
            }
        }
    }

    #[test]
    fn whoever_comes_late_goes_to_the_nearest_that_has_it() {
        let near = on_host(member(3, State::Has), [10, 0, 0, 3]);
        let far = on_host(member(2, State::Has), [10, 0, 0, 2]);
        let late = on_host(member(9, State::Wants), [10, 0, 0, 3]);
        let routes = plan(&[far.clone(), near.clone(), late.clone()], SHAPE);
        assert_eq!(routes[0].1.as_ref().map(|s| &s.name), Some(&near.name));
        // With that one busy, the other, and with nobody left, the server.
        let busy = |n, of: &Member| member(n, State::Fetching(Some(of.name.clone())));
        let mut members = vec![far.clone(), near.clone(), late, busy(4, &near), busy(5, &near)];
        let routes = plan(&members, SHAPE);
        assert_eq!(routes[0].1.as_ref().map(|s| &s.name), Some(&far.name));
        members.retain(|m| m.name != far.name && m.name != near.name);
        members.iter_mut().for_each(|m| m.relay = None);
        assert_eq!(plan(&members, SHAPE)[0].1, None);
    }

    #[test]
    fn a_relay_on_loopback_is_for_its_own_machine() {
        let here = member(1, State::Has);
        let guest = Member { relay: None, ..on_host(member(2, State::Wants), [10, 0, 0, 9]) };
        assert_eq!(plan(&[here, guest], SHAPE), [("rollout-2".into(), None)]);
    }

    #[test]
    fn those_that_do_not_listen_are_leaves() {
        let mut members: Vec<Member> = (0..6).map(|n| member(n, State::Wants)).collect();
        members[0].relay = None;
        members[1].relay = None;
        let routes = plan(&members, SHAPE);
        assert_eq!(from_server(&routes), 2);
        let leaves = ["rollout-0", "rollout-1"];
        let parents = routes.iter().filter_map(|(_, s)| s.as_ref());
        assert!(parents.into_iter().all(|s| !leaves.contains(&s.name.as_str())));
    }

    #[test]
    fn a_large_adapter_makes_a_narrow_tree_and_a_small_one_a_flat() {
        let link = Link::default();
        let large = Shape::best(8, 1 << 30, 1 << 20, link);
        assert!(large.width == 1, "a link shared by two takes twice as long: {large:?}");
        let small = Shape::best(30, 10_000, 10_000, link);
        assert!(small.depth(30) < large.depth(30), "{small:?} {large:?}");
        let many = Shape::best(64, 1 << 30, 1 << 20, link);
        assert!(many.depth(64) <= DEPTH_MAX, "{many:?}");
    }
}
