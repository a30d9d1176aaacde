//! How far the outputs of a network are from those of another that is right.

use super::VerifyError;
use crate::tensor::Floats;

/// Sums over images of how far outputs are apart, output by output.
#[derive(Clone, Debug, Default)]
pub struct OutputError {
    outputs: Vec<Sums>,
    images: usize,
}

/// Of one output.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// Of squared differences.
    error: f64,
    values: f64,
    squares: f64,
    count: f64,
}

impl OutputError {
    /// Adds the outputs for a batch of images: those that are `wanted` and those that are `got`, output
    /// by output.
    ///
    /// # Errors
    /// [`VerifyError::Output`] where numbers or shapes differ.
    pub fn add(&mut self, wanted: &[Floats], got: &[Floats]) -> Result<(), VerifyError> {
        let shapes = |outputs: &[Floats]| -> Vec<Vec<usize>> {
            outputs
                .iter()
                .map(|output| output.shape().to_vec())
                .collect()
        };
        if shapes(wanted) != shapes(got) {
            let problem = format!(
                "the shapes are {:?} and {:?}, want the same twice",
                shapes(wanted),
                shapes(got)
            );
            return Err(VerifyError::Output { problem });
        }
        self.outputs.resize(wanted.len(), Sums::default());
        let first = wanted.first().and_then(|output| output.shape().first());
        self.images += first.copied().unwrap_or(0);
        for (sums, (wanted, got)) in self.outputs.iter_mut().zip(wanted.iter().zip(got)) {
            for (&wanted, &got) in wanted.iter().zip(got) {
                let (wanted, got) = (f64::from(wanted), f64::from(got));
                sums.error += (wanted - got) * (wanted - got);
                sums.values += wanted;
                sums.squares += wanted * wanted;
            }
            sums.count += wanted.len() as f64;
        }
        Ok(())
    }

    /// Images seen, where axis 0 of the first output is the image.
    #[must_use]
    pub fn images(&self) -> usize {
        self.images
    }

    /// The root of the mean over outputs of `sum |wanted - got|^2 / sum |wanted - mean|^2`: 0 for equal
    /// outputs, 1 for outputs that are the mean over all images and positions. [`f64::MAX`] where an output is
    /// not finite, or changes that does not vary, and where no image was seen.
    #[must_use]
    pub fn relative(&self) -> f64 {
        let share = |sums: &Sums| {
            let spread = sums.squares - sums.values * sums.values / sums.count.max(1.0);
            match sums.error {
                0.0 => 0.0,
                error if error.is_finite() => error / spread.max(f64::MIN_POSITIVE),
                _ => f64::INFINITY,
            }
        };
        let sum: f64 = self.outputs.iter().map(share).sum();
        let error = (sum / self.outputs.len() as f64).sqrt();
        if error.is_finite() { error } else { f64::MAX }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ndarray::{ArcArray, IxDyn};

    fn floats(values: &[f32]) -> Floats {
        ArcArray::from_shape_vec(IxDyn(&[2, values.len() / 2]), values.to_vec()).unwrap()
    }

    #[test]
    fn an_output_that_is_always_the_mean_has_an_error_of_one_whatever_its_unit() {
        let (wanted, mean) = (floats(&[1.0, 2.0, 3.0, 6.0]), floats(&[3.0; 4]));
        let (loud, loud_mean) = (wanted.mapv(|v| 1e3 * v), mean.mapv(|v| 1e3 * v));
        let mut error = OutputError::default();
        let alone = std::slice::from_ref;
        error.add(alone(&wanted), alone(&mean)).unwrap();
        assert!((error.relative() - 1.0).abs() < 1e-12);
        assert_eq!(error.images(), 2);
        let mut error = OutputError::default();
        let wanted = [wanted, loud.into_shared()];
        error.add(&wanted, &[mean, wanted[1].clone()]).unwrap();
        // One of two is right.
        assert!((error.relative() - 0.5_f64.sqrt()).abs() < 1e-12);
        error
            .add(&wanted, &[wanted[0].clone(), loud_mean.into_shared()])
            .unwrap();
        assert!((error.relative() - 0.5_f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_finite_is_infinitely_wrong_and_other_shapes_are_an_error() {
        let mut error = OutputError::default();
        assert_eq!(error.relative(), f64::MAX);
        error
            .add(&[floats(&[1.0, 2.0])], &[floats(&[1.0, f32::NAN])])
            .unwrap();
        assert_eq!(error.relative(), f64::MAX);
        assert!(error.add(&[floats(&[1.0, 2.0])], &[]).is_err());
        assert!(
            error
                .add(&[floats(&[1.0, 2.0])], &[floats(&[1.0; 4])])
                .is_err()
        );
    }
}
