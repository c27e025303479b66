//! The fused operations on the autodiff backend, with backward passes of our own.
