//! Weights in the layout of the host kernels.

/// All weights of a decoder.
#[derive(Debug)]
pub struct PackedDecoder {}
