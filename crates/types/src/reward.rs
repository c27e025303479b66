//! A reward is a weighted sum of named components, and keeps them all.

use serde::{Deserialize, Serialize};

/// One named component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// The field's name for it, `line` or `exact`, say.
    pub name: String,
    /// Its value, in 0..=1 unless it is a penalty.
    pub value: f64,
    /// What it counts in the total.
    pub weight: f64,
}

/// What an episode earned.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reward {
    /// Weighted sum of the components.
    pub total: f64,
    /// Whether the task counts as solved.
    pub success: bool,
    /// The parts, in a fixed order.
    pub components: Vec<Component>,
}

impl Reward {
    /// Sums the components.
    #[must_use]
    pub fn from_components(components: Vec<Component>, success: bool) -> Self {
        let total = components.iter().map(|c| c.value * c.weight).sum();
        Self { total, success, components }
    }

    /// The value of a component, if the reward has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.components.iter().find(|c| c.name == name).map(|c| c.value)
    }
}
