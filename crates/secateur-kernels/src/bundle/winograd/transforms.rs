//! The transforms of F(2x2, 3x3): for `d` the 4x4 inputs of 2x2 outputs and `g` a kernel, the outputs are
//! `A' [(G g G') * (B' d B)] A`, products element by element (Lavin and Gray, arXiv 1509.09308).

use crate::bundle::SMALL;
use crate::level;
use pulp::{Simd, WithSimd};

/// Inputs of a patch, and elements of what they and a kernel become.
pub(super) const ELEMENTS: usize = 16;
/// Outputs of a patch.
pub(super) const CORNERS: usize = 4;
/// Taps of a kernel.
const TAPS: usize = 9;

/// Weights `[tap][number]` become `[element][number]`. The taps are in their opposite order where `is_turned`.
pub(super) fn of_weights(packed: &[f32], is_turned: bool, target: &mut [f32]) {
    level::dispatch(OfWeights {
        packed,
        is_turned,
        target,
    });
}

struct OfWeights<'a> {
    packed: &'a [f32],
    is_turned: bool,
    target: &'a mut [f32],
}

impl WithSimd for OfWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let numbers = self.packed.len() / TAPS;
        let taps: [&[f32]; TAPS] = std::array::from_fn(|tap| {
            let tap = if self.is_turned { TAPS - 1 - tap } else { tap };
            &self.packed[tap * numbers..][..numbers]
        });
        let elements = split(self.target, numbers, numbers);
        for first in (0..numbers).step_by(S::F32_LANES) {
            let len = S::F32_LANES.min(numbers - first);
            let mut g = [simd.splat_f32s(0.0); TAPS];
            for (g, tap) in g.iter_mut().zip(taps) {
                *g = if len == S::F32_LANES {
                    load::<S>(tap, first)
                } else {
                    simd.partial_load_f32s(&tap[first..])
                };
            }
            let [a, b, c, d, e, f, g, h, i] = g;
            let a = of_taps(simd, [a, d, g]);
            let b = of_taps(simd, [b, e, h]);
            let c = of_taps(simd, [c, f, i]);
            for row in 0..4 {
                let values = of_taps(simd, [a[row], b[row], c[row]]);
                for (column, value) in values.into_iter().enumerate() {
                    let element = &mut *elements[4 * row + column];
                    if len == S::F32_LANES {
                        store::<S>(element, first, value);
                    } else {
                        simd.partial_store_f32s(&mut element[first..], value);
                    }
                }
            }
        }
    }
}

/// The floats of a register from `at` on.
#[inline(always)]
fn load<S: Simd>(floats: &[f32], at: usize) -> S::f32s {
    S::as_simd_f32s(&floats[at..at + S::F32_LANES]).0[0]
}

#[inline(always)]
fn store<S: Simd>(floats: &mut [f32], at: usize, values: S::f32s) {
    S::as_mut_simd_f32s(&mut floats[at..at + S::F32_LANES]).0[0] = values;
}

/// The first `len` floats of each element.
#[inline(always)]
fn split(target: &mut [f32], element: usize, len: usize) -> [&mut [f32]; ELEMENTS] {
    let mut elements = target.chunks_mut(element);
    std::array::from_fn(|_| &mut elements.next().unwrap_or_default()[..len])
}

/// One row or column of `G`.
#[inline(always)]
fn of_taps<S: Simd>(simd: S, [a, b, c]: [S::f32s; 3]) -> [S::f32s; 4] {
    let half = simd.splat_f32s(0.5);
    let outer = simd.mul_f32s(half, simd.add_f32s(a, c));
    let inner = simd.mul_f32s(half, b);
    [
        a,
        simd.add_f32s(outer, inner),
        simd.sub_f32s(outer, inner),
        c,
    ]
}

/// One row or column of `B'`.
#[inline(always)]
fn of_inputs<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 4] {
    [
        simd.sub_f32s(a, c),
        simd.add_f32s(b, c),
        simd.sub_f32s(c, b),
        simd.sub_f32s(b, d),
    ]
}

/// One row or column of `A'`.
#[inline(always)]
fn of_products<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 2] {
    [
        simd.add_f32s(simd.add_f32s(a, b), c),
        simd.sub_f32s(simd.sub_f32s(b, c), d),
    ]
}

/// One row or column of `A`.
#[inline(always)]
fn of_gradients<S: Simd>(simd: S, [a, b]: [S::f32s; 2]) -> [S::f32s; 4] {
    [
        a,
        simd.add_f32s(a, b),
        simd.sub_f32s(a, b),
        simd.neg_f32s(b),
    ]
}

/// One row or column of `G'`.
#[inline(always)]
fn of_elements<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 3] {
    let half = simd.splat_f32s(0.5);
    let outer = simd.mul_f32s(half, simd.add_f32s(b, c));
    [
        simd.add_f32s(a, outer),
        simd.mul_f32s(half, simd.sub_f32s(b, c)),
        simd.add_f32s(outer, d),
    ]
}

/// Where the rows of the channels of a patch's inputs are, and where they go.
pub(super) struct Rows {
    pub channels: usize,
    /// Floats of a row.
    pub len: usize,
    /// Floats from a row of the source to the next one.
    pub from: usize,
    /// Floats from a row of an element to the next one.
    pub to: usize,
    /// Floats from an element to the next one.
    pub element: usize,
}

/// Transforms the inputs of a patch, row by row.
#[inline(always)]
pub(super) fn inputs<S: Simd>(
    simd: S,
    rows: &Rows,
    places: [&[f32]; ELEMENTS],
    target: &mut [f32],
) {
    transform::<S, Inputs, ELEMENTS>(simd, rows, places, target);
}

/// Transforms the gradients of the outputs of a patch, row by row.
#[inline(always)]
pub(super) fn gradients<S: Simd>(
    simd: S,
    rows: &Rows,
    corners: [&[f32]; CORNERS],
    target: &mut [f32],
) {
    transform::<S, Gradients, CORNERS>(simd, rows, corners, target);
}

/// What becomes of the values of a patch.
trait Transform<const VALUES: usize> {
    fn elements<S: Simd>(simd: S, values: [S::f32s; VALUES]) -> [S::f32s; ELEMENTS];
}

struct Inputs;

impl Transform<ELEMENTS> for Inputs {
    #[inline(always)]
    fn elements<S: Simd>(simd: S, d: [S::f32s; ELEMENTS]) -> [S::f32s; ELEMENTS] {
        let a = of_inputs(simd, [d[0], d[4], d[8], d[12]]);
        let b = of_inputs(simd, [d[1], d[5], d[9], d[13]]);
        let c = of_inputs(simd, [d[2], d[6], d[10], d[14]]);
        let d = of_inputs(simd, [d[3], d[7], d[11], d[15]]);
        let mut values = [a[0]; ELEMENTS];
        for row in 0..4 {
            let of_row = of_inputs(simd, [a[row], b[row], c[row], d[row]]);
            values[4 * row..][..4].copy_from_slice(&of_row);
        }
        values
    }
}

struct Gradients;

impl Transform<CORNERS> for Gradients {
    #[inline(always)]
    fn elements<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; CORNERS]) -> [S::f32s; ELEMENTS] {
        let left = of_gradients(simd, [a, c]);
        let right = of_gradients(simd, [b, d]);
        let mut values = [a; ELEMENTS];
        for row in 0..4 {
            let of_row = of_gradients(simd, [left[row], right[row]]);
            values[4 * row..][..4].copy_from_slice(&of_row);
        }
        values
    }
}

/// Transforms the values of a patch, row by row.
#[inline(always)]
fn transform<S: Simd, T: Transform<VALUES>, const VALUES: usize>(
    simd: S,
    rows: &Rows,
    places: [&[f32]; VALUES],
    target: &mut [f32],
) {
    let channels = rows.channels;
    let len = (channels - 1) * rows.from + rows.len;
    let mut whole = places;
    for place in &mut whole {
        *place = &place[..len];
    }
    let len = (channels - 1) * rows.to + rows.len;
    let mut elements = split(target, rows.element, len);
    let mut values = [simd.splat_f32s(0.0); VALUES];
    if rows.len >= S::F32_LANES {
        for channel in 0..channels {
            for lane in (0..rows.len).step_by(S::F32_LANES) {
                for (value, place) in values.iter_mut().zip(whole) {
                    *value = load::<S>(place, channel * rows.from + lane);
                }
                let values = T::elements(simd, values);
                for (element, value) in elements.iter_mut().zip(values) {
                    store::<S>(element, channel * rows.to + lane, value);
                }
            }
        }
        return;
    }
    // Rows of neighbouring channels share a register, of which one channel alone fills a part.
    let shared = S::F32_LANES / rows.len;
    for channel in (0..channels).step_by(shared) {
        let channel = channel.min(channels.saturating_sub(shared));
        for (value, place) in values.iter_mut().zip(whole) {
            let from = channel * rows.from;
            *value = if channels < shared {
                simd.partial_load_f32s(&place[from..])
            } else {
                load::<S>(place, from)
            };
        }
        let values = T::elements(simd, values);
        for (element, value) in elements.iter_mut().zip(values) {
            let mut floats = [[0.0; SMALL]; 2];
            store::<S>(floats.as_flattened_mut(), 0, value);
            for (row, floats) in floats.iter().take(channels).enumerate() {
                element[(channel + row) * rows.to..][..SMALL].copy_from_slice(floats);
            }
        }
    }
}

/// The outputs of a patch from its products from `at` on, `element` floats apart.
#[inline(always)]
pub(super) fn outputs<S: Simd>(
    simd: S,
    sums: &[f32],
    element: usize,
    at: usize,
) -> [S::f32s; CORNERS] {
    let mut m = [simd.splat_f32s(0.0); ELEMENTS];
    for (index, m) in m.iter_mut().enumerate() {
        *m = load::<S>(sums, index * element + at);
    }
    let a = of_products(simd, [m[0], m[4], m[8], m[12]]);
    let b = of_products(simd, [m[1], m[5], m[9], m[13]]);
    let c = of_products(simd, [m[2], m[6], m[10], m[14]]);
    let d = of_products(simd, [m[3], m[7], m[11], m[15]]);
    let [e, f] = of_products(simd, [a[0], b[0], c[0], d[0]]);
    let [g, h] = of_products(simd, [a[1], b[1], c[1], d[1]]);
    [e, f, g, h]
}

/// Sums `[element][number]` become the gradients of taps `[tap][number]`, in their place.
pub(super) fn to_taps(sums: &mut [f32]) {
    level::dispatch(ToTaps(sums));
}

struct ToTaps<'a>(&'a mut [f32]);

impl WithSimd for ToTaps<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Sums fill the registers of a tile.
        let numbers = self.0.len() / ELEMENTS;
        for first in (0..numbers).step_by(S::F32_LANES) {
            let mut m = [simd.splat_f32s(0.0); ELEMENTS];
            for (index, m) in m.iter_mut().enumerate() {
                *m = load::<S>(self.0, index * numbers + first);
            }
            let a = of_elements(simd, [m[0], m[4], m[8], m[12]]);
            let b = of_elements(simd, [m[1], m[5], m[9], m[13]]);
            let c = of_elements(simd, [m[2], m[6], m[10], m[14]]);
            let d = of_elements(simd, [m[3], m[7], m[11], m[15]]);
            for row in 0..3 {
                let taps = of_elements(simd, [a[row], b[row], c[row], d[row]]);
                for (column, tap) in taps.into_iter().enumerate() {
                    store::<S>(self.0, (3 * row + column) * numbers + first, tap);
                }
            }
        }
    }
}
