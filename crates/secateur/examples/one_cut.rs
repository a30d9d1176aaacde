//! Accuracy after one cut, with no training: each basis with its score, at shares of the parameters
//! or multiply-accumulates of all layers that can be cut.
//!
//! `one_cut MODEL DATA PREPROCESS params|macs SHARE,SHARE,... IMAGES TESTED [BASIS:SCORE:LOSS ...]`
//! gathers statistics from `IMAGES` training images and judges by the first `TESTED` test images
//! (`TESTED` is 0 for all). Prints tab-separated: basis, score, loss, wanted share, parameters and
//! MACs kept (shares of the whole network), top-1 right after the cut, with batch norm carried over, and
//! with the layers fitted anew to the outputs of the uncut network. Taylor scores are those of one pass over the same images without training.
//! The score `measured` is `fisher` as `compress` has it; `fisher` is the product of the moments.

use secateur::cost;
use secateur::data::Split;
use secateur::decompose::{Basis, DecomposeConfig, OutputScale, convolutions, directions};
use secateur::exec::{BatchNormMode, Engine, NativeEngine, Request};
use secateur::fold::{FoldConfig, fold};
use secateur::graph::{Graph, Size, factored_layers, infer_images};
use secateur::importance::{Score, Scores, TaylorWindow, over_groups, score};
use secateur::pipeline::{DataSettings, KeptOutputs, Prepared, Reference, prepare, refit_layers};
use secateur::progress::Silent;
use secateur::prune::{Candidate, Goal, Per, SelectConfig, apply, compensate, select};
use secateur::train::{
    Curvature, KeptChannels, MomentsConfig, Source, Wanted, carry_batch_norm, channel_costs,
    cross_entropy, output_moments, training_batches,
};
use secateur::transfer::{Ending, ending};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn parse<T: DeserializeOwned>(name: &str) -> Result<T> {
    Ok(serde_json::from_value(serde_json::Value::String(
        name.to_owned(),
    ))?)
}

fn gathering(images: usize, loss: &str) -> Result<MomentsConfig> {
    Ok(MomentsConfig {
        images,
        curvature: parse::<Curvature>(loss)?,
        seed: 0,
    })
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [
        model,
        data,
        preprocess,
        unit,
        shares,
        images,
        tested,
        methods @ ..,
    ] = &args[..]
    else {
        return Err(
            "want MODEL DATA PREPROCESS params|macs SHARES IMAGES TESTED [METHOD ...]".into(),
        );
    };
    let shares: Vec<f64> = shares
        .split(',')
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let (images, tested): (usize, usize) = (images.parse()?, tested.parse()?);
    let engine = NativeEngine::new();
    let graph = secateur::onnx::read(std::path::Path::new(model))?.graph;
    let settings = DataSettings {
        path: Some(data.into()),
        preprocess: Some(preprocess.clone()),
        ..DataSettings::default()
    };
    let prepared = prepare(&graph, &settings, 0, &Silent)?;
    let source = Source {
        dataset: &prepared.dataset,
        preprocess: &prepared.preprocess,
        batch_size: settings.batch_size,
    };
    let size = (prepared.preprocess.height, prepared.preprocess.width);
    let Ending::Classifier(head) = ending(&graph, size.0, size.1)? else {
        return Err("the network is no classifier".into());
    };
    let config = DecomposeConfig {
        exclude: None,
        head: Some(head.node.clone()),
        output_scale: OutputScale::Nowhere,
    };
    let (factored, _) = convolutions(&graph, &config, &Silent)?;
    let layers = factored_layers(&factored);
    let inferred = infer_images(&factored, 1, size.0, size.1)?;
    let candidates: Vec<Candidate> = layers
        .iter()
        .filter_map(|layer| Some(Candidate::new(layer, layer.positions(&inferred)?)))
        .collect();
    let full = candidates.iter().fold(Size::default(), |sum, candidate| {
        sum.plus(candidate.size_at(candidate.rank))
    });
    let whole = exported(&graph, &prepared)?;
    let methods = if methods.is_empty() {
        let all = "svd:taylor:labels svd:fisher:model white:fisher:model fisher:fisher:model";
        all.split(' ').map(str::to_owned).collect()
    } else {
        methods.to_vec()
    };
    let mut moments = BTreeMap::new();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "basis\tscore\tloss\tshare\tparams\tmacs\tcut\tcarried\trefit"
    )?;
    for method in &methods {
        let [basis, score_name, loss] = method.split(':').collect::<Vec<_>>()[..] else {
            return Err(format!("`{method}` is not BASIS:SCORE:LOSS").into());
        };
        let is_measured = score_name == "measured";
        let kind: Score = parse(if is_measured { "fisher" } else { score_name })?;
        let wanted: Basis = parse(basis)?;
        let mut activations = Vec::new();
        let (mut ranked, mut scores, mut means) =
            (factored.clone(), Scores::new(), BTreeMap::new());
        if kind == Score::Taylor {
            scores = taylor(&engine, &factored, &head.logits, &source, images)?;
        } else {
            if !moments.contains_key(loss) {
                let config = gathering(images, loss)?;
                let outputs = layers
                    .iter()
                    .map(|layer| Wanted::of_layer(layer, &layer.output));
                let values: Vec<Wanted> = outputs.collect();
                let found = output_moments(
                    &engine,
                    &graph,
                    std::slice::from_ref(&head.logits),
                    &values,
                    &source,
                    &config,
                    &Silent,
                )?;
                moments.insert(loss.to_owned(), found);
            }
            for layer in &layers {
                let weight = layer.matrices(&factored).ok_or("no matrices")?.product();
                let bias = layer.bias_values(&factored).flatten();
                let bias = bias.map(ndarray::Array1::from);
                let bias = bias.as_ref().map(|bias| bias.view());
                let known = &moments[loss][&layer.output];
                let found = directions(wanted, weight.view(), bias, known, layer.rank)
                    .ok_or("no directions")?;
                scores.insert(layer.name.clone(), score(kind, &found).ok_or("no scores")?);
                let mean: Vec<f64> = found.means.iter().copied().collect();
                activations.push((Wanted::of_layer(layer, &layer.basis_output), mean));
                if layer.bias.is_some() {
                    means.insert(layer.name.clone(), found.means.iter().copied().collect());
                }
                found
                    .matrices
                    .store(&mut ranked, layer)
                    .ok_or("does not fit")?;
            }
        }
        if is_measured {
            let costs = channel_costs(
                &engine,
                &ranked,
                std::slice::from_ref(&head.logits),
                &activations,
                &source,
                &gathering(images, loss)?,
                &Silent,
            )?;
            for layer in &layers {
                let costs = costs.get(&layer.basis_output).ok_or("no costs")?;
                scores.insert(layer.name.clone(), over_groups(costs, layer.rank));
            }
        }
        for share in &shares {
            let (goal, per) = match unit.as_str() {
                "macs" => (Goal::Macs((share * full.macs as f64) as u64), Per::Mac),
                _ => (
                    Goal::Params((share * full.params as f64) as u64),
                    Per::Parameter,
                ),
            };
            let config = SelectConfig {
                per,
                ..SelectConfig::new(goal)
            };
            let plan = select(&candidates, &scores, &config)?;
            let cut = apply(&compensate(&ranked, &plan, &means)?, &plan)?;
            let carried = carry_batch_norm(
                &engine,
                &factored,
                &cut,
                &KeptChannels::new(),
                &source,
                1024,
                0,
                &Silent,
            )?;
            let batches = training_batches(&source, images, 0)?;
            let all = KeptOutputs::new();
            let reference = Reference {
                uncut: &factored,
                kept: &all,
                moments: &BTreeMap::new(),
                batches: &batches,
            };
            let refitted = refit_layers(&engine, &carried, &reference, &Silent)?;
            let kept = exported(&cut, &prepared)?;
            let top1 = |graph: &Graph| {
                let (small, _) = fold(graph, &FoldConfig::default())?;
                accuracy(&engine, &small, &head.logits, &source, tested)
            };
            writeln!(
                out,
                "{basis}\t{score_name}\t{loss}\t{share}\t{:.4}\t{:.4}\t{:.4}\t{:.4}\t{:.4}",
                kept.params as f64 / whole.params as f64,
                kept.macs as f64 / whole.macs as f64,
                top1(&cut)?,
                top1(&carried)?,
                top1(&refitted)?,
            )?;
        }
    }
    Ok(())
}

/// Size of a graph as it would be exported.
fn exported(graph: &Graph, prepared: &Prepared) -> Result<Size> {
    let (folded, _) = fold(graph, &FoldConfig::default())?;
    let shapes = infer_images(
        &folded,
        1,
        prepared.preprocess.height,
        prepared.preprocess.width,
    )?;
    let cost = cost::of(&folded, &shapes);
    Ok(Size {
        params: cost.params,
        macs: cost.macs,
        nanos: 0,
    })
}

/// Taylor scores at factors of 1, from `images` training images.
fn taylor(
    engine: &dyn Engine,
    graph: &Graph,
    logits: &str,
    source: &Source<'_>,
    images: usize,
) -> Result<Scores> {
    let mut window = TaylorWindow::new(&factored_layers(graph));
    let trainable: Vec<String> = window.initializers().map(str::to_owned).collect();
    let values: BTreeMap<_, _> = trainable
        .iter()
        .filter_map(|name| {
            Some((
                name.clone(),
                graph.initializers.get(name)?.as_floats()?.clone(),
            ))
        })
        .collect();
    let mut session = engine.session(&Request {
        graph,
        outputs: vec![logits.to_owned()],
        trainable,
        taps: Vec::new(),
        batch_norm: BatchNormMode::Stored,
    })?;
    for batch in training_batches(source, images, 0)? {
        let mut loss = |outputs: &[secateur::tensor::Floats]| {
            vec![cross_entropy(&outputs[0], &batch.labels, 0.0).gradient]
        };
        window.add(&session.step(&batch.images, &mut loss)?, &values)?;
    }
    Ok(window.scores()?)
}

/// Top-1 on the first `tested` test images; on all where it is 0.
fn accuracy(
    engine: &dyn Engine,
    graph: &Graph,
    logits: &str,
    source: &Source<'_>,
    tested: usize,
) -> Result<f64> {
    use secateur::data::{Augment, Order};
    let mut session = engine.session(&Request::evaluation(graph, vec![logits.to_owned()]))?;
    let (mut hits, mut n) = (0, 0);
    for batch in source.batches(Split::Test, Order::Stored, Augment::None) {
        let batch = batch?;
        let outputs = session.forward(&batch.images)?;
        let loss = cross_entropy(&outputs[0], &batch.labels, 0.0);
        hits += loss.hits.iter().filter(|&&hit| hit).count();
        n += loss.hits.len();
        if tested > 0 && n >= tested {
            break;
        }
    }
    Ok(hits as f64 / n.max(1) as f64)
}
