//! How `Resize` and `Upsample` interpolate: each axis on its own, each output a weighted sum of a few
//! elements of the input.
//!
//! The rules are those of ONNX's specification and of its reference implementation.

/// Which element nearest-neighbour interpolation takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nearest {
    /// The nearest, the one below where two are.
    #[default]
    RoundPreferFloor,
    /// The nearest, the one above where two are.
    RoundPreferCeil,
    /// The one below.
    Floor,
    /// The one above.
    Ceil,
}

/// How values between elements are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Interpolation {
    /// One element is taken.
    Nearest(Nearest),
    /// Two elements are weighed by their distance.
    Linear,
    /// Four elements are weighed by a cubic with parameter `a`.
    Cubic {
        /// ONNX's `cubic_coeff_a`.
        a: f32,
    },
}

/// Where an element of the output lies among those of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coordinates {
    /// Centres of pixels correspond.
    #[default]
    HalfPixel,
    /// As `HalfPixel`, and the whole output is centred.
    HalfPixelSymmetric,
    /// As `HalfPixel`, and an output of one element takes the first.
    PytorchHalfPixel,
    /// The first and the last elements correspond.
    AlignCorners,
    /// Upper left corners of pixels correspond.
    Asymmetric,
}

/// How stated sizes are adapted to the input's proportions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AspectRatio {
    /// Not at all.
    #[default]
    Stretch,
    /// The largest size of the input's proportions that no stated size falls below.
    NotLarger,
    /// The smallest size of the input's proportions that reaches all stated sizes.
    NotSmaller,
}

/// Attributes of `Resize`.
#[derive(Clone, Debug, PartialEq)]
pub struct ResizeAttrs {
    /// How values between elements are found.
    pub interpolation: Interpolation,
    /// Where output elements lie.
    pub coordinates: Coordinates,
    /// Whether elements outside the input have weight 0 (otherwise the edge is repeated).
    pub exclude_outside: bool,
    /// Whether shrinking widens the filter.
    pub antialias: bool,
    /// The axes that scales and sizes are of; `None` is all.
    pub axes: Option<Vec<i64>>,
    /// What stated sizes mean.
    pub aspect_ratio: AspectRatio,
}

/// One axis that is resized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxisResize {
    /// The axis.
    pub axis: usize,
    /// Its length in the input, not 0.
    pub length: usize,
    /// Its length in the output.
    pub resized: usize,
    /// Output elements per input element.
    pub scale: f64,
}

/// The weighted sums that make one axis: `count` elements of the input for each of the output.
#[derive(Clone, Debug, PartialEq)]
pub struct Taps {
    /// Elements summed for each output.
    pub count: usize,
    /// Index into the input: for each output, `count` of them.
    pub indices: Vec<usize>,
    /// Factors in the same order.
    pub weights: Vec<f32>,
}

impl ResizeAttrs {
    /// What `Upsample`, and `Resize` of operator set 10, do.
    #[must_use]
    pub fn upsample(interpolation: Interpolation) -> Self {
        Self {
            interpolation,
            coordinates: Coordinates::Asymmetric,
            exclude_outside: false,
            antialias: false,
            axes: None,
            aspect_ratio: AspectRatio::Stretch,
        }
    }

    /// The sums that make `axis`.
    #[must_use]
    pub fn taps(&self, axis: &AxisResize) -> Taps {
        let (first, count) = self.reach(axis.scale);
        let mut taps = Taps {
            count,
            indices: Vec::with_capacity(axis.resized * count),
            weights: Vec::with_capacity(axis.resized * count),
        };
        let last = axis.length as i64 - 1;
        for position in 0..axis.resized {
            let x = self.source(axis, position);
            // The neighbour on the left is strictly left, so that the rest is in (0, 1].
            let left = if x == x.floor() { x - 1.0 } else { x.floor() };
            let rest = x - left;
            let mut weights: Vec<f64> = (0..count as i64)
                .map(|tap| self.weight((first + tap) as f64, rest, axis.scale))
                .collect();
            let indices = (0..count as i64).map(|tap| left as i64 + first + tap);
            if self.exclude_outside {
                for (weight, index) in weights.iter_mut().zip(indices.clone()) {
                    if index < 0 || index > last {
                        *weight = 0.0;
                    }
                }
            }
            let sum: f64 = weights.iter().sum();
            let divisor = if sum == 0.0 { 1.0 } else { sum };
            taps.indices
                .extend(indices.map(|index| index.clamp(0, last) as usize));
            taps.weights
                .extend(weights.iter().map(|weight| (weight / divisor) as f32));
        }
        if let Interpolation::Nearest(_) = self.interpolation {
            taps.keep_heaviest();
        }
        taps
    }

    /// The first tap relative to the left neighbour, and the number of taps.
    fn reach(&self, scale: f64) -> (i64, usize) {
        let support = match self.interpolation {
            Interpolation::Nearest(_) => return (0, 2),
            Interpolation::Linear => 1.0,
            Interpolation::Cubic { .. } => 2.0,
        };
        let first = (-support / self.filter_scale(scale)).floor() as i64 + 1;
        (first, (2 - 2 * first).unsigned_abs() as usize)
    }

    fn filter_scale(&self, scale: f64) -> f64 {
        if self.antialias { scale.min(1.0) } else { 1.0 }
    }

    /// The weight of the tap `offset` right of the left neighbour, `rest` right of which `x` lies.
    fn weight(&self, offset: f64, rest: f64, scale: f64) -> f64 {
        let distance = ((offset - rest) * self.filter_scale(scale)).abs();
        match self.interpolation {
            Interpolation::Nearest(nearest) => {
                let takes_right = match nearest {
                    // An element that is hit is the right one.
                    _ if rest == 1.0 => true,
                    Nearest::RoundPreferFloor => rest > 0.5,
                    Nearest::RoundPreferCeil => rest >= 0.5,
                    Nearest::Floor => false,
                    Nearest::Ceil => true,
                };
                f64::from(u8::from(takes_right == (offset == 1.0)))
            }
            Interpolation::Linear => (1.0 - distance).max(0.0),
            Interpolation::Cubic { a } => {
                let (a, d) = (f64::from(a), distance);
                if d <= 1.0 {
                    ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
                } else if d < 2.0 {
                    ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
                } else {
                    0.0
                }
            }
        }
    }

    /// Where output `position` lies among the input's elements.
    fn source(&self, axis: &AxisResize, position: usize) -> f64 {
        let (x, scale) = (position as f64, axis.scale);
        let (length, resized) = (axis.length as f64, axis.resized as f64);
        let half_pixel = (x + 0.5) / scale - 0.5;
        match self.coordinates {
            Coordinates::HalfPixel => half_pixel,
            Coordinates::HalfPixelSymmetric => {
                length / 2.0 * (1.0 - resized / (scale * length)) + half_pixel
            }
            Coordinates::PytorchHalfPixel if axis.resized > 1 => half_pixel,
            Coordinates::AlignCorners if axis.resized > 1 => x * (length - 1.0) / (resized - 1.0),
            Coordinates::PytorchHalfPixel | Coordinates::AlignCorners => 0.0,
            Coordinates::Asymmetric => x / scale,
        }
    }
}

impl Taps {
    /// Leaves the one tap of each output that has a weight.
    fn keep_heaviest(&mut self) {
        let pairs = self
            .indices
            .chunks(self.count)
            .zip(self.weights.chunks(self.count));
        let indices = pairs.map(|(indices, weights)| {
            let heaviest = (0..weights.len()).max_by(|&a, &b| weights[a].total_cmp(&weights[b]));
            indices[heaviest.unwrap_or(0)]
        });
        self.indices = indices.collect();
        self.weights = vec![1.0; self.indices.len()];
        self.count = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taps(
        interpolation: Interpolation,
        coordinates: Coordinates,
        length: usize,
        resized: usize,
    ) -> Taps {
        let attrs = ResizeAttrs {
            coordinates,
            ..ResizeAttrs::upsample(interpolation)
        };
        attrs.taps(&AxisResize {
            axis: 0,
            length,
            resized,
            scale: resized as f64 / length as f64,
        })
    }

    #[test]
    fn the_nearest_element_has_all_the_weight() {
        let nearest =
            |nearest, coordinates| taps(Interpolation::Nearest(nearest), coordinates, 2, 4);
        let found = nearest(Nearest::Floor, Coordinates::Asymmetric);
        assert_eq!((found.count, found.indices), (1, vec![0, 0, 1, 1]));
        assert_eq!(found.weights, [1.0; 4]);
        let found = nearest(Nearest::Ceil, Coordinates::Asymmetric);
        assert_eq!(found.indices, [0, 1, 1, 1]);
        // Positions 0, 1/3, 2/3, 1.
        let found = nearest(Nearest::RoundPreferFloor, Coordinates::AlignCorners);
        assert_eq!(found.indices, [0, 0, 1, 1]);
    }

    #[test]
    fn linear_weights_are_distances_and_the_edge_repeats() {
        // Positions -1/4, 1/4, 3/4, 5/4 among two elements.
        let found = taps(Interpolation::Linear, Coordinates::HalfPixel, 2, 4);
        assert_eq!(found.indices, [0, 0, 0, 1, 0, 1, 1, 1]);
        assert_eq!(
            found.weights,
            [0.25, 0.75, 0.75, 0.25, 0.25, 0.75, 0.75, 0.25]
        );
    }

    #[test]
    fn weights_of_an_output_sum_to_one() {
        for interpolation in [Interpolation::Linear, Interpolation::Cubic { a: -0.5 }] {
            for antialias in [false, true] {
                for (length, resized) in [(7, 3), (3, 8), (1, 4), (9, 1)] {
                    let attrs = ResizeAttrs {
                        antialias,
                        exclude_outside: true,
                        coordinates: Coordinates::HalfPixel,
                        ..ResizeAttrs::upsample(interpolation)
                    };
                    let scale = resized as f64 / length as f64;
                    let taps = attrs.taps(&AxisResize {
                        axis: 0,
                        length,
                        resized,
                        scale,
                    });
                    for (weights, indices) in taps
                        .weights
                        .chunks(taps.count)
                        .zip(taps.indices.chunks(taps.count))
                    {
                        let sum: f32 = weights.iter().sum();
                        assert!((sum - 1.0).abs() < 1e-6, "{interpolation:?}: {weights:?}");
                        assert!(indices.iter().all(|&index| index < length));
                    }
                }
            }
        }
    }
}
