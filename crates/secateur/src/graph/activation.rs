//! Elementwise functions of one input: one table of their values and slopes.

/// How `Gelu` computes the normal distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GeluForm {
    /// By the error function.
    #[default]
    Exact,
    /// By a hyperbolic tangent.
    Tanh,
}

/// An elementwise function of one input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x` above 0, `alpha * x` below.
    LeakyRelu {
        /// Slope below 0.
        alpha: f32,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `clamp(alpha * x + beta, 0, 1)`.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// `x * clamp(x / 6 + 1/2, 0, 1)`.
    HardSwish,
    /// Hyperbolic tangent.
    Tanh,
    /// `e^x`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// Error function.
    Erf,
    /// `|x|`.
    Abs,
    /// `-x`.
    Neg,
    /// `1 / x`.
    Reciprocal,
    /// The next integer below; its slope is 0.
    Floor,
    /// The next integer above; its slope is 0.
    Ceil,
    /// The nearest integer, the even one of two; its slope is 0.
    Round,
    /// `ln(1 + e^x)`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// `x * tanh(softplus(x))`.
    Mish,
    /// `x` above 0, `alpha * (e^x - 1)` below.
    Elu {
        /// The limit far below 0, negated.
        alpha: f32,
    },
    /// `gamma` times `Elu`.
    Selu {
        /// As of `Elu`.
        alpha: f32,
        /// Slope above 0.
        gamma: f32,
    },
    /// `x` above 0, `alpha * (e^(x / alpha) - 1)` below.
    Celu {
        /// The limit far below 0, negated; not 0.
        alpha: f32,
    },
    /// `x` above `alpha`, else 0.
    ThresholdedRelu {
        /// The threshold.
        alpha: f32,
    },
    /// `x` times the probability that a standard normal number is below `x`.
    Gelu(GeluForm),
    /// `x * sigmoid(alpha * x)`.
    Swish {
        /// Steepness of the gate.
        alpha: f32,
    },
}

impl Activation {
    /// The ONNX name of the operator.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "Relu",
            Self::LeakyRelu { .. } => "LeakyRelu",
            Self::Sigmoid => "Sigmoid",
            Self::HardSigmoid { .. } => "HardSigmoid",
            Self::HardSwish => "HardSwish",
            Self::Tanh => "Tanh",
            Self::Exp => "Exp",
            Self::Log => "Log",
            Self::Sqrt => "Sqrt",
            Self::Erf => "Erf",
            Self::Abs => "Abs",
            Self::Neg => "Neg",
            Self::Reciprocal => "Reciprocal",
            Self::Floor => "Floor",
            Self::Ceil => "Ceil",
            Self::Round => "Round",
            Self::Softplus => "Softplus",
            Self::Softsign => "Softsign",
            Self::Mish => "Mish",
            Self::Elu { .. } => "Elu",
            Self::Selu { .. } => "Selu",
            Self::Celu { .. } => "Celu",
            Self::ThresholdedRelu { .. } => "ThresholdedRelu",
            Self::Gelu(_) => "Gelu",
            Self::Swish { .. } => "Swish",
        }
    }

    /// The function's value.
    #[must_use]
    #[inline]
    pub fn value(self, x: f32) -> f32 {
        match self {
            Self::Relu if x < 0.0 => 0.0,
            Self::Relu => x,
            Self::LeakyRelu { alpha } if x < 0.0 => alpha * x,
            Self::LeakyRelu { .. } => x,
            Self::Sigmoid => sigmoid(x),
            Self::HardSigmoid { alpha, beta } => (alpha * x + beta).clamp(0.0, 1.0),
            Self::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Self::Tanh => x.tanh(),
            Self::Exp => x.exp(),
            Self::Log => x.ln(),
            Self::Sqrt => x.sqrt(),
            Self::Erf => erf(x),
            Self::Abs => x.abs(),
            Self::Neg => -x,
            Self::Reciprocal => 1.0 / x,
            Self::Floor => x.floor(),
            Self::Ceil => x.ceil(),
            Self::Round => x.round_ties_even(),
            Self::Softplus => softplus(x),
            Self::Softsign => x / (1.0 + x.abs()),
            Self::Mish => x * softplus(x).tanh(),
            Self::Elu { alpha } if x < 0.0 => alpha * x.exp_m1(),
            Self::Elu { .. } => x,
            Self::Selu { alpha, gamma } if x < 0.0 => gamma * alpha * x.exp_m1(),
            Self::Selu { gamma, .. } => gamma * x,
            Self::Celu { alpha } if x < 0.0 => alpha * (x / alpha).exp_m1(),
            Self::Celu { .. } => x,
            Self::ThresholdedRelu { alpha } if x <= alpha => 0.0,
            Self::ThresholdedRelu { .. } => x,
            Self::Gelu(GeluForm::Exact) => x * normal(x),
            Self::Gelu(GeluForm::Tanh) => 0.5 * x * (1.0 + gelu_inner(x).tanh()),
            Self::Swish { alpha } => x * sigmoid(alpha * x),
        }
    }

    /// The function's derivative; at a kink that of the left side.
    #[must_use]
    #[inline]
    pub fn slope(self, x: f32) -> f32 {
        match self {
            Self::Relu => f32::from(u8::from(x > 0.0)),
            Self::LeakyRelu { .. } if x > 0.0 => 1.0,
            Self::LeakyRelu { alpha } => alpha,
            Self::Sigmoid => sigmoid_slope(x),
            Self::HardSigmoid { alpha, beta } => {
                let inner = alpha * x + beta;
                if inner > 0.0 && inner < 1.0 {
                    alpha
                } else {
                    0.0
                }
            }
            Self::HardSwish if x <= -3.0 => 0.0,
            Self::HardSwish if x >= 3.0 => 1.0,
            Self::HardSwish => x / 3.0 + 0.5,
            Self::Tanh => square_to_one(x.tanh()),
            Self::Exp => x.exp(),
            Self::Log => 1.0 / x,
            Self::Sqrt => 0.5 / x.sqrt(),
            Self::Erf => std::f32::consts::FRAC_2_SQRT_PI * (-x * x).exp(),
            Self::Abs if x > 0.0 => 1.0,
            Self::Abs if x < 0.0 => -1.0,
            Self::Abs => 0.0,
            Self::Neg => -1.0,
            Self::Reciprocal => -1.0 / (x * x),
            Self::Floor | Self::Ceil | Self::Round => 0.0,
            Self::Softplus => sigmoid(x),
            Self::Softsign => {
                let root = 1.0 + x.abs();
                1.0 / (root * root)
            }
            Self::Mish => {
                let gate = softplus(x).tanh();
                gate + x * square_to_one(gate) * sigmoid(x)
            }
            Self::Elu { alpha } if x < 0.0 => alpha * x.exp(),
            Self::Elu { .. } => 1.0,
            Self::Selu { alpha, gamma } if x < 0.0 => gamma * alpha * x.exp(),
            Self::Selu { gamma, .. } => gamma,
            Self::Celu { alpha } if x < 0.0 => (x / alpha).exp(),
            Self::Celu { .. } => 1.0,
            Self::ThresholdedRelu { alpha } => f32::from(u8::from(x > alpha)),
            Self::Gelu(GeluForm::Exact) => {
                // The density of the standard normal distribution.
                let density = 0.5
                    * std::f32::consts::FRAC_2_SQRT_PI
                    * std::f32::consts::FRAC_1_SQRT_2
                    * (-0.5 * x * x).exp();
                normal(x) + x * density
            }
            Self::Gelu(GeluForm::Tanh) => {
                let tanh = gelu_inner(x).tanh();
                let inner_slope = ROOT_2_OVER_PI * (1.0 + 3.0 * GELU_CUBE * x * x);
                0.5 * (1.0 + tanh) + 0.5 * x * square_to_one(tanh) * inner_slope
            }
            Self::Swish { alpha } => sigmoid(alpha * x) + alpha * x * sigmoid_slope(alpha * x),
        }
    }
}

/// `sqrt(2 / pi)`.
const ROOT_2_OVER_PI: f32 = 0.797_884_6;
/// The factor of the cube in ONNX's definition of `Gelu`.
const GELU_CUBE: f32 = 0.044_715;

fn gelu_inner(x: f32) -> f32 {
    ROOT_2_OVER_PI * (x + GELU_CUBE * x * x * x)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn sigmoid_slope(x: f32) -> f32 {
    let y = sigmoid(x);
    y * (1.0 - y)
}

fn square_to_one(y: f32) -> f32 {
    1.0 - y * y
}

/// `ln(1 + e^x)` without overflow.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The probability that a standard normal number is below `x`.
fn normal(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The error function, to 1.5e-7.
fn erf(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let z = f64::from(x).abs();
    let value = if z < 0.5 {
        // The Maclaurin series; the next term is below 1e-9 of the sum.
        let square = z * z;
        let series = 1.0
            - square / 3.0
                * (1.0
                    - square * 3.0 / 10.0
                        * (1.0
                            - square * 5.0 / 21.0
                                * (1.0 - square * 7.0 / 36.0 * (1.0 - square * 9.0 / 55.0))));
        std::f64::consts::FRAC_2_SQRT_PI * z * series
    } else {
        // Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
        let t = 1.0 / (1.0 + 0.327_591_1 * z);
        let sum = t
            * (0.254_829_592
                + t * (-0.284_496_736
                    + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
        1.0 - sum * (-z * z).exp()
    };
    (value as f32).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_has_its_tabulated_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, want) in [
            (0.0, 0.0),
            (0.02, 0.022_564_574_7),
            (0.3, 0.328_626_759_5),
            (0.5, 0.520_499_877_8),
            (1.0, 0.842_700_792_9),
            (1.5, 0.966_105_146_5),
            (2.0, 0.995_322_265_0),
        ] {
            for sign in [1.0, -1.0] {
                let difference = f64::from(erf(sign * x)) - f64::from(sign) * want;
                assert!(difference.abs() < 2e-7, "{x}: {difference}");
            }
        }
        assert_eq!((erf(f32::INFINITY), erf(f32::NEG_INFINITY)), (1.0, -1.0));
        // Small numbers keep their relative precision.
        let small = f64::from(erf(1e-6)) / (1e-6 * std::f64::consts::FRAC_2_SQRT_PI);
        assert!((small - 1.0).abs() < 1e-6, "{small}");
    }

    #[test]
    fn large_numbers_do_not_overflow() {
        assert_eq!(Activation::Softplus.value(200.0), 200.0);
        assert_eq!(Activation::Softplus.value(-200.0), 0.0);
        assert_eq!(Activation::Mish.value(200.0), 200.0);
        assert_eq!(Activation::Mish.slope(200.0), 1.0);
        assert_eq!(Activation::Sigmoid.slope(-200.0), 0.0);
    }
}
