//! Reads every `.onnx` file of a folder and writes it to two others: to the first as it came, to
//! the second without what the file says beyond its graph, so that every node is written anew.
//!
//!     cargo run -p secateur --example rewrite -- FROM KEPT FRESH
//!
//! `tests/fixtures/check_round_trip.py` compares the results in ONNX Runtime.

use secateur::onnx::{self, Model};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [from, kept, fresh] = &folders[..] else {
        return Err("wanted three folders: FROM KEPT FRESH".into());
    };
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path
            .file_name()
            .filter(|_| path.extension().is_some_and(|e| e == "onnx"))
        else {
            continue;
        };
        let model = onnx::read(&path)?;
        onnx::write(&model, kept.join(name))?;
        onnx::write(&Model::new(model.graph), fresh.join(name))?;
    }
    Ok(())
}
