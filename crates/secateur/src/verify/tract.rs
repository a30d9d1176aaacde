//! The embedded runtime: tract, in pure Rust.

use super::VerifyError;
use super::runtime::{
    Declared, Loaded, Piece, PieceOutput, Runtime, fixed_batch, joined, pieces, values_of,
};
use crate::tensor::Floats;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tract_onnx::prelude::{
    Datum, Framework, Graph, InferenceFact, InferenceModelExt, IntoRunnable, IntoTValue, Tensor,
    TractError, TractResult, TypedFact, TypedOp, TypedRunnableModel, tvec,
};
use tract_onnx::tract_hir::infer::{DimFact, Factoid};
use tract_onnx::tract_hir::internal::DimLike;

const NAME: &str = "tract";

/// Images that are run at once where the file leaves the number free. The number is the same for
/// every number of threads, so that outputs do not depend on it; small pieces keep the threads busy.
const PIECE: usize = 4;

/// Runs ONNX files in tract.
#[derive(Clone, Debug)]
pub struct TractRuntime {
    pool: Arc<ThreadPool>,
}

impl TractRuntime {
    /// A runtime that computes with `threads` threads, or all of the machine's for 0. Threads take
    /// different images, so outputs do not depend on their number.
    ///
    /// # Errors
    /// [`VerifyError::Runtime`] where the threads cannot be started.
    pub fn new(threads: usize) -> Result<Self, VerifyError> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| failure("load", error.to_string()))?;
        Ok(Self {
            pool: Arc::new(pool),
        })
    }
}

impl Runtime for TractRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, model_bytes: &[u8], shape: [usize; 4]) -> Result<Box<dyn Loaded>, VerifyError> {
        let (plan, batch) = guarded("load", || plan(model_bytes, shape))??;
        Ok(Box::new(TractModel {
            plan,
            pool: Arc::clone(&self.pool),
            shape: [batch, shape[1], shape[2], shape[3]],
        }))
    }
}

struct TractModel {
    plan: Arc<TypedRunnableModel>,
    pool: Arc<ThreadPool>,
    shape: [usize; 4],
}

impl Loaded for TractModel {
    fn batch(&self) -> usize {
        self.shape[0]
    }

    fn run_some(&mut self, images: &Floats, most: usize) -> Result<Vec<Floats>, VerifyError> {
        let values = values_of(images, self.shape)?;
        let [batch, image_shape @ ..] = self.shape;
        let pieces = pieces(&values, image_shape.iter().product(), batch);
        let run = |piece: &Piece| guarded("run", || run_piece(&self.plan, self.shape, piece))?;
        let outputs: Result<Vec<Vec<PieceOutput>>, VerifyError> =
            self.pool.install(|| pieces.par_iter().map(run).collect());
        joined(&pieces, batch, outputs?, most)
    }
}

/// Parses, types and optimises a model for `shape`, or for its own number of images.
fn plan(
    model_bytes: &[u8],
    shape: [usize; 4],
) -> Result<(Arc<TypedRunnableModel>, usize), VerifyError> {
    let refused = |error: TractError| failure("load", format!("{error:#}"));
    let mut reader = model_bytes;
    // What the file says of inner values may be symbolic in the batch, which is a number here.
    let model = tract_onnx::onnx()
        .with_ignore_value_info(true)
        .model_for_read(&mut reader)
        .map_err(refused)?;
    let inputs = model.input_outlets().map_err(refused)?;
    if inputs.len() != 1 {
        return Err(VerifyError::Input {
            problem: format!("it has {} inputs, want one image input", inputs.len()),
        });
    }
    let declared = declared(model.input_fact(0).map_err(refused)?);
    let batch = match fixed_batch(declared.as_ref(), shape)? {
        Some(batch) => batch,
        None => even_piece(shape[0]),
    };
    let fact = InferenceFact::dt_shape(
        f32::datum_type(),
        tvec!(batch, shape[1], shape[2], shape[3]),
    );
    let optimised = || -> TractResult<Arc<TypedRunnableModel>> {
        let model: Graph<TypedFact, Box<dyn TypedOp>> =
            model.with_input_fact(0, fact)?.into_optimized()?;
        model.into_runnable()
    };
    Ok((optimised().map_err(refused)?, batch))
}

/// The size of pieces, [`PIECE`] at most, that waste the least filling on `n` images.
fn even_piece(n: usize) -> usize {
    let n = n.max(1);
    n.div_ceil(n.div_ceil(PIECE))
}

fn declared(fact: &InferenceFact) -> Option<Declared> {
    if fact.shape.is_open() {
        return None;
    }
    let length = |dim: DimFact| dim.concretize()?.to_usize().ok();
    Some(fact.shape.dims().cloned().map(length).collect())
}

fn run_piece(
    plan: &Arc<TypedRunnableModel>,
    shape: [usize; 4],
    piece: &Piece,
) -> Result<Vec<PieceOutput>, VerifyError> {
    let run = || -> TractResult<Vec<PieceOutput>> {
        let input = Tensor::from_shape(&shape, &piece.values)?;
        let outputs = plan.run(tvec!(input.into_tvalue()))?;
        let mut found = Vec::new();
        for output in outputs {
            let output = output.cast_to::<f32>()?;
            let values = output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            found.push((output.shape().to_vec(), values));
        }
        Ok(found)
    };
    run().map_err(|error| failure("run", format!("{error:#}")))
}

/// Runs `work`, and turns a panic into an error: files come from strangers, and tract asserts.
fn guarded<T>(action: &'static str, work: impl FnOnce() -> T) -> Result<T, VerifyError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("for no stated reason");
        failure(action, format!("it gave up: {text}"))
    })
}

fn failure(action: &'static str, problem: String) -> VerifyError {
    VerifyError::Runtime {
        runtime: NAME,
        action,
        problem,
    }
}
