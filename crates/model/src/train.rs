//! The differentiable forward pass over packed, unpadded sequences.
