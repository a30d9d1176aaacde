//! What a layer of a cut network is to put out, and its fit to that.

use super::super::PipelineError;
use super::super::basis::feeds_batch_norm_alone;
use super::KeptOutputs;
use super::frontier::Frontier;
use super::kernel::Patches;
use crate::exec::{Engine, Keep, Request, Statistic};
use crate::graph::{Arithmetic, FactoredKind, FactoredLayer, Graph, OUTPUT_SCALE, Op, Uses};
use crate::prune::{JointMoments, fit};
use crate::tensor::{Floats, Tensor};
use crate::train::{TrainError, store_statistics, stored_statistics};
use ndarray::{ArcArray, ArrayViewD, Axis, IxDyn, Slice};

// Fewer positions for each unknown of a row say too little.
const LEAST_PER_UNKNOWN: usize = 4;
// A kernel has more unknowns, which neighbouring positions tell apart less well.
const LEAST_PER_KERNEL_UNKNOWN: usize = 8;
// Moments of more values than this take too much memory (170 MB in each of eight partial sums).
pub(super) const MAX_VALUES: usize = 4_608;
pub(super) const LEAST_IMAGES: usize = 256;
// Multiply-accumulates that the images of one layer's fit may take, where that many are fewer: some seconds.
const FIT_MACS: u64 = 500_000_000_000;

/// What a layer of the cut network is to put out.
pub(super) struct Target<'l> {
    layer: &'l FactoredLayer,
    /// Images after which enough is seen.
    images: usize,
    /// The value that the projection reads.
    inputs: String,
    /// Its outputs in the uncut network that are left; all where there is none.
    kept: Option<&'l [usize]>,
    /// The batch norms that read the output.
    norms: Vec<String>,
    /// What the output is added to.
    stream: Option<Stream>,
}

/// The value that a layer's output is added to, as in a residual network: what is missing there is
/// asked of the layer.
struct Stream {
    value: String,
    /// By what each channel is multiplied before it is added: that of batch norm, or 1, as output scales
    /// are.
    gain: Vec<f64>,
}

// Channels of less gain than this share of the largest are not asked to make up for anything.
const LEAST_GAIN: f64 = 0.01;

/// Images that the fit of a layer looks at, where both networks take `macs` multiply-accumulates for one of them,
/// and the layer has so many unknowns at so many positions, half of whose products are those of the other half.
pub(super) fn images_within(macs: u64, unknowns: usize, positions: u64) -> usize {
    let moments = (unknowns as u64)
        .saturating_pow(2)
        .saturating_mul(positions)
        / 2;
    let macs = macs.saturating_add(moments);
    let images = usize::try_from(FIT_MACS / macs.max(1)).unwrap_or(usize::MAX);
    images.max(LEAST_IMAGES)
}

impl<'l> Target<'l> {
    /// `None` where the uncut network has no such output, or batch-norm statistics are shared.
    pub fn of(
        cut: &Graph,
        uncut: &Graph,
        layer: &'l FactoredLayer,
        kept: &'l KeptOutputs,
        images: usize,
    ) -> Option<Self> {
        let uses = Uses::of(cut);
        uncut.producers().get(layer.output.as_str())?;
        let kept = kept.get(&layer.output).map(Vec::as_slice);
        layer.bias_values(cut)?;
        if layer.rank * layer.shape.groups + layer.shape.co > MAX_VALUES {
            return None;
        }
        let inputs = cut.node(&layer.projection)?.inputs.first()?.clone();
        let mut norms = Vec::new();
        if feeds_batch_norm_alone(cut, &uses, &layer.output) {
            for &reader in uses.readers(&layer.output) {
                let norm = &cut.nodes[reader];
                let mut statistics = norm.inputs.iter().skip(3);
                if statistics.any(|name| uses.readers(name).len() != 1) {
                    return None;
                }
                stored_statistics(uncut, &norm.name)?;
                norms.push(norm.name.clone());
            }
        }
        Some(Self {
            stream: Stream::of(cut, uncut, &uses, layer, kept),
            kept,
            layer,
            images,
            inputs,
            norms,
        })
    }

    /// The moments of what the projection reads and of wanted outputs together; `None` where the values do
    /// not go together or are too few.
    pub fn moments(
        &self,
        engine: &dyn Engine,
        cut: &Graph,
        uncut: &Graph,
        frontier: &Frontier,
    ) -> Result<Option<JointMoments>, TrainError> {
        let least = LEAST_PER_UNKNOWN * (self.layer.rank + 1);
        self.moments_with(engine, cut, &self.inputs, uncut, frontier, least)
    }

    /// The same with the patches that the layer reads in the place of what its projection does.
    pub fn patch_moments(
        &self,
        engine: &dyn Engine,
        patches: &Patches,
        uncut: &Graph,
        frontier: &Frontier,
    ) -> Result<Option<JointMoments>, TrainError> {
        let least = LEAST_PER_KERNEL_UNKNOWN * (patches.n + 1);
        let (graph, value) = (&patches.graph, &patches.value);
        self.moments_with(engine, graph, value, uncut, frontier, least)
    }

    /// `least` positions are wanted.
    fn moments_with(
        &self,
        engine: &dyn Engine,
        cut: &Graph,
        inputs: &str,
        uncut: &Graph,
        frontier: &Frontier,
        least: usize,
    ) -> Result<Option<JointMoments>, TrainError> {
        let stream = self.stream.as_ref().map(|stream| stream.value.clone());
        let values = |first: &str| {
            [first.to_owned()]
                .into_iter()
                .chain(stream.clone())
                .collect()
        };
        let mut ours = engine.session(&Request::evaluation(&frontier.rest(cut), values(inputs)))?;
        let mut theirs = engine.session(&Request::evaluation(
            &frontier.rest(uncut),
            values(&self.layer.output),
        ))?;
        let mut joint: Option<Statistic> = None;
        let (mut images, mut positions) = (0, 0);
        for (our_batch, their_batch) in frontier.ours.iter().zip(&frontier.theirs) {
            let ours = ours.forward(&our_batch.images)?;
            let theirs = theirs.forward(&their_batch.images)?;
            let Some(both) = self.join(&ours, &theirs) else {
                return Ok(None);
            };
            images += both.shape()[0];
            positions += both.len() / both.shape()[1].max(1);
            joint
                .get_or_insert_with(|| Statistic::new(Keep::SecondMoment, both.shape()[1]))
                .fold(both.view());
            if images >= self.images {
                break;
            }
        }
        let joint = joint.filter(|_| positions >= least);
        let found = joint.and_then(|joint| joint.mean_and_covariance());
        Ok(found.map(|(mean, covariance)| JointMoments { mean, covariance }))
    }

    /// Inputs and wanted outputs of one batch, `[images, channels, ...]`.
    fn join(&self, ours: &[Floats], theirs: &[Floats]) -> Option<Floats> {
        let last = |values: &Floats| Axis(values.ndim().saturating_sub(1));
        let axis = |values: &Floats| match self.layer.kind {
            FactoredKind::Convolution => Axis(1),
            FactoredKind::Dense => last(values),
        };
        let left = |values: &Floats| match self.kept {
            Some(kept) => values.select(axis(values), kept).into_shared(),
            None => values.clone(),
        };
        let whole = theirs.first()?;
        let channels = whole.shape().get(axis(whole).0)?;
        if self
            .kept
            .is_some_and(|kept| kept.iter().any(|at| at >= channels))
        {
            return None;
        }
        let mut wanted = left(whole);
        if let (Some(stream), Some(ours), Some(theirs)) = (&self.stream, ours.get(1), theirs.get(1))
            && theirs.shape() == whole.shape()
        {
            let missing = left(theirs);
            let channels = axis(&wanted);
            if missing.shape() == ours.shape() && wanted.shape()[channels.0] == stream.gain.len() {
                let largest = stream.gain.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
                for (channel, &gain) in stream.gain.iter().enumerate() {
                    if gain.abs() <= LEAST_GAIN * largest {
                        continue;
                    }
                    let part = Slice::from(channel..=channel);
                    let mut wanted = wanted.slice_axis_mut(channels, part);
                    let missing =
                        &missing.slice_axis(channels, part) - &ours.slice_axis(channels, part);
                    wanted.scaled_add((1.0 / gain) as f32, &missing);
                }
            }
        }
        let mut inputs = ours.first()?.view();
        let mut wanted = wanted.view();
        if self.layer.kind == FactoredKind::Dense {
            let (from, to) = (last(ours.first()?).0, 1);
            if inputs.ndim() != wanted.ndim() || from < to {
                return None;
            }
            // The last axis becomes the second.
            for at in (to..from).rev() {
                inputs.swap_axes(at, at + 1);
                wanted.swap_axes(at, at + 1);
            }
        }
        side_by_side(&inputs, &wanted)
    }

    /// Fits the projection, and makes batch norm normalise as in the uncut network. The names of those
    /// batch norms; `None` where the moments are of no use.
    pub fn store(
        &self,
        cut: &mut Graph,
        uncut: &Graph,
        moments: &JointMoments,
    ) -> Result<Option<Vec<String>>, PipelineError> {
        let start = self.layer.matrices(cut);
        let Some(found) = start.and_then(|start| fit(start.projection.view(), moments)) else {
            return Ok(None);
        };
        let shifts_norm = self.layer.bias.is_none() && !self.norms.is_empty();
        if shifts_norm {
            found.store_rows(cut, self.layer)?;
        } else {
            found.store(cut, self.layer)?;
        }
        reset_scale(cut, &self.layer.output);
        for norm in &self.norms {
            let Some(statistics) = stored_statistics(uncut, norm) else {
                continue;
            };
            let mut statistics = statistics.kept(self.kept);
            if shifts_norm {
                let means = statistics.mean.iter_mut().zip(&found.intercept);
                means.for_each(|(mean, intercept)| *mean -= intercept);
            }
            store_statistics(cut, norm, &statistics);
        }
        Ok(Some(self.norms.clone()))
    }
}

/// Gives the scale of an output the value that it had before any training, where there is one: what was fitted is what comes
/// out of it.
pub(super) fn reset_scale(graph: &mut Graph, output: &String) {
    let scaled = graph.nodes.iter().find(|node| node.inputs.contains(output));
    let scale = scaled.and_then(|node| {
        node.inputs
            .iter()
            .find(|input| input.ends_with(OUTPUT_SCALE))
    });
    if let Some(Tensor::F32(scales)) = scale.and_then(|name| graph.initializers.get_mut(name)) {
        scales.fill(1.0);
    }
}

/// `[images, channels, ...]` of both, image by image.
fn side_by_side(left: &ArrayViewD<'_, f32>, right: &ArrayViewD<'_, f32>) -> Option<Floats> {
    let &[images, left_channels, ref rest @ ..] = left.shape() else {
        return None;
    };
    let &[_, right_channels, ..] = right.shape() else {
        return None;
    };
    if right.shape() != [&[images, right_channels], rest].concat() {
        return None;
    }
    let shape = [&[images, left_channels + right_channels], rest].concat();
    let (left, right) = (left.as_standard_layout(), right.as_standard_layout());
    let (left, right) = (left.as_slice()?, right.as_slice()?);
    let mut both = Vec::with_capacity(left.len() + right.len());
    let parts = |image: usize, len: usize| image * (len / images)..(image + 1) * (len / images);
    for image in 0..images {
        both.extend_from_slice(&left[parts(image, left.len())]);
        both.extend_from_slice(&right[parts(image, right.len())]);
    }
    ArcArray::from_shape_vec(IxDyn(&shape), both).ok()
}

impl Stream {
    /// The value that the output of `layer` is added to, alone or after batch norm, where it does not
    /// depend on layers that are still to be fitted.
    fn of(
        cut: &Graph,
        uncut: &Graph,
        uses: &Uses<'_>,
        layer: &FactoredLayer,
        kept: Option<&[usize]>,
    ) -> Option<Self> {
        let producers = cut.producers();
        let mut reader = &cut.nodes[uses.sole_reader(&layer.output)?];
        let mut value = &layer.output;
        let mut gain = vec![1.0; layer.shape.co];
        if let Op::BatchNormalization { epsilon, .. } = reader.op {
            let scales = cut.float(reader.inputs.get(1)?)?;
            let statistics = stored_statistics(uncut, &reader.name)?;
            let variances = statistics.kept(kept).variance;
            gain = scales
                .iter()
                .zip(variances)
                .map(|(&scale, variance)| f64::from(scale) / (variance + f64::from(epsilon)).sqrt())
                .collect();
            value = reader.outputs.first()?;
            reader = &cut.nodes[uses.sole_reader(value)?];
        }
        let is_output_scale = |input: &String| input.ends_with(OUTPUT_SCALE);
        if reader.op == Op::Arithmetic(Arithmetic::Mul) && reader.inputs.iter().any(is_output_scale)
        {
            value = reader.outputs.first()?;
            reader = &cut.nodes[uses.sole_reader(value)?];
        }
        let Op::Arithmetic(Arithmetic::Add) = reader.op else {
            return None;
        };
        let other = reader.inputs.iter().find(|input| *input != value)?;
        let is_settled = producers.get(other.as_str())? < producers.get(layer.output.as_str())?;
        let is_known = uncut.producers().contains_key(other.as_str());
        (is_settled && is_known).then(|| Self {
            value: other.clone(),
            gain,
        })
    }
}
