//! What the role in a person's certificate lets its tool do. Pure; the server of people's tools asks.

use crate::wire::NodeRole;

/// What a tool may be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// To see the board.
    Watch,
    /// To see single messages.
    Trace,
    /// To change what runs: orders, the end of the run, tasks out of quarantine.
    Control,
    /// To make things go wrong.
    Fault,
}

impl Right {
    /// Whether a certificate with this role gives it.
    #[must_use]
    pub fn is_of(self, role: NodeRole) -> bool {
        match self {
            Self::Watch => is_tool(role),
            Self::Trace => matches!(role, NodeRole::Viewer | NodeRole::Operator),
            Self::Control => role == NodeRole::Operator,
            Self::Fault => role == NodeRole::Chaos,
        }
    }

    /// Whether one of these roles gives it.
    #[must_use]
    pub fn is_of_any(self, roles: &[NodeRole]) -> bool {
        roles.iter().any(|role| self.is_of(*role))
    }
}

/// Whether a role is a person's tool's, and no node's.
#[must_use]
pub fn is_tool(role: NodeRole) -> bool {
    matches!(role, NodeRole::Viewer | NodeRole::Operator | NodeRole::Chaos)
}
