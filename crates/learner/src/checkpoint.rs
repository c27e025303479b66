//! Checkpoints.
#[derive(Debug)]
pub struct Checkpoint;
#[derive(Debug)]
pub struct Checkpoints;
