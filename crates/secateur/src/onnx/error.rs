//! What can be wrong with an ONNX file, or with a graph that is to become one.

use super::table::{NEWEST_OPSET, OLDEST_OPSET};
use crate::files::WriteError;
use crate::graph::GraphError;
use std::fmt;
use std::path::PathBuf;

/// A file that cannot be read, a model that is not supported, or a graph that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The content of a file is at fault.
    #[error("`{}`: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Box<OnnxError>,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The operating system refused to read.
    #[error("{0}")]
    Io(std::io::Error),
    /// Not a single byte.
    #[error("the file is empty, so it is not an ONNX model")]
    Empty,
    /// Text under the name of a model.
    #[error("the file is text, not an ONNX model; it begins with `{0}`")]
    Text(String),
    /// What `git` checks out where Git LFS is missing.
    #[error("the file is a Git LFS pointer, not the model itself; fetch it with `git lfs pull`")]
    LfsPointer,
    /// Not decodable as protobuf.
    #[error("the file is truncated, damaged or not an ONNX model ({0})")]
    Damaged(String),
    /// Too large for protobuf.
    #[error("{what} {bytes} bytes, more than the {limit} that one ONNX file can hold; {remedy}")]
    TooLarge {
        /// What is too large, with its verb: "the model would take".
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The largest size that is accepted.
        limit: u64,
        /// What the user can do.
        remedy: &'static str,
    },
    /// An operator set that is too old or too new.
    #[error(
        "the model uses operator set {0}; supported are {OLDEST_OPSET} to {NEWEST_OPSET}: export it again, or \
         convert it with `onnx.version_converter`"
    )]
    Opset(i64),
    /// Operators that are not supported: all of them.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedOperators),
    /// A feature of ONNX that is not supported, and what to do about it.
    #[error("{what} not supported; {remedy}")]
    Feature {
        /// The feature, by name, with its verb: "function `f` is".
        what: String,
        /// What the user can do.
        remedy: &'static str,
    },
    /// A node that does not follow its operator's definition, or a form that is not supported.
    #[error("node `{node}` ({op}): {problem}")]
    Node {
        /// The node's name.
        node: String,
        /// Its operator.
        op: String,
        /// What was found and what was wanted.
        problem: String,
    },
    /// A stored tensor that is inconsistent or of a type that is not supported.
    #[error("tensor `{name}`: {problem}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What was found and what was wanted.
        problem: String,
    },
    /// An input, an output or the graph as a whole is inconsistent.
    #[error("{0}")]
    Graph(String),
    /// A graph that is not well formed.
    #[error(transparent)]
    Malformed(#[from] GraphError),
}

/// Nodes whose operators are not supported, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedOperators {
    /// Node name and operator of each.
    pub nodes: Vec<(String, String)>,
}

/// Nodes that a message lists after the first; the rest is counted.
const LISTED: usize = 20;

impl fmt::Display for UnsupportedOperators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(((node, op), rest)) = self.nodes.split_first() else {
            return write!(f, "no operator is unsupported");
        };
        write!(f, "node `{node}`: operator `{op}` is not supported")?;
        if !rest.is_empty() {
            let plural = if rest.len() == 1 { "" } else { "s" };
            write!(f, " (and {} more node{plural}: ", rest.len())?;
            for (i, (node, op)) in rest.iter().take(LISTED).enumerate() {
                let comma = if i == 0 { "" } else { ", " };
                write!(f, "{comma}`{node}`: `{op}`")?;
            }
            if rest.len() > LISTED {
                write!(f, ", …")?;
            }
            write!(f, ")")?;
        }
        let any = |test: fn(&str) -> bool| self.nodes.iter().any(|(_, op)| test(op));
        if any(is_quantised) {
            write!(
                f,
                "; the model is quantised: give the 32-bit float model it was made from"
            )?;
        }
        if any(|op| matches!(op, "If" | "Loop" | "Scan")) {
            write!(
                f,
                "; the model has sub-graphs: export it without control flow"
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for UnsupportedOperators {}

fn is_quantised(op: &str) -> bool {
    op.starts_with("QLinear")
        || op.ends_with("QuantizeLinear")
        || op.ends_with("Integer")
        || op.starts_with("Dequantize")
}
