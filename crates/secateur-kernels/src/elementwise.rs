//! Functions of one and two arrays, element by element.

use crate::Clamp;
use crate::level::compiled;
use rayon::prelude::*;

/// Elements that one part of the work takes.
const PART: usize = 1 << 14;

/// `y = f(x)`.
///
/// # Panics
/// Where the lengths differ.
pub fn map(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    assert_eq!(x.len(), y.len(), "lengths");
    y.par_chunks_mut(PART)
        .zip(x.par_chunks(PART))
        .for_each(|(y, x)| {
            compiled(
                #[inline(always)]
                || {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y = f(*x);
                    }
                },
            );
        });
}

/// `y = f(a, b)`.
///
/// # Panics
/// Where the lengths differ.
pub fn zip(a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    assert!(a.len() == y.len() && b.len() == y.len(), "lengths");
    y.par_chunks_mut(PART)
        .zip(a.par_chunks(PART).zip(b.par_chunks(PART)))
        .for_each(|(y, (a, b))| {
            compiled(
                #[inline(always)]
                || {
                    for (y, (a, b)) in y.iter_mut().zip(a.iter().zip(b)) {
                        *y = f(*a, *b);
                    }
                },
            );
        });
}

/// `y = clamp(x)`.
///
/// # Panics
/// Where the lengths differ.
pub fn clamp(clamp: Clamp, x: &[f32], y: &mut [f32]) {
    map(
        x,
        y,
        #[inline(always)]
        move |x| clamp.value(x),
    );
}

/// `dx`, given `dy`, of [`clamp`].
///
/// # Panics
/// Where the lengths differ.
pub fn clamp_backward(clamp: Clamp, dy: &[f32], x: &[f32], dx: &mut [f32]) {
    zip(
        dy,
        x,
        dx,
        #[inline(always)]
        move |dy, x| clamp.backward(x, dy),
    );
}

/// `y = clamp(a + b)`.
///
/// # Panics
/// Where the lengths differ.
pub fn add(clamp: Clamp, a: &[f32], b: &[f32], y: &mut [f32]) {
    zip(
        a,
        b,
        y,
        #[inline(always)]
        move |a, b| clamp.value(a + b),
    );
}

/// `y = a * b`.
///
/// # Panics
/// Where the lengths differ.
pub fn multiply(a: &[f32], b: &[f32], y: &mut [f32]) {
    zip(
        a,
        b,
        y,
        #[inline(always)]
        |a, b| a * b,
    );
}

/// `y += x`.
///
/// # Panics
/// Where the lengths differ.
pub fn accumulate(y: &mut [f32], x: &[f32]) {
    assert_eq!(x.len(), y.len(), "lengths");
    y.par_chunks_mut(PART)
        .zip(x.par_chunks(PART))
        .for_each(|(y, x)| {
            compiled(
                #[inline(always)]
                || {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y += *x;
                    }
                },
            );
        });
}

/// Partial sums that are kept side by side, so that they fill a vector register.
const LANES: usize = 16;

/// The sums of `f(a, b)`, in lanes of `f32` that are added in `f64`.
#[inline(always)]
pub(crate) fn sums_of<const N: usize>(
    a: &[f32],
    b: &[f32],
    f: impl Fn(f32, f32) -> [f32; N],
) -> [f64; N] {
    // Lanes are emptied before they grow so large that small terms are lost.
    const RUN: usize = 256 * LANES;
    let mut totals = [0.0; N];
    for (a, b) in a.chunks(RUN).zip(b.chunks(RUN)) {
        let mut lanes = [[0.0_f32; LANES]; N];
        let (whole_a, whole_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest = whole_a.remainder().iter().zip(whole_b.remainder());
        for (a, b) in whole_a.zip(whole_b) {
            for lane in 0..LANES {
                let terms = f(a[lane], b[lane]);
                for (lanes, term) in lanes.iter_mut().zip(terms) {
                    lanes[lane] += term;
                }
            }
        }
        for (total, lanes) in totals.iter_mut().zip(lanes) {
            *total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        }
        for (&a, &b) in rest {
            for (total, term) in totals.iter_mut().zip(f(a, b)) {
                *total += f64::from(term);
            }
        }
    }
    totals
}
