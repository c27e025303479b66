//! The fused operations on the CPU backend.

use crate::Cpu;
use crate::ops::LlmOps;

impl LlmOps for Cpu {}
