//! Refit of a cut network to the outputs of the uncut one, layer by layer in the order in which they
//! run, so that each one makes up for what those before it have lost (docs/method.md, section 5).

mod frontier;
mod kernel;
mod target;
#[cfg(test)]
mod tests;

use self::frontier::Frontier;
use self::kernel::{Patches, fit_basis};
use self::target::{LEAST_IMAGES, Target, images_within};
use super::PipelineError;
use super::rounds::Context;
use super::stages::source;
use crate::cost;
use crate::data::Batch;
use crate::decompose::OutputMoments;
use crate::exec::{BatchNormMode, Engine};
use crate::graph::{FactoredKind, FactoredLayer, Graph, Op, Uses, factored_layers, infer_images};
use crate::progress::{Progress, Silent};
use crate::prune::channels::{self, ChannelPlan};
use crate::tensor::{Floats, Tensor};
use crate::train::{
    TrainError, channel_moments, store_statistics, stored_statistics, training_batches,
};
use ndarray::{Axis, IxDyn};
use std::collections::{BTreeMap, BTreeSet};

/// By the value that a layer or a batch norm makes, its channels in the uncut network that are left, in
/// order; all of them where it is not named.
pub type KeptOutputs = BTreeMap<String, Vec<usize>>;

/// `cut` with the projections of its layers fitted anew to what the layers of the uncut network, of
/// which it was made by cuts of directions and by the cuts of channels `plans`, put out for some
/// training images; whole kernels where `moments` has those of their outputs. No labels are used.
pub(super) fn refit(
    context: &Context<'_>,
    cut: &Graph,
    plans: &[ChannelPlan],
    moments: &BTreeMap<String, OutputMoments>,
) -> Result<Graph, PipelineError> {
    let settings = context.settings;
    let images = settings.prune.refit_images();
    let uncut = context.uncut;
    let size = [
        context.prepared.preprocess.height,
        context.prepared.preprocess.width,
    ];
    let kept = kept_outputs(uncut, plans, size)?;
    let batches = training_batches(&source(context.prepared, settings), images, settings.seed)?;
    let reference = Reference {
        uncut,
        kept: &kept,
        moments,
        batches: &batches,
    };
    refit_layers(context.engine, cut, &reference, context.progress)
}

/// What a cut network is fitted to.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'r> {
    /// The decomposed network before any cut.
    pub uncut: &'r Graph,
    /// What is left of its outputs.
    pub kept: &'r KeptOutputs,
    /// By value that a layer makes, its moments in the network that was cut last. Layers that have an entry of
    /// their size get a new kernel, in the metric of the gradient there; the others a new projection.
    pub moments: &'r BTreeMap<String, OutputMoments>,
    /// The images, in batches.
    pub batches: &'r [Batch],
}

/// `cut` with the projection of each factored layer, or its whole kernel, fitted anew, in the order in which
/// they run, to what the same layer of the uncut network puts out for some images (docs/method.md, section 5). Batch norm
/// normalises as in `uncut`; the statistics of those that no fitted layer feeds are carried over.
///
/// # Errors
/// [`PipelineError`] where a graph does not run.
pub fn refit_layers(
    engine: &dyn Engine,
    cut: &Graph,
    reference: &Reference<'_>,
    progress: &dyn Progress,
) -> Result<Graph, PipelineError> {
    let Reference {
        uncut,
        kept,
        moments: known,
        batches,
    } = *reference;
    let images = batches.first().map(|batch| batch.images.shape());
    let (batch, inferred, macs) = match images {
        Some(&[n, _, height, width]) => {
            let inferred = infer_images(cut, 1, height, width)?;
            let of_uncut = cost::of(uncut, &infer_images(uncut, 1, height, width)?).macs;
            let macs = cost::of(cut, &inferred).macs.saturating_add(of_uncut);
            (n, inferred, macs)
        }
        _ => return Ok(cut.clone()),
    };
    let layers = factored_layers(cut);
    let of_projection = |node: &str| layers.iter().find(|layer| layer.projection == node);
    let mut result = cut.clone();
    restore_affine(&mut result, uncut, kept);
    let mut fitted: BTreeSet<String> = BTreeSet::new();
    let mut frontier = Frontier::new(batches);
    progress.begin("refit", cut.nodes.len() as u64);
    for node in &cut.nodes {
        progress.go_on()?;
        if let Some(layer) = of_projection(&node.name) {
            let metric = known.get(&layer.output).map(|known| &known.gradient);
            let metric = metric.filter(|metric| metric.nrows() == layer.shape.co);
            let unknowns = metric.map_or(layer.rank, |_| layer.shape.n);
            let images = images_within(macs, unknowns, layer.positions(&inferred).unwrap_or(1));
            if let Some(target) = Target::of(&result, uncut, layer, kept, images) {
                frontier.advance(engine, &result, uncut)?;
                let mut solved = result.clone();
                if let Some(metric) = metric
                    && let Some(patches) = Patches::of(&result, layer, &inferred, batch)
                    && let Some(joint) = target.patch_moments(engine, &patches, uncut, &frontier)?
                    && let Some(moments) = fit_basis(&mut solved, layer, &joint, metric)
                    && let Some(norms) = target.store(&mut solved, uncut, &moments)?
                {
                    result = solved;
                    fitted.extend(norms);
                } else if let Some(moments) = target.moments(engine, &result, uncut, &frontier)? {
                    let norms = target.store(&mut result, uncut, &moments)?;
                    fitted.extend(norms.into_iter().flatten());
                }
            }
        } else if !fitted.contains(&node.name) {
            move_statistics(engine, &mut result, uncut, &node.name, kept, &mut frontier)?;
        }
        // What is between basis and projection lies beyond the patches that a kernel is fitted to.
        let is_inside =
            |layer: &FactoredLayer| [&layer.basis, &layer.scaling].contains(&&node.name);
        for value in node
            .outputs
            .iter()
            .filter(|_| !layers.iter().any(is_inside))
        {
            frontier.reached(value, &result, uncut);
        }
        progress.advance(1);
    }
    progress.end();
    Ok(result)
}

/// Gives batch norms the trained parameters of `uncut` again: what a layer is fitted to goes with them.
fn restore_affine(cut: &mut Graph, uncut: &Graph, kept: &KeptOutputs) {
    for node in &uncut.nodes {
        let Op::BatchNormalization { .. } = node.op else {
            continue;
        };
        let kept = node.outputs.first().and_then(|output| kept.get(output));
        for name in node.inputs.iter().skip(1).take(2) {
            let (Some(whole), Some(now)) = (uncut.float(name), cut.float(name)) else {
                continue;
            };
            let is_inside = kept.is_none_or(|kept| kept.iter().all(|&at| at < whole.len()));
            if whole.ndim() != 1 || !is_inside {
                continue;
            }
            let left = kept.map_or(whole.clone(), |kept| {
                whole.select(Axis(0), kept).into_shared()
            });
            if left.shape() == now.shape() {
                cut.initializers.insert(name.clone(), Tensor::F32(left));
            }
        }
    }
}

/// Moves the statistics of a batch norm that no fitted layer feeds as those of some images move between
/// the networks; other nodes stay.
fn move_statistics(
    engine: &dyn Engine,
    cut: &mut Graph,
    uncut: &Graph,
    norm: &str,
    kept: &KeptOutputs,
    frontier: &mut Frontier,
) -> Result<(), PipelineError> {
    let (Some(before), Some(node)) = (stored_statistics(uncut, norm), cut.node(norm)) else {
        return Ok(());
    };
    let uses = Uses::of(cut);
    let mut statistics = node.inputs.iter().skip(3);
    let is_shared = statistics.any(|name| uses.readers(name).len() != 1);
    let (Some(input), Some(made)) = (node.inputs.first().cloned(), node.outputs.first()) else {
        return Ok(());
    };
    let kept = kept.get(made).map(Vec::as_slice);
    if is_shared || !uncut.producers().contains_key(input.as_str()) {
        return Ok(());
    }
    frontier.advance(engine, cut, uncut)?;
    let measure = |graph: &Graph, batches: &[Batch]| {
        let batch_size = batches.first().map_or(1, |batch| batch.labels.len().max(1));
        let some = batches.iter().take(LEAST_IMAGES.div_ceil(batch_size));
        let (graph, mode) = (frontier.rest(graph), BatchNormMode::Stored);
        let values = [input.clone()];
        let some = some.cloned().collect();
        let mut found = channel_moments(engine, &graph, &values, mode, some, &Silent)?;
        Ok::<_, TrainError>(found.remove(&input))
    };
    let old = measure(uncut, &frontier.theirs)?;
    let (Some(old), Some(new)) = (old, measure(cut, &frontier.ours)?) else {
        return Ok(());
    };
    let moved = before.kept(kept).moved(&old.kept(kept), &new);
    store_statistics(cut, norm, &moved);
    Ok(())
}

/// Which outputs of layers and batch norms are left after `plans`, for images of a height and width.
fn kept_outputs(
    uncut: &Graph,
    plans: &[ChannelPlan],
    [height, width]: [usize; 2],
) -> Result<KeptOutputs, PipelineError> {
    if plans.is_empty() {
        return Ok(KeptOutputs::new());
    }
    // Each weight holds the number of its output, which goes with it through all cuts.
    let mut numbered = uncut.clone();
    let layers = factored_layers(uncut);
    let mut numbers = Vec::new();
    for layer in &layers {
        let axis = match layer.kind {
            FactoredKind::Convolution => 0,
            FactoredKind::Dense => 1,
        };
        numbers.push((&layer.output, &layer.projection_weight, axis));
    }
    for node in &uncut.nodes {
        if let (Op::BatchNormalization { .. }, Some(output), Some(mean)) =
            (&node.op, node.outputs.first(), node.inputs.get(3))
        {
            numbers.push((output, mean, 0));
        }
    }
    for (_, name, axis) in &numbers {
        if let Some(Tensor::F32(array)) = numbered.initializers.get_mut(*name) {
            let number = |index: IxDyn| index[*axis] as f32;
            *array = Floats::from_shape_fn(array.raw_dim(), number);
        }
    }
    for plan in plans {
        let inferred = infer_images(&numbered, 1, height, width)?;
        numbered = channels::apply(&numbered, &inferred, plan)?;
    }
    let kept = numbers.into_iter().filter_map(|(output, name, axis)| {
        let array = numbered.float(name)?;
        let mut first = array.view();
        for other in (0..array.ndim()).rev().filter(|&other| other != axis) {
            first = first.index_axis_move(Axis(other), 0);
        }
        let numbers = first.iter().map(|&number| number as usize).collect();
        Some((output.clone(), numbers))
    });
    Ok(kept.collect())
}
