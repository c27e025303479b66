//! The trainable weights by name, with AdamW's moments, on the host.

/// One trainable tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name: Hugging Face's for base weights, PEFT's for adapter factors.
    pub name: String,
    /// Its shape in memory (linear maps `[in, out]`).
    pub shape: Vec<usize>,
    /// Its values, row by row.
    pub values: Vec<f32>,
    /// AdamW's first moment.
    pub first: Vec<f32>,
    /// AdamW's second moment.
    pub second: Vec<f32>,
}

impl Parameter {
    /// A parameter that has not been updated yet.
    #[must_use]
    pub fn new(name: &str, shape: Vec<usize>, values: Vec<f32>) -> Self {
        let zeros = vec![0.0; values.len()];
        Self { name: name.to_owned(), shape, first: zeros.clone(), second: zeros, values }
    }

    /// Whether weight decay acts on it: matrices only.
    #[must_use]
    pub fn decays(&self) -> bool {
        self.shape.len() > 1
    }
}

/// All trainable tensors, in a fixed order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    /// The tensors.
    pub list: Vec<Parameter>,
}

impl Parameters {
    /// Number of trainable values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.iter().map(|p| p.values.len()).sum()
    }

    /// Whether nothing is trained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gradients of zero, one a parameter.
    #[must_use]
    pub fn zeros(&self) -> Vec<Vec<f32>> {
        self.list.iter().map(|p| vec![0.0; p.values.len()]).collect()
    }

    /// The first parameter with a value that is not finite.
    #[must_use]
    pub fn first_not_finite(&self) -> Option<&str> {
        self.list.iter().find(|p| !p.values.iter().all(|v| v.is_finite())).map(|p| p.name.as_str())
    }
}
