//! Stochastic gradient descent with momentum, and Adam with decoupled weight decay.
//!
//! They work on host arrays, so that every engine trains with the same arithmetic.

use crate::tensor::Floats;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Momentum 0.9, Nesterov's form; weight decay added to the gradient.
    Sgd,
    /// Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019).
    Adam,
}

// The defaults of PyTorch's `Adam`, and the usual momentum of `SGD`.
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;
const MOMENTUM: f32 = 0.9;

/// An update rule and what it remembers.
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: Rule,
    weight_decay: f32,
    steps: u64,
    first: BTreeMap<String, Vec<f32>>,
    second: BTreeMap<String, Vec<f32>>,
}

impl Optimizer {
    /// A rule that has seen nothing. `weight_decay` applies to arrays of two and more axes longer
    /// than 1: weights, not biases, batch-norm affines or scaling factors.
    #[must_use]
    pub fn new(rule: Rule, weight_decay: f32) -> Self {
        Self {
            rule,
            weight_decay,
            steps: 0,
            first: BTreeMap::new(),
            second: BTreeMap::new(),
        }
    }

    /// Moves `values` against `gradients` by learning rate `lr`.
    pub fn update(
        &mut self,
        values: &mut BTreeMap<String, Floats>,
        gradients: &BTreeMap<String, Floats>,
        lr: f32,
    ) {
        self.steps += 1;
        let bias1 = 1.0 - BETA1.powf(self.steps as f32);
        let bias2 = 1.0 - BETA2.powf(self.steps as f32);
        for (name, gradient) in gradients {
            let Some(value) = values.get_mut(name) else {
                continue;
            };
            let is_weight = value.shape().iter().filter(|&&length| length > 1).count() >= 2;
            let decay = if is_weight { self.weight_decay } else { 0.0 };
            let first = moments(&mut self.first, name, value.len());
            match self.rule {
                Rule::Sgd => {
                    for ((v, &g), m) in value.iter_mut().zip(gradient).zip(first) {
                        let g = g + decay * *v;
                        *m = MOMENTUM * *m + g;
                        *v -= lr * (g + MOMENTUM * *m);
                    }
                }
                Rule::Adam => {
                    let second = moments(&mut self.second, name, value.len());
                    for (((v, &g), m), s) in value.iter_mut().zip(gradient).zip(first).zip(second) {
                        *m = BETA1 * *m + (1.0 - BETA1) * g;
                        *s = BETA2 * *s + (1.0 - BETA2) * g * g;
                        let step = (*m / bias1) / ((*s / bias2).sqrt() + EPSILON);
                        *v -= lr * (step + decay * *v);
                    }
                }
            }
        }
    }

    /// What must be stored to go on later: the step count, and named moments.
    #[must_use]
    pub fn state(&self) -> (u64, BTreeMap<String, Vec<f32>>) {
        let named = |prefix: &'static str, moments: &BTreeMap<String, Vec<f32>>| {
            moments
                .iter()
                .map(|(name, m)| (format!("{prefix}/{name}"), m.clone()))
                .collect::<Vec<_>>()
        };
        let all = named("first", &self.first)
            .into_iter()
            .chain(named("second", &self.second));
        (self.steps, all.collect())
    }

    /// Goes on from what [`Optimizer::state`] gave.
    pub fn restore(&mut self, steps: u64, state: BTreeMap<String, Vec<f32>>) {
        self.steps = steps;
        for (name, moments) in state {
            if let Some(name) = name.strip_prefix("first/") {
                self.first.insert(name.to_owned(), moments);
            } else if let Some(name) = name.strip_prefix("second/") {
                self.second.insert(name.to_owned(), moments);
            }
        }
    }
}

fn moments<'m>(
    all: &'m mut BTreeMap<String, Vec<f32>>,
    name: &str,
    len: usize,
) -> &'m mut Vec<f32> {
    all.entry(name.to_owned()).or_insert_with(|| vec![0.0; len])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{ArcArray, IxDyn};

    fn one(name: &str, shape: &[usize], values: &[f32]) -> BTreeMap<String, Floats> {
        let array = ArcArray::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap();
        BTreeMap::from([(name.to_owned(), array)])
    }

    /// Expected values: `torch.optim.SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)`
    /// and `torch.optim.AdamW(lr=0.1, weight_decay=0.01)`, worked by hand for two equal gradients.
    #[test]
    fn two_steps_of_each_rule_equal_the_closed_form() {
        let gradient = one("w", &[2, 2], &[0.5, -1.0, 0.25, 2.0]);
        let start = [1.0_f32, -2.0, 0.5, 3.0];

        let mut values = one("w", &[2, 2], &start);
        let mut sgd = Optimizer::new(Rule::Sgd, 0.01);
        sgd.update(&mut values, &gradient, 0.1);
        sgd.update(&mut values, &gradient, 0.1);
        for ((&got, &x0), &g) in values["w"].iter().zip(&start).zip(gradient["w"].iter()) {
            let g1 = g + 0.01 * x0;
            let x1 = x0 - 0.1 * (g1 + 0.9 * g1);
            let g2 = g + 0.01 * x1;
            let m2 = 0.9 * g1 + g2;
            let x2 = x1 - 0.1 * (g2 + 0.9 * m2);
            assert!((got - x2).abs() < 1e-6);
        }

        let mut values = one("w", &[2, 2], &start);
        let mut adam = Optimizer::new(Rule::Adam, 0.01);
        adam.update(&mut values, &gradient, 0.1);
        // With one gradient the corrected ratio is the gradient's sign.
        for ((&got, &x0), &g) in values["w"].iter().zip(&start).zip(gradient["w"].iter()) {
            assert!((got - (x0 - 0.1 * (g.signum() + 0.01 * x0))).abs() < 1e-5);
        }
    }

    #[test]
    fn weight_decay_leaves_scaling_factors_alone() {
        let mut values = one("s", &[1, 3, 1, 1], &[1.0, 1.0, 1.0]);
        let mut adam = Optimizer::new(Rule::Adam, 0.5);
        adam.update(&mut values, &one("s", &[1, 3, 1, 1], &[0.0; 3]), 0.1);
        assert!(values["s"].iter().all(|&s| s == 1.0));
    }

    #[test]
    fn a_restored_optimizer_goes_on_with_the_same_bits() {
        let gradient = one("w", &[3], &[0.1, 0.2, -0.3]);
        let mut straight = one("w", &[3], &[1.0, 2.0, 3.0]);
        let mut adam = Optimizer::new(Rule::Adam, 0.0);
        adam.update(&mut straight, &gradient, 0.1);
        let (steps, state) = adam.state();
        let mut resumed_values = straight.clone();
        let mut resumed = Optimizer::new(Rule::Adam, 0.0);
        resumed.restore(steps, state);
        adam.update(&mut straight, &gradient, 0.1);
        resumed.update(&mut resumed_values, &gradient, 0.1);
        assert_eq!(straight, resumed_values);
    }
}
