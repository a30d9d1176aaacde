//! ONNX files: in to a [`Graph`], and out again.
//!
//! First and last stage of the pipeline. [`read`] accepts the operators of [`supported_operators`] in
//! operator sets 7 to 28 and refuses everything else by name. [`write()`] writes what was not touched as
//! it stood in the file.
//!
//! # What a round trip keeps
//! An unedited model is written as an equal protobuf message, except that
//! - data of external files moves into the file itself, as `raw_data`;
//! - 16-bit floats become 32-bit ones: weights, casts, and intermediate values declared as such; a weight that
//!   only one cast reads takes that cast's name, and the cast goes;
//! - a boolean that is stored as a number other than 0 and 1 becomes 1;
//! - protobuf fields that ONNX's definition does not know are dropped, and fields are written in
//!   the order of their numbers.
//!
//! Of an edited graph, nodes with the operator, inputs and outputs that they were imported with are
//! written as they stood, and the file's intermediate shapes (`value_info`) are kept only for values
//! that no change can have reached.

mod attributes;
mod constant;
mod error;
mod export;
mod import;
mod interpolation;
mod names;
mod narrow;
mod node;
mod operator;
mod origin;
mod proto;
mod table;
mod tensor;
#[cfg(test)]
mod tests;
mod windows;

pub use error::{OnnxError, UnsupportedOperators};
pub use origin::Origin;
pub use table::{NEWEST_OPSET, OLDEST_OPSET, SupportedOperator, supported_operators};

use self::proto::tensor_proto::DataLocation;
use crate::files::write_atomic;
use crate::graph::Graph;
use prost::Message;
use std::fs;
use std::path::Path;

/// A graph, and what its file says beyond it.
#[derive(Clone, Debug)]
pub struct Model {
    /// The network.
    pub graph: Graph,
    origin: Origin,
}

impl Model {
    /// A graph that does not come from a file.
    #[must_use]
    pub fn new(graph: Graph) -> Self {
        Self {
            graph,
            origin: Origin::default(),
        }
    }

    /// An edited graph, written with this file's origin: what is as it was imported is written as
    /// it stood.
    #[must_use]
    pub fn with_graph(&self, graph: Graph) -> Self {
        Self {
            graph,
            origin: self.origin.clone(),
        }
    }

    /// What the file says beyond the graph.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// Reads an ONNX file. External data is read from within the file's folder only.
///
/// # Errors
/// [`OnnxError::File`] with what is wrong: not ONNX, damaged, or not supported. All unsupported
/// operators are named at once ([`OnnxError::Unsupported`]).
pub fn read(path: impl AsRef<Path>) -> Result<Model, OnnxError> {
    let path = path.as_ref();
    let proto = read_bytes(path).and_then(|bytes| decode(&bytes));
    model(proto.map_err(|problem| in_file(path, problem))?, path)
}

fn model(proto: proto::ModelProto, path: &Path) -> Result<Model, OnnxError> {
    let model = import::model(proto, Some(folder_of(path)));
    model.map_err(|problem| in_file(path, problem))
}

/// Reads the bytes of an ONNX file. External data is an error.
///
/// # Errors
/// See [`read`]; the error does not name a file.
pub fn from_bytes(bytes: &[u8]) -> Result<Model, OnnxError> {
    import::model(decode(bytes)?, None)
}

/// The bytes of an ONNX file by which a runtime knows it without its folder: its own, or, where it keeps weights in other
/// files, those of the model with its weights.
///
/// # Errors
/// See [`read`]. Of a file that keeps all weights itself, only that it cannot be read.
pub fn bytes_of(path: &Path) -> Result<Vec<u8>, OnnxError> {
    let bytes = read_bytes(path).map_err(|problem| in_file(path, problem))?;
    match decode(&bytes) {
        Ok(proto) if keeps_weights_elsewhere(&proto) => to_bytes_for(path, &model(proto, path)?),
        _ => Ok(bytes),
    }
}

fn keeps_weights_elsewhere(model: &proto::ModelProto) -> bool {
    let is_external =
        |tensor: &proto::TensorProto| tensor.data_location() == DataLocation::External;
    let graph = model.graph.iter();
    graph
        .clone()
        .flat_map(|graph| &graph.initializer)
        .any(is_external)
        || graph
            .flat_map(|graph| &graph.node)
            .flat_map(|node| &node.attribute)
            .any(|attribute| attribute.t.iter().any(is_external))
}

/// Writes an ONNX file: to a temporary name in the same folder, then renamed.
///
/// # Errors
/// [`OnnxError::File`] where a node has a form that the graph's operator set lacks or the model is
/// larger than protobuf allows; [`OnnxError::Write`] where the file cannot be written.
pub fn write(model: &Model, path: impl AsRef<Path>) -> Result<(), OnnxError> {
    write_within(model, path.as_ref(), MAX_FILE_BYTES)
}

fn write_within(model: &Model, path: &Path, limit: u64) -> Result<(), OnnxError> {
    let bytes = bytes_within(model, limit).map_err(|problem| in_file(path, problem))?;
    Ok(write_atomic(path, &bytes)?)
}

/// The bytes of an ONNX file that is to be written to `path`.
///
/// # Errors
/// See [`write()`].
pub fn to_bytes_for(path: &Path, model: &Model) -> Result<Vec<u8>, OnnxError> {
    to_bytes(model).map_err(|problem| in_file(path, problem))
}

/// The bytes of an ONNX file.
///
/// # Errors
/// See [`write()`]; the error does not name a file.
pub fn to_bytes(model: &Model) -> Result<Vec<u8>, OnnxError> {
    bytes_within(model, MAX_FILE_BYTES)
}

/// Weights go into the file itself: a second file could not be replaced together with the first.
fn bytes_within(model: &Model, limit: u64) -> Result<Vec<u8>, OnnxError> {
    let proto = export::model(model)?;
    let bytes = u64::try_from(proto.encoded_len()).unwrap_or(u64::MAX);
    if bytes > limit {
        return Err(OnnxError::TooLarge {
            what: "the model would take",
            bytes,
            limit,
            remedy: "what is written has 32-bit floats and no second file; two factors of full rank are larger than the \
                     layer that they stand for, so leave the largest layers whole with `--exclude`",
        });
    }
    Ok(proto.encode_to_vec())
}

/// Protobuf's limit for one message.
const MAX_FILE_BYTES: u64 = (1 << 31) - 1;

fn in_file(path: &Path, problem: OnnxError) -> OnnxError {
    OnnxError::File {
        path: path.to_owned(),
        problem: Box::new(problem),
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, OnnxError> {
    let bytes = fs::metadata(path).map_err(OnnxError::Io)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(OnnxError::TooLarge {
            what: "the file has",
            bytes,
            limit: MAX_FILE_BYTES,
            remedy: "keep its weights in a file of their own: `onnx.save_model(model, path, save_as_external_data=True)`",
        });
    }
    fs::read(path).map_err(OnnxError::Io)
}

fn decode(bytes: &[u8]) -> Result<proto::ModelProto, OnnxError> {
    if bytes.is_empty() {
        return Err(OnnxError::Empty);
    }
    let problem = match proto::ModelProto::decode(bytes) {
        Ok(model) if model.graph.is_some() => return Ok(model),
        Ok(_) => "it holds no graph".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(text(bytes).unwrap_or(OnnxError::Damaged(problem)))
}

/// The error for a file that is no protobuf because it is text.
fn text(bytes: &[u8]) -> Option<OnnxError> {
    // Enough to tell: an ONNX file begins with a control character, the tag of its version.
    const LOOKED_AT: usize = 512;
    const SHOWN: usize = 40;
    let head = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    let head = match std::str::from_utf8(head) {
        Ok(head) => head,
        // The cut may have split a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if head
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    {
        return None;
    }
    if head.starts_with("version https://git-lfs") {
        return Some(OnnxError::LfsPointer);
    }
    let line = head
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    Some(OnnxError::Text(line.trim().chars().take(SHOWN).collect()))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}
