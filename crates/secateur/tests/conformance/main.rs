//! ONNX's own test cases of single nodes, run forward on both engines and written to
//! `docs/operators.md`.
//!
//! The cases come from the Python package `onnx`; without it the test says so and passes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod cases;
mod table;

use cases::{Case, Expected, suite};
use secateur::exec::{BurnEngine, Engine, NativeEngine, Request};
use secateur::graph::{Graph, Inferred, infer};
use secateur::onnx::{self, Model};
use secateur::tensor::{Floats, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every output is as expected, on both engines.
    Pass,
    /// An error, and its text.
    Refused(String),
    /// Another answer, or a panic.
    Wrong(String),
}

/// Of the largest expected value: both compute in `f32`, with sums of at most some hundred terms in
/// another order.
const TOLERANCE: f64 = 1e-5;
/// Of each expected value: ONNX's own tolerance, for some cases state four digits only.
const STATED: f64 = 1e-3;

#[test]
fn every_case_of_onnx_passes_or_is_refused() {
    let suite = match suite() {
        Ok(suite) => suite,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    let supported: BTreeSet<&str> = onnx::supported_operators()
        .iter()
        .map(|row| row.name)
        .collect();
    let is_ours = |case: &&Case| {
        let mut operators = case.operators.iter();
        operators.all(|op| supported.contains(op.as_str()))
    };
    let verdicts: Vec<(&Case, Verdict)> = suite
        .cases
        .iter()
        .filter(is_ours)
        .map(|case| (case, judge(case)))
        .collect();
    let wrong: Vec<String> = verdicts
        .iter()
        .filter_map(|(case, verdict)| match verdict {
            Verdict::Wrong(how) => Some(format!("{}: {how}", case.name)),
            Verdict::Pass | Verdict::Refused(_) => None,
        })
        .collect();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operators.md");
    let found = table::render(&suite.version, &verdicts);
    if std::env::var_os("SECATEUR_UPDATE").is_some() {
        std::fs::write(&committed, &found).unwrap();
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let committed = std::fs::read_to_string(&committed).unwrap_or_default();
    if table::version(&committed) != Some(suite.version.as_str()) {
        eprintln!(
            "not compared with docs/operators.md: it is of another version of `onnx` than {}",
            suite.version
        );
        return;
    }
    assert!(
        committed == found,
        "`docs/operators.md` differs from what is found now; where that is right, run \
         `SECATEUR_UPDATE=1 cargo test -p secateur --test conformance`. Found:\n{found}"
    );
}

#[test]
fn a_wrong_answer_is_found() {
    let expected = |values: &[f32]| Expected {
        name: "y".to_owned(),
        value: Ok(Tensor::F32(floats(values))),
    };
    let got = Tensor::F32(floats(&[1.0, f32::NAN, f32::INFINITY]));
    let compare = |values: &[f32]| compare(&expected(values), &got);
    assert_eq!(compare(&[1.0, f32::NAN, f32::INFINITY]), Ok(()));
    assert!(compare(&[1.1, f32::NAN, f32::INFINITY]).is_err());
    assert!(compare(&[1.0, 2.0, f32::INFINITY]).is_err());
    assert!(compare(&[1.0, f32::NAN, f32::NEG_INFINITY]).is_err());
    assert!(compare(&[1.0, f32::NAN]).is_err());
}

fn floats(values: &[f32]) -> Floats {
    Floats::from_shape_vec(ndarray::IxDyn(&[values.len()]), values.to_vec()).unwrap()
}

fn judge(case: &Case) -> Verdict {
    let run = || run(case).unwrap_or_else(|verdict| verdict);
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Verdict::Wrong("a panic".to_owned()))
}

/// The verdict of a case; those that end it early come as errors.
fn run(case: &Case) -> Result<Verdict, Verdict> {
    let refused = |problem: String| Verdict::Refused(problem);
    let graph = onnx::from_bytes(&case.model).map_err(|e| refused(e.to_string()))?;
    let graph = graph.graph;
    check_written(&graph)?;
    let shapes = BTreeMap::from([(case.input_name.clone(), case.input.shape().to_vec())]);
    let inferred = infer(&graph, &shapes).map_err(|e| refused(e.to_string()))?;
    if let Some(kind) = case.outputs.iter().find_map(|o| o.value.as_ref().err()) {
        return Err(refused(format!("an output is of type {kind}")));
    }
    let computed = case.outputs.iter();
    let computed = computed.filter(|output| known(&graph, &inferred, &output.name).is_none());
    let computed: Vec<&Expected> = computed.collect();
    check_constants(case, &graph, &inferred)?;
    let engines: [&dyn Engine; 2] = [&NativeEngine::new(), &BurnEngine::new()];
    for engine in engines {
        if computed.is_empty() {
            break;
        }
        let failed = |e: secateur::exec::ExecError| refused(e.to_string());
        let mut session = engine
            .session(&request(&graph, &computed))
            .map_err(failed)?;
        let outputs = session.forward(&case.input).map_err(failed)?;
        for (got, expected) in outputs.into_iter().zip(&computed) {
            compare(expected, &as_declared(got, expected))
                .map_err(|how| Verdict::Wrong(format!("{}: {how}", engine.name())))?;
        }
    }
    Ok(Verdict::Pass)
}

/// Whole numbers as what they are declared to be: engines compute indices as floats.
fn as_declared(got: Floats, expected: &Expected) -> Tensor {
    let is_whole = got.iter().all(|value| value.fract() == 0.0);
    match &expected.value {
        Ok(Tensor::I64(_)) if is_whole => Tensor::I64(got.mapv(|value| value as i64).into_shared()),
        _ => Tensor::F32(got),
    }
}

/// Written anew and read again it must be the same graph.
fn check_written(graph: &Graph) -> Result<(), Verdict> {
    let wrong = |how: String| Verdict::Wrong(format!("written anew: {how}"));
    let bytes = onnx::to_bytes(&Model::new(graph.clone())).map_err(|e| wrong(e.to_string()))?;
    let again = onnx::from_bytes(&bytes).map_err(|e| wrong(e.to_string()))?;
    if again.graph.nodes == graph.nodes {
        Ok(())
    } else {
        Err(wrong(format!("{:?}", again.graph.nodes)))
    }
}

/// Values that are known before anything runs, such as those of `Shape`.
fn known<'g>(graph: &'g Graph, inferred: &'g Inferred, name: &str) -> Option<&'g Tensor> {
    let stored = || graph.initializers.get(name);
    inferred.constants.get(name).or_else(stored)
}

fn check_constants(case: &Case, graph: &Graph, inferred: &Inferred) -> Result<(), Verdict> {
    for expected in &case.outputs {
        if let Some(known) = known(graph, inferred, &expected.name) {
            compare(expected, known)
                .map_err(|how| Verdict::Wrong(format!("shape inference: {how}")))?;
        }
    }
    Ok(())
}

fn request<'g>(graph: &'g Graph, outputs: &[&Expected]) -> Request<'g> {
    Request::evaluation(
        graph,
        outputs.iter().map(|output| output.name.clone()).collect(),
    )
}

fn compare(expected: &Expected, got: &Tensor) -> Result<(), String> {
    let name = &expected.name;
    let want = expected.value.as_ref().map_err(Clone::clone)?;
    if got.shape() != want.shape() {
        return Err(format!(
            "`{name}` has shape {:?}, not {:?}",
            got.shape(),
            want.shape()
        ));
    }
    let (Tensor::F32(got), Tensor::F32(want)) = (got, want) else {
        let is_same = match (got, want) {
            (Tensor::F64(got), Tensor::F64(want)) => {
                let same = |(got, want): (&f64, &f64)| got == want || got.is_nan() && want.is_nan();
                got.iter().zip(want).all(same)
            }
            _ => got == want,
        };
        return if is_same {
            Ok(())
        } else {
            Err(format!("`{name}` is {got:?}, not {want:?}"))
        };
    };
    let finite = want.iter().filter(|value| value.is_finite());
    let scale = finite.fold(1.0_f64, |a, &b| a.max(f64::from(b.abs())));
    for ((at, &got), &want) in got.indexed_iter().zip(want) {
        let difference = (f64::from(got) - f64::from(want)).abs();
        let is_same = got == want || (got.is_nan() && want.is_nan());
        let allowed = (TOLERANCE * scale).max(STATED * f64::from(want.abs()));
        if !(is_same || difference <= allowed && want.is_finite()) {
            return Err(format!("`{name}` is {got} at {at:?}, not {want}"));
        }
    }
    Ok(())
}
