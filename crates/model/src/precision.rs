//! The type a device computes in: f32 on the processor; on a GPU bf16, or f32 where a comparison
//! wants it. Never changes a tensor that exists.

/// A number type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
}

impl Precision {
    /// Its name on command lines and in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// The device does not compute in the type, or had begun to compute in another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the device does not compute in {name}: {reason}")]
pub struct PrecisionError {
    name: &'static str,
    reason: String,
}

/// Makes sure that the processor computes in a type: it does in f32 only.
///
/// # Errors
/// On any other.
pub fn compute_on_cpu_in(precision: Precision) -> Result<(), PrecisionError> {
    match precision {
        Precision::F32 => Ok(()),
        Precision::Bf16 => Err(PrecisionError {
            name: precision.name(),
            reason: "the processor computes in f32".to_owned(),
        }),
    }
}

/// Makes the first GPU compute in a type from now on, in this process. Comes before anything else on
/// the device; bf16 is what it computes in otherwise.
///
/// # Errors
/// When the device does not know the type or is in use already.
#[cfg(feature = "cuda")]
pub fn compute_on_cuda_in(precision: Precision) -> Result<(), PrecisionError> {
    use burn::tensor::{DType, set_default_dtypes};

    let float = match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    };
    set_default_dtypes::<crate::Cuda>(&Default::default(), float, DType::I32)
        .map_err(|error| PrecisionError { name: precision.name(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_computes_in_f32_only() {
        assert_eq!(compute_on_cpu_in(Precision::F32), Ok(()));
        let refused = compute_on_cpu_in(Precision::Bf16).expect_err("it cannot");
        assert!(refused.to_string().contains("does not compute in bf16"), "{refused}");
    }
}
