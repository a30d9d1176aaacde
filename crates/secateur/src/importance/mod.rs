//! Scores of directions and channels: what removing each one costs.

mod channel;
mod criterion;
mod direction;
mod taylor;

pub use channel::{Reader, RemovalOrder};
pub use criterion::{ChannelScore, by_weights};
pub use direction::{Score, over_groups, score};
pub use taylor::{ImportanceError, TaylorWindow, scaling_gradient};

use std::collections::BTreeMap;

/// By layer name, a score per direction: what removing it costs.
pub type Scores = BTreeMap<String, Vec<f64>>;
