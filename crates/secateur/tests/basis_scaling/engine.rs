//! The identities again in `f32`, through the engine.
//!
//! A sum of a few hundred `f32` products is off by about 1e-6 of its size; gradients go through
//! several of them, so they are compared to 1e-4 of the largest.

use crate::graphs::{config, images, network, some_plan, trained};
use crate::reference::{max_abs, output};
use ndarray::{Array3, ArrayD};
use secateur::decompose::{OutputScale, convolutions, factored_layers};
use secateur::exec::{BatchNormMode, Engine, NativeEngine, Request};
use secateur::graph::{FactorMatrices, FactoredKind, FactoredLayer, Graph};
use secateur::importance::{TaylorWindow, scaling_gradient};
use secateur::progress::Silent;
use secateur::prune::{apply, mask};
use secateur::tensor::Floats;
use std::collections::BTreeMap;

fn input() -> Floats {
    images().mapv(|value| value as f32).into_shared()
}

fn request<'a>(graph: &'a Graph, trainable: &[String], batch_norm: BatchNormMode) -> Request<'a> {
    Request {
        graph,
        outputs: vec![graph.outputs[0].name.clone()],
        trainable: trainable.to_vec(),
        taps: Vec::new(),
        batch_norm,
    }
}

fn forward(graph: &Graph) -> ArrayD<f64> {
    let engine = NativeEngine::new();
    let mut session = engine
        .session(&request(graph, &[], BatchNormMode::Stored))
        .unwrap();
    session
        .forward(&input())
        .unwrap()
        .remove(0)
        .mapv(f64::from)
        .to_owned()
}

/// Gradients of `sum cos(y_i + i)`.
fn gradients(
    graph: &Graph,
    trainable: &[String],
    batch_norm: BatchNormMode,
) -> BTreeMap<String, Floats> {
    let engine = NativeEngine::new();
    let mut session = engine
        .session(&request(graph, trainable, batch_norm))
        .unwrap();
    let mut loss_gradient = |outputs: &[Floats]| {
        let mut gradient = outputs[0].clone();
        for (index, value) in gradient.iter_mut().enumerate() {
            *value = -(*value + index as f32).sin();
        }
        vec![gradient]
    };
    session.step(&input(), &mut loss_gradient).unwrap()
}

/// The gradient of the undecomposed weight as `[groups, n, co / groups]`.
fn by_group(layer: &FactoredLayer, gradient: &Floats, transposed: bool) -> Array3<f64> {
    let (groups, n, co) = (layer.shape.groups, layer.shape.n, layer.shape.co);
    let gradient = gradient.mapv(f64::from);
    if layer.kind == FactoredKind::Convolution || transposed {
        let rows = gradient.to_shape((groups, co / groups, n)).unwrap();
        rows.permuted_axes([0, 2, 1]).to_owned()
    } else {
        gradient.to_shape((1, n, co)).unwrap().to_owned()
    }
}

#[test]
fn the_engine_agrees_with_the_naive_evaluation() {
    let graph = trained(OutputScale::All);
    let expected = output(&graph, &images());
    assert!(max_abs(&(forward(&graph) - &expected)) < 1e-5 * max_abs(&expected));
}

#[test]
fn full_rank_factors_compute_in_f32_what_the_layers_did() {
    let graph = convolutions(&network(), &config(), &Silent).unwrap().0;
    let expected = forward(&network());
    assert!(max_abs(&(forward(&graph) - &expected)) < 1e-5 * max_abs(&expected));
}

#[test]
fn masked_and_removed_directions_run_alike() {
    let graph = trained(OutputScale::All);
    let removed = forward(&apply(&graph, &some_plan()).unwrap());
    let masked = forward(&mask(&graph, &some_plan()).unwrap());
    assert!(max_abs(&(masked - &removed)) < 1e-5 * max_abs(&removed));
}

#[test]
fn both_routes_lead_to_one_taylor_score() {
    for mode in [BatchNormMode::Stored, BatchNormMode::Batch] {
        let graph = convolutions(&network(), &config(), &Silent).unwrap().0;
        let layers = factored_layers(&graph);
        let mut window = TaylorWindow::new(&layers);
        let factors: Vec<String> = window.initializers().map(str::to_owned).collect();
        let direct = gradients(&graph, &factors, mode);
        let values = factors
            .iter()
            .map(|name| (name.clone(), graph.float(name).unwrap().clone()))
            .collect();
        window.add(&direct, &values).unwrap();
        let scores = window.scores().unwrap();

        let weights: Vec<String> = layers
            .iter()
            .map(|layer| format!("{}.w", layer.name))
            .collect();
        let whole = gradients(&network(), &weights, mode);
        for layer in &layers {
            let mut matrices = layer.matrices(&graph).unwrap();
            if layer.name == "dense" {
                // `Gemm` computes with `alpha W`, and the basis stands for that: dL/d(alpha W) is
                // dL/dW / alpha.
                matrices.projection.mapv_inplace(|value| value / 0.5);
            }
            let gradient = by_group(
                layer,
                &whole[&format!("{}.w", layer.name)],
                layer.name == "dense",
            );
            let second = scaling_gradient(&matrices, gradient.view()).unwrap();
            let first = direct[&layer.factors].mapv(f64::from);
            let first = first.to_shape(second.dim()).unwrap();
            let largest = max_abs(&second);
            assert!(largest > 1e-3, "{}", layer.name);
            assert!(
                max_abs(&(&second - &first)) < 1e-4 * largest,
                "{} {mode:?}",
                layer.name
            );

            // All factors are 1.
            let expected = second
                .sum_axis(ndarray::Axis(0))
                .mapv(|value| value * value);
            for (score, expected) in scores[&layer.name].iter().zip(&expected) {
                assert!(
                    (score - expected).abs() < 2e-4 * largest * largest,
                    "{} {mode:?}",
                    layer.name
                );
            }
        }
    }
}

#[test]
fn factor_gradients_sum_to_nothing_before_batch_normalisation() {
    // `plain` stands before the batch norm, whose epsilon of 1e-5 is small beside the variances.
    let graph = trained(OutputScale::Nowhere);
    let layer = &factored_layers(&graph)[0];
    let factors = [layer.factors.clone()];
    let products = |mode| {
        let gradient = gradients(&graph, &factors, mode)
            .remove(&layer.factors)
            .unwrap();
        let values = graph.float(&layer.factors).unwrap();
        let products: Vec<f64> = gradient
            .iter()
            .zip(values)
            .map(|(d, s)| f64::from(*d) * f64::from(*s))
            .collect();
        (products.iter().sum::<f64>(), max_abs(&products))
    };
    let (sum, largest) = products(BatchNormMode::Batch);
    assert!(sum.abs() < 1e-3 * largest, "{sum} of {largest}");
    let (sum, largest) = products(BatchNormMode::Stored);
    assert!(
        sum.abs() > 1e-2 * largest,
        "with stored statistics nothing cancels: {sum} of {largest}"
    );
}

#[test]
fn effective_gradients_are_the_product_of_weight_and_gradient() {
    // Identity 5 for factors that are not 1: sum_j s_j dL/ds_j = <W_eff, G>, where G is taken from
    // the network with the effective weight in one piece.
    let graph = trained(OutputScale::Nowhere);
    let layer = &factored_layers(&graph)[1];
    let dense = secateur::fold::recompose(&graph, layer).unwrap();
    let weight = format!("{}.weight", layer.name);
    let whole = gradients(&dense, std::slice::from_ref(&weight), BatchNormMode::Stored);
    let expected: f64 = whole[&weight]
        .iter()
        .zip(dense.float(&weight).unwrap())
        .map(|(g, w)| f64::from(*g) * f64::from(*w))
        .sum();
    let direct = gradients(
        &graph,
        std::slice::from_ref(&layer.factors),
        BatchNormMode::Stored,
    );
    let FactorMatrices { factors, .. } = layer.matrices(&graph).unwrap();
    let found: f64 = direct[&layer.factors]
        .iter()
        .zip(&factors)
        .map(|(d, s)| f64::from(*d) * s)
        .sum();
    assert!(
        (found - expected).abs() < 1e-4 * expected.abs().max(1.0),
        "{found} and {expected}"
    );
}
