//! Functions that cut values off.

use pulp::Simd;

/// A function that is a straight line of slope one, cut off on both sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    /// The smallest and the largest value.
    range: [f32; 2],
    /// Between these, both left out, the slope is one; elsewhere it is zero.
    slope: [f32; 2],
}

impl Clamp {
    /// The function that changes nothing.
    pub const NONE: Self = Self {
        range: [f32::NEG_INFINITY, f32::INFINITY],
        slope: [f32::NEG_INFINITY, f32::INFINITY],
    };

    /// `Relu`, whose slope at zero is zero.
    pub const RELU: Self = Self {
        range: [0.0, f32::INFINITY],
        slope: [0.0, f32::INFINITY],
    };

    /// `Clip`, whose bounds belong to the straight part.
    #[must_use]
    pub fn clip(min: f32, max: f32) -> Self {
        Self {
            range: [min, max],
            slope: [min.next_down(), max.next_up()],
        }
    }

    /// The value at `x`.
    #[inline(always)]
    pub(crate) fn value(self, x: f32) -> f32 {
        let [min, max] = self.range;
        let x = if x < min { min } else { x };
        if x > max { max } else { x }
    }

    /// The value at each lane of `x`.
    #[inline(always)]
    pub(crate) fn values<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        let [min, max] = self.range.map(
            #[inline(always)]
            |bound| simd.splat_f32s(bound),
        );
        let x = simd.select_f32s(simd.less_than_f32s(x, min), min, x);
        simd.select_f32s(simd.less_than_f32s(max, x), max, x)
    }

    /// `gradient` of the value as the gradient of `x`.
    #[inline(always)]
    pub(crate) fn backward(self, x: f32, gradient: f32) -> f32 {
        let [below, above] = self.slope;
        if (x > below) & (x < above) {
            gradient
        } else {
            0.0
        }
    }
}
