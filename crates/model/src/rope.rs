//! Rotary position embedding: the frequencies of every scaling, and cosine and sine of positions.
//!
//! Element `i` of a head turns with element `i + head_dim / 2`, as Hugging Face lays heads out.

use std::f64::consts::TAU;

use crate::config::{ModelConfig, RopeScaling};

/// Positions whose cosine and sine are kept; those beyond are computed when asked for.
const TABLE_POSITIONS_MAX: usize = 4096;

/// Cosine and sine of one model's positions.
#[derive(Debug)]
pub struct Rope {
    inverse: Vec<f32>,
    attention_factor: f32,
    /// `[positions, head_dim / 2]`
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// Tables of a model.
    #[must_use]
    pub fn new(config: &ModelConfig) -> Self {
        let (inverse, attention_factor) = frequencies(config);
        let mut rope = Self { inverse, attention_factor, cos: Vec::new(), sin: Vec::new() };
        let rows = config.max_positions.min(TABLE_POSITIONS_MAX);
        let (cos, sin) = rope.compute(0..rows);
        rope.cos = cos;
        rope.sin = sin;
        rope
    }

    /// Half the width of a head.
    #[must_use]
    pub fn half(&self) -> usize {
        self.inverse.len()
    }

    /// Cosine and sine of some positions, each `[positions, head_dim / 2]`.
    #[must_use]
    pub fn at(&self, positions: &[usize]) -> (Vec<f32>, Vec<f32>) {
        let half = self.half();
        let mut cos = Vec::with_capacity(positions.len() * half);
        let mut sin = Vec::with_capacity(positions.len() * half);
        for &position in positions {
            if let Some(row) = self.cos.get(position * half..(position + 1) * half) {
                cos.extend_from_slice(row);
                sin.extend_from_slice(&self.sin[position * half..(position + 1) * half]);
            } else {
                let (c, s) = self.compute(position..position + 1);
                cos.extend(c);
                sin.extend(s);
            }
        }
        (cos, sin)
    }

    fn compute(&self, positions: std::ops::Range<usize>) -> (Vec<f32>, Vec<f32>) {
        positions
            .flat_map(|position| self.inverse.iter().map(move |inverse| inverse * position as f32))
            .map(|angle| {
                let (sin, cos) = angle.sin_cos();
                (cos * self.attention_factor, sin * self.attention_factor)
            })
            .unzip()
    }
}

/// Inverse frequencies `[head_dim / 2]`, and the factor on cosine and sine.
pub(crate) fn frequencies(config: &ModelConfig) -> (Vec<f32>, f32) {
    let dim = config.head_dim as f64;
    let theta = config.rope_theta;
    let plain = (0..config.head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim));
    let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
    match config.rope_scaling {
        RopeScaling::None => (narrow(plain.collect()), 1.0),
        RopeScaling::Linear { factor } => (narrow(plain.map(|f| f / factor).collect()), 1.0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let scaled = plain.map(|frequency| {
                let wavelength = TAU / frequency;
                if wavelength < original_context / high_freq_factor {
                    frequency
                } else if wavelength > original_context / low_freq_factor {
                    frequency / factor
                } else {
                    let smooth = (original_context / wavelength - low_freq_factor)
                        / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            });
            (narrow(scaled.collect()), 1.0)
        }
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_context,
            attention_factor,
            truncate,
        } => {
            // The dimension that turns `rotations` times over the original context.
            let dimension = |rotations: f64| {
                dim * (original_context / (rotations * TAU)).ln() / (2.0 * theta.ln())
            };
            let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
            if truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
            if low == high {
                high += 0.001;
            }
            let scaled = plain.enumerate().map(|(i, frequency)| {
                let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / factor * ramp + frequency * (1.0 - ramp)
            });
            (narrow(scaled.collect()), attention_factor as f32)
        }
    }
}
