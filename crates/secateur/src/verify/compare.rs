//! How far the outputs of two networks are apart.

use super::{AllOutputs, Outputs, VerifyError};
use crate::data::Batch;
use crate::tensor::Floats;
use serde::Serialize;
use std::error::Error;

/// How far the outputs of two networks were apart on the same images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerifySummary {
    /// What judged: the name of a runtime.
    pub runtime: String,
    /// Images judged.
    pub n: usize,
    /// The largest absolute difference of two outputs.
    pub max_abs_diff: f64,
    /// The largest absolute output of either network.
    pub max_abs_output: f64,
    /// How far outputs at one place are apart over the images, at most, in the first network; `None` where
    /// fewer than two images were compared.
    pub spread: Option<f64>,
    /// `max_abs_diff / max_abs_output`; 0 where all outputs are 0.
    pub relative: f64,
    /// The share of images for which both networks have their highest output at the same place, from
    /// 0 to 1. Of equal outputs the first counts as the higher. 1 for outputs with positions, in which the
    /// place of the highest value is no class.
    pub top1_agreement: f64,
    /// Images with an output that is not finite in either network. They count as disagreement and
    /// are left out of the differences.
    pub non_finite: usize,
}

/// How far two networks may be apart. A difference is a fault where it exceeds each of the first three.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// The largest difference as a share of [`VerifySummary::spread`], or of the largest output for a single
    /// image. The default is 1e-3: a wrong weight is far above.
    pub relative: f64,
    /// The same as a share of the largest output, for outputs that hardly depend on the image. The default is
    /// 1e-4: f32 rounding in other orders of summation stays below 1e-5 in networks of some fifty layers.
    pub rounding: f64,
    /// The same in the unit of the outputs. The default is 2^-20, or 1e-6: runtimes compute sigmoid as 1/2 plus
    /// a rational function, exact to some units in the last place of 1, 2^-23 each, however small the result is.
    pub absolute: f64,
    /// The least [`VerifySummary::top1_agreement`]. The default is 0.999: with equal outputs up to
    /// rounding, only images that are undecided between two classes can change theirs.
    pub top1_agreement: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            relative: 1e-3,
            rounding: 1e-4,
            absolute: f64::from(8.0 * f32::EPSILON),
            top1_agreement: 0.999,
        }
    }
}

impl Tolerance {
    /// The largest difference that `summary` may have.
    fn allowed(&self, summary: &VerifySummary) -> f64 {
        let scale = summary.spread.unwrap_or(summary.max_abs_output);
        (self.relative * scale)
            .max(self.rounding * summary.max_abs_output)
            .max(self.absolute)
    }
}

impl VerifySummary {
    /// Whether the difference is within `tolerance`.
    ///
    /// # Errors
    /// [`VerifyError::Differs`] says which limit is exceeded.
    pub fn check(&self, tolerance: Tolerance) -> Result<(), VerifyError> {
        let mut problems = Vec::new();
        if self.non_finite > 0 {
            problems.push(format!(
                "{} images have outputs that are not finite",
                self.non_finite
            ));
        }
        let allowed = tolerance.allowed(self);
        if self.max_abs_diff > allowed {
            let spread = match self.spread {
                Some(spread) => format!(", {spread:.1e} apart over the images"),
                None => String::new(),
            };
            problems.push(format!(
                "largest difference {:.1e}, at most {allowed:.1e} is allowed (outputs up to {:.1e}{spread})",
                self.max_abs_diff, self.max_abs_output
            ));
        }
        if self.top1_agreement < tolerance.top1_agreement {
            problems.push(format!(
                "top-1 agrees on {:.2} % of the images, at least {:.2} % is wanted",
                100.0 * self.top1_agreement,
                100.0 * tolerance.top1_agreement
            ));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(VerifyError::Differs {
            problem: problems.join("; "),
            summary: Box::new(self.clone()),
        })
    }
}

/// Runs all `batches` through networks `a` and `b` and measures how far their outputs are apart.
/// Outputs may have any shape whose axis 0 is the image. `runtime` is the name of what judges.
///
/// # Errors
/// [`VerifyError::Output`] where the shapes of the outputs differ, [`VerifyError::NoImages`] where
/// there is no image; what reading and running give. A difference is no error here: see
/// [`VerifySummary::check`].
pub fn compare<E: Error + Send + Sync + 'static>(
    a: &mut Outputs<'_>,
    b: &mut Outputs<'_>,
    batches: impl IntoIterator<Item = Result<Batch, E>>,
    runtime: &str,
) -> Result<VerifySummary, VerifyError> {
    let (mut n, mut agreed, mut non_finite) = (0_usize, 0_usize, 0);
    let (mut max_abs_diff, mut max_abs_output) = (0_f64, 0_f64);
    let mut range = Range::default();
    for batch in batches {
        let batch = batch.map_err(|error| VerifyError::Data(Box::new(error)))?;
        let (from_a, from_b) = (a(&batch.images)?, b(&batch.images)?);
        let images = batch.images.shape().first().copied().unwrap_or(0);
        let shape = from_a.shape();
        if shape != from_b.shape() || shape.first() != Some(&images) || from_a.len() < images {
            return Err(VerifyError::Output {
                problem: format!(
                    "the shapes for {images} images are {shape:?} and {:?}, want twice [{images}, ...]",
                    from_b.shape()
                ),
            });
        }
        for (a, b) in from_a.outer_iter().zip(from_b.outer_iter()) {
            n += 1;
            if !a.iter().chain(&b).all(|value| value.is_finite()) {
                non_finite += 1;
                continue;
            }
            for (a, b) in a.iter().zip(&b) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                max_abs_diff = max_abs_diff.max((a - b).abs());
                max_abs_output = max_abs_output.max(a.abs()).max(b.abs());
            }
            range.add(a.iter());
            let is_scores = a.shape().iter().skip(1).all(|&length| length == 1);
            let agrees = || first_highest(a.iter()) == first_highest(b.iter());
            agreed += usize::from(!is_scores || agrees());
        }
    }
    if n == 0 {
        return Err(VerifyError::NoImages);
    }
    let relative = if max_abs_output > 0.0 {
        max_abs_diff / max_abs_output
    } else {
        0.0
    };
    Ok(VerifySummary {
        runtime: runtime.to_owned(),
        n,
        max_abs_diff,
        max_abs_output,
        spread: range.widest(),
        relative,
        top1_agreement: agreed as f64 / n as f64,
        non_finite,
    })
}

/// The least and the largest output at each place, over images.
#[derive(Default)]
struct Range {
    images: usize,
    least: Vec<f32>,
    largest: Vec<f32>,
}

impl Range {
    /// Adds the outputs for an image; every image has as many.
    fn add<'v>(&mut self, values: impl Iterator<Item = &'v f32>) {
        self.images += 1;
        if self.images == 1 {
            self.least = values.copied().collect();
            self.largest.clone_from(&self.least);
            return;
        }
        let ends = self.least.iter_mut().zip(&mut self.largest);
        for ((least, largest), &value) in ends.zip(values) {
            *least = least.min(value);
            *largest = largest.max(value);
        }
    }

    /// How far the ends of a place are apart, at most; `None` for fewer than two images.
    fn widest(&self) -> Option<f64> {
        let widths = self.largest.iter().zip(&self.least);
        let widths = widths.map(|(&largest, &least)| f64::from(largest) - f64::from(least));
        (self.images > 1).then(|| widths.fold(0.0, f64::max))
    }
}

/// [`compare`] for each of `n_outputs` outputs; `batches` gives the images anew for each. The summary is that
/// of the output whose difference is the largest beside what [`Tolerance::default`] allows it, with the least
/// agreement and the most images that are not finite of any.
///
/// # Errors
/// As [`compare`]; [`VerifyError::Output`] where a network has fewer outputs.
pub fn compare_outputs<E: Error + Send + Sync + 'static, B>(
    n_outputs: usize,
    a: &mut AllOutputs<'_>,
    b: &mut AllOutputs<'_>,
    batches: impl Fn() -> B,
    runtime: &str,
) -> Result<VerifySummary, VerifyError>
where
    B: IntoIterator<Item = Result<Batch, E>>,
{
    let mut all: Option<VerifySummary> = None;
    for at in 0..n_outputs {
        let one = |outputs: Vec<Floats>| {
            let n = outputs.len();
            outputs
                .into_iter()
                .nth(at)
                .ok_or_else(|| VerifyError::Output {
                    problem: format!("there are {n}, want {n_outputs}"),
                })
        };
        let mut next = compare(
            &mut |images| one(a(images)?),
            &mut |images| one(b(images)?),
            batches(),
            runtime,
        )?;
        if let Some(all) = all {
            let agreement = all.top1_agreement.min(next.top1_agreement);
            let non_finite = all.non_finite.max(next.non_finite);
            let excess = |summary: &VerifySummary| {
                summary.max_abs_diff / Tolerance::default().allowed(summary)
            };
            if excess(&all) > excess(&next) {
                next = all;
            }
            (next.top1_agreement, next.non_finite) = (agreement, non_finite);
        }
        all = Some(next);
    }
    all.ok_or(VerifyError::NoImages)
}

/// Where the highest of finite values stands; the first of equal ones.
fn first_highest<'v>(values: impl Iterator<Item = &'v f32>) -> usize {
    let mut highest = (0, f32::NEG_INFINITY);
    for (at, &value) in values.enumerate() {
        if value > highest.1 {
            highest = (at, value);
        }
    }
    highest.0
}
