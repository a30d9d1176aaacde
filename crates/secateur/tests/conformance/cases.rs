//! ONNX's own test cases, as `extract.py` writes them.

use ndarray::{ArcArray, IxDyn};
use secateur::tensor::{Floats, Tensor};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A tensor of a case; `Err` names a kind that cannot be compared.
pub struct Expected {
    pub name: String,
    pub value: Result<Tensor, String>,
}

/// One model with its input and its expected outputs.
pub struct Case {
    pub name: String,
    /// Of every node, with the domain where it is not ONNX's own.
    pub operators: Vec<String>,
    pub model: Vec<u8>,
    pub input_name: String,
    pub input: Floats,
    pub outputs: Vec<Expected>,
}

/// The cases, and the version of `onnx` that they come from.
pub struct Suite {
    pub version: String,
    pub cases: Vec<Case>,
}

/// Asks Python for the cases; `Err` says why there are none.
///
/// `SECATEUR_PYTHON` names the interpreter.
pub fn suite() -> Result<Suite, String> {
    let python = std::env::var_os("SECATEUR_PYTHON").unwrap_or_else(|| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/extract.py");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    let has_onnx = Command::new(&python).args(["-c", "import onnx"]).output();
    let shown = python.display();
    match has_onnx {
        Err(problem) => return Err(format!("`{shown}` cannot be run: {problem}")),
        Ok(output) if !output.status.success() => {
            return Err(format!(
                "`{shown}` has no package `onnx` (`pip install onnx`)"
            ));
        }
        Ok(_) => {}
    }
    let made = Command::new(&python).arg(&script).arg(&folder).output();
    let made = made.map_err(|problem| problem.to_string())?;
    // The package is there: from here on a failure is a fault of ours.
    assert!(
        made.status.success(),
        "{}: {}",
        script.display(),
        String::from_utf8_lossy(&made.stderr)
    );
    Ok(read(&folder))
}

fn read(folder: &Path) -> Suite {
    let index = std::fs::read_to_string(folder.join("cases.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let bytes = std::fs::read(folder.join("cases.bin")).unwrap();
    let case = |case: &Value| {
        let begin = number(&case["model"]["offset"]);
        let input = expected(&case["input"], &bytes);
        let outputs = case["outputs"].as_array().unwrap();
        let operators = case["operators"].as_array().unwrap();
        Case {
            name: text(&case["name"]),
            operators: operators.iter().map(text).collect(),
            model: bytes[begin..begin + number(&case["model"]["length"])].to_vec(),
            input_name: input.name,
            input: input.value.unwrap().as_floats().unwrap().clone(),
            outputs: outputs.iter().map(|o| expected(o, &bytes)).collect(),
        }
    };
    Suite {
        version: text(&index["onnx"]),
        cases: index["cases"]
            .as_array()
            .unwrap()
            .iter()
            .map(case)
            .collect(),
    }
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn expected(tensor: &Value, bytes: &[u8]) -> Expected {
    let kind = text(&tensor["kind"]);
    let value = if tensor["shape"].is_null() {
        Err(kind)
    } else {
        let shape: Vec<usize> = tensor["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(number)
            .collect();
        let bytes = &bytes[number(&tensor["offset"])..];
        Ok(match kind.as_str() {
            "float32" => Tensor::F32(array(&shape, bytes, f32::from_le_bytes)),
            "float64" => Tensor::F64(array(&shape, bytes, f64::from_le_bytes)),
            "int32" => Tensor::I32(array(&shape, bytes, i32::from_le_bytes)),
            "int64" => Tensor::I64(array(&shape, bytes, i64::from_le_bytes)),
            _ => Tensor::Bool(array(&shape, bytes, |[byte]: [u8; 1]| byte != 0)),
        })
    };
    Expected {
        name: text(&tensor["name"]),
        value,
    }
}

fn array<T, const N: usize>(
    shape: &[usize],
    bytes: &[u8],
    decode: impl Fn([u8; N]) -> T,
) -> ArcArray<T, IxDyn> {
    let count: usize = shape.iter().product();
    let values = bytes[..N * count].chunks_exact(N);
    let values = values
        .map(|bytes| decode(bytes.try_into().unwrap()))
        .collect();
    ArcArray::from_shape_vec(IxDyn(shape), values).unwrap()
}
