//! The state of a training that can be killed at any moment.

use super::fit::CheckRecord;
use crate::files::{WriteError, write_atomic};
use crate::graph::Graph;
use crate::tensor::Floats;
use ndarray::{ArcArray, IxDyn};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything that training needs to go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FitState {
    /// Steps taken.
    pub step: u64,
    /// Current values of the trainable initializers.
    pub values: BTreeMap<String, Floats>,
    /// The best values so far, batch-norm statistics included.
    pub best: BTreeMap<String, Floats>,
    /// Moments of the optimizer.
    pub optimizer: BTreeMap<String, Vec<f32>>,
    /// Sum of the losses since the last check.
    pub loss_sum: f64,
    /// Steps since the last check.
    pub loss_count: u64,
    /// What each check found.
    pub checks: Vec<CheckRecord>,
    /// Index into `checks` of the best one.
    pub best_check: usize,
}

impl FitState {
    /// Whether it is the state of a training of these initializers of `graph` in so many steps.
    pub(super) fn is_of(&self, graph: &Graph, trainable: &[String], steps: u64) -> bool {
        let has_shape = |(name, values): (&String, &Floats)| {
            let stored = graph.float(name);
            stored.is_some_and(|stored| stored.shape() == values.shape())
        };
        let has_length = |(name, moments): (&String, &Vec<f32>)| {
            let name = name.split_once('/').map_or("", |(_, name)| name);
            let value = self.values.get(name);
            value.is_some_and(|value| value.len() == moments.len())
        };
        let is_trained = |name: &String| trainable.contains(name);
        self.best_check < self.checks.len()
            && self.step <= steps
            && self.loss_count <= self.step
            && self.values.len() == trainable.len()
            && self.values.keys().all(is_trained)
            && self.values.iter().chain(&self.best).all(has_shape)
            && self.optimizer.iter().all(has_length)
    }
}

/// Keeps the newest state.
pub trait CheckpointStore {
    /// The state to go on from, if there is one.
    ///
    /// # Errors
    /// [`CheckpointError`] where there is one that cannot be read.
    fn load(&mut self) -> Result<Option<FitState>, CheckpointError>;

    /// Replaces the state.
    ///
    /// # Errors
    /// [`CheckpointError`] where it cannot be written.
    fn save(&mut self, state: &FitState) -> Result<(), CheckpointError>;
}

/// Keeps nothing: for trainings of seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCheckpoints;

impl CheckpointStore for NoCheckpoints {
    fn load(&mut self) -> Result<Option<FitState>, CheckpointError> {
        Ok(None)
    }
    fn save(&mut self, _state: &FitState) -> Result<(), CheckpointError> {
        Ok(())
    }
}

/// Keeps the state in one safetensors file, replaced whole.
#[derive(Clone, Debug)]
pub struct CheckpointFile {
    /// The file.
    pub path: PathBuf,
}

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It cannot be read.
    #[error("checkpoint `{}`: {problem}; remove the file to start this stage again", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    step: u64,
    loss_sum: f64,
    loss_count: u64,
    checks: Vec<CheckRecord>,
    best_check: usize,
}

const HEADER_KEY: &str = "secateur.fit";

impl CheckpointStore for CheckpointFile {
    fn load(&mut self) -> Result<Option<FitState>, CheckpointError> {
        if !self.path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&self.path).map_err(|e| self.unreadable(&e))?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| self.unreadable(&e))?;
        let header = metadata.metadata().as_ref();
        let header = header
            .and_then(|h| h.get(HEADER_KEY))
            .ok_or_else(|| self.unreadable(&"it has no training state"))?;
        let header: Header = serde_json::from_str(header).map_err(|e| self.unreadable(&e))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| self.unreadable(&e))?;
        let mut state = FitState {
            step: header.step,
            loss_sum: header.loss_sum,
            loss_count: header.loss_count,
            checks: header.checks,
            best_check: header.best_check,
            ..FitState::default()
        };
        for (name, view) in tensors.tensors() {
            let floats: Vec<f32> = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            if let Some(name) = name.strip_prefix("optimizer/") {
                state.optimizer.insert(name.to_owned(), floats);
                continue;
            }
            let array = ArcArray::from_shape_vec(IxDyn(view.shape()), floats)
                .map_err(|e| self.unreadable(&e))?;
            if let Some(name) = name.strip_prefix("values/") {
                state.values.insert(name.to_owned(), array);
            } else if let Some(name) = name.strip_prefix("best/") {
                state.best.insert(name.to_owned(), array);
            }
        }
        Ok(Some(state))
    }

    fn save(&mut self, state: &FitState) -> Result<(), CheckpointError> {
        let header = Header {
            step: state.step,
            loss_sum: state.loss_sum,
            loss_count: state.loss_count,
            checks: state.checks.clone(),
            best_check: state.best_check,
        };
        let header = serde_json::to_string(&header).map_err(|e| self.unreadable(&e))?;
        let mut arrays: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for (prefix, values) in [("values", &state.values), ("best", &state.best)] {
            for (name, array) in values {
                let bytes = array.iter().flat_map(|v| v.to_le_bytes()).collect();
                arrays.push((format!("{prefix}/{name}"), array.shape().to_vec(), bytes));
            }
        }
        for (name, moments) in &state.optimizer {
            let bytes = moments.iter().flat_map(|v| v.to_le_bytes()).collect();
            arrays.push((format!("optimizer/{name}"), vec![moments.len()], bytes));
        }
        let mut views = Vec::with_capacity(arrays.len());
        for (name, shape, bytes) in &arrays {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            views.push((name.as_str(), view.map_err(|e| self.unreadable(&e))?));
        }
        let metadata = [(HEADER_KEY.to_owned(), header)].into();
        let bytes = safetensors::serialize(views, Some(metadata));
        Ok(write_atomic(
            &self.path,
            &bytes.map_err(|e| self.unreadable(&e))?,
        )?)
    }
}

impl CheckpointFile {
    fn unreadable(&self, problem: &dyn std::fmt::Display) -> CheckpointError {
        CheckpointError::Read {
            path: self.path.clone(),
            problem: problem.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_the_file_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = CheckpointFile {
            path: folder.path().join("fit.safetensors"),
        };
        assert_eq!(file.load().unwrap(), None);
        let array = ArcArray::from_shape_vec(IxDyn(&[1, 2]), vec![0.1, f32::MIN_POSITIVE]);
        let state = FitState {
            step: 7,
            values: BTreeMap::from([("a/b".to_owned(), array.unwrap())]),
            optimizer: BTreeMap::from([("first/a/b".to_owned(), vec![1.5, -0.0])]),
            checks: vec![CheckRecord {
                step: 7,
                train_loss: 0.1 + 0.2,
                val_top1: 1.0 / 3.0,
                val_loss: 2.0 / 7.0,
                lr: 1e-3,
            }],
            ..FitState::default()
        };
        file.save(&state).unwrap();
        assert_eq!(file.load().unwrap(), Some(state));
    }

    #[test]
    fn a_damaged_file_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fit.safetensors");
        std::fs::write(&path, b"not a checkpoint").unwrap();
        let error = CheckpointFile { path }.load().unwrap_err();
        assert!(error.to_string().contains("fit.safetensors"));
    }
}
