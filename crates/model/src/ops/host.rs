//! The cached forward pass on raw slices.
