//! ONNX Runtime through the crate `ort`. Its library is loaded when it is asked for, and never
//! downloaded.
//!
//! `ort` panics where it is used before a library is loaded, and loads none but the first. So the path
//! is resolved and checked here, the library is loaded with `ort`'s fallible function, and the one
//! environment of the process is kept.

use super::VerifyError;
use super::runtime::{
    Declared, Loaded, Piece, PieceOutput, Runtime, fixed_batch, joined, pieces, values_of,
};
use crate::tensor::Floats;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorElementType, TensorRef, ValueType};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const NAME: &str = "onnxruntime";

/// The environment variable that names the library.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// The library that this process has loaded, and its environment: there can be only one.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// Runs ONNX files in ONNX Runtime, on the CPU.
#[derive(Clone, Debug)]
pub struct OrtRuntime {
    environment: Environment,
    threads: usize,
}

impl OrtRuntime {
    /// Loads the library at `library`, or where there is none at the path that the environment
    /// variable `ORT_DYLIB_PATH` names. Computes with `threads` threads within an operator, or as
    /// many as ONNX Runtime sees fit for 0.
    ///
    /// # Errors
    /// [`VerifyError::Library`] where there is no such file, or it is no ONNX Runtime, or too old;
    /// [`VerifyError::OtherLibrary`] where the process has loaded another.
    pub fn new(library: Option<&Path>, threads: usize) -> Result<Self, VerifyError> {
        let path = resolve(library.map(Path::to_path_buf), std::env::var_os(VARIABLE))?;
        Ok(Self {
            environment: environment(path)?,
            threads,
        })
    }
}

impl Runtime for OrtRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, model_bytes: &[u8], shape: [usize; 4]) -> Result<Box<dyn Loaded>, VerifyError> {
        let session = session(&self.environment, self.threads, model_bytes)
            .map_err(|error| failure("load", &error))?;
        let [input] = session.inputs() else {
            return Err(VerifyError::Input {
                problem: format!(
                    "it has {} inputs, want one image input",
                    session.inputs().len()
                ),
            });
        };
        let fixed = fixed_batch(Some(&declared(input.dtype())?), shape)?;
        Ok(Box::new(OrtModel {
            session,
            fixed,
            shape,
        }))
    }
}

struct OrtModel {
    session: Session,
    fixed: Option<usize>,
    shape: [usize; 4],
}

impl Loaded for OrtModel {
    fn batch(&self) -> usize {
        self.fixed.unwrap_or(self.shape[0])
    }

    fn run_some(&mut self, images: &Floats, most: usize) -> Result<Vec<Floats>, VerifyError> {
        let values = values_of(images, self.shape)?;
        let batch = self.fixed.unwrap_or(images.shape()[0]);
        let [_, image_shape @ ..] = self.shape;
        let pieces = pieces(&values, image_shape.iter().product(), batch);
        let mut outputs = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            let [c, h, w] = image_shape;
            let output = run_piece(&mut self.session, [batch, c, h, w], piece)
                .map_err(|error| failure("run", &error))?;
            outputs.push(output);
        }
        joined(&pieces, batch, outputs, most)
    }
}

/// The absolute path of the library to load: `explicit`, else `variable`.
fn resolve(
    explicit: Option<PathBuf>,
    variable: Option<std::ffi::OsString>,
) -> Result<PathBuf, VerifyError> {
    let variable = variable.filter(|text| !text.is_empty()).map(PathBuf::from);
    let unusable = |problem: String| VerifyError::Library { problem };
    let path = explicit
        .or(variable)
        .ok_or_else(|| unusable(format!("no library is given and {VARIABLE} is not set")))?;
    if !path.is_file() {
        return Err(unusable(format!("there is no file `{}`", path.display())));
    }
    path.canonicalize()
        .map_err(|error| unusable(format!("`{}`: {error}", path.display())))
}

/// The environment of this process, made from the library at `path` where there is none yet.
fn environment(path: PathBuf) -> Result<Environment, VerifyError> {
    // A thread that died in here has left either nothing or a whole environment.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((loaded, environment)) = loaded.as_ref() {
        return if *loaded == path {
            Ok(environment.clone())
        } else {
            Err(VerifyError::OtherLibrary {
                loaded: loaded.clone(),
                wanted: path,
            })
        };
    }
    let unusable = |problem: String| VerifyError::Library { problem };
    let builder = ort::init_from(&path).map_err(|error| unusable(error.to_string()))?;
    let environment = builder
        .with_name("secateur")
        .with_telemetry(false)
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    *loaded = Some((path, environment.clone()));
    Ok(environment)
}

fn session(environment: &Environment, threads: usize, bytes: &[u8]) -> ort::Result<Session> {
    let mut builder = Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_deterministic_compute(true)?
        // What goes wrong is returned; printing it as well would mix with progress.
        .with_log_level(LogLevel::Fatal)?;
    if threads > 0 {
        builder = builder.with_intra_threads(threads)?;
    }
    builder.commit_from_memory(bytes)
}

fn declared(input: &ValueType) -> Result<Declared, VerifyError> {
    match input {
        ValueType::Tensor {
            ty: TensorElementType::Float32,
            shape,
            ..
        } => Ok(shape.iter().map(|dim| usize::try_from(*dim).ok()).collect()),
        other => Err(VerifyError::Input {
            problem: format!("it is {other}, want a tensor of f32"),
        }),
    }
}

fn run_piece(
    session: &mut Session,
    shape: [usize; 4],
    piece: &Piece,
) -> ort::Result<Vec<PieceOutput>> {
    let input = TensorRef::from_array_view((shape, piece.values.as_slice()))?;
    let outputs = session.run(ort::inputs![input])?;
    let mut found = Vec::new();
    for output in outputs.values() {
        // Indices are compared as floats, as tract's are.
        let (shape, values) = match output.try_extract_tensor::<i64>() {
            Ok((shape, values)) => (shape, values.iter().map(|&value| value as f32).collect()),
            Err(_) => {
                let (shape, values) = output.try_extract_tensor::<f32>()?;
                (shape, values.to_vec())
            }
        };
        let length = |dim: &i64| usize::try_from(*dim).unwrap_or(0);
        found.push((shape.iter().map(length).collect(), values));
    }
    Ok(found)
}

fn failure(action: &'static str, error: &ort::Error) -> VerifyError {
    VerifyError::Runtime {
        runtime: NAME,
        action,
        problem: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_path_wins_over_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["a.so", "b.so"].map(|name| folder.path().join(name));
        std::fs::write(&first, "").unwrap();
        std::fs::write(&second, "").unwrap();
        let variable = Some(second.clone().into_os_string());
        let resolved = |explicit| resolve(explicit, variable.clone()).unwrap();
        assert_eq!(resolved(Some(first.clone())), first.canonicalize().unwrap());
        assert_eq!(resolved(None), second.canonicalize().unwrap());
    }

    #[test]
    fn without_a_path_the_error_says_what_to_set() {
        for variable in [
            None,
            Some("".into()),
            Some("nowhere/libonnxruntime.so".into()),
        ] {
            let error = resolve(None, variable).unwrap_err().to_string();
            assert!(
                error.contains("set ORT_DYLIB_PATH to libonnxruntime.so"),
                "{error}"
            );
        }
    }
}
