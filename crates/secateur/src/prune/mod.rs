//! Pruning: scores become a plan, a plan becomes a smaller graph.
//!
//! [`select`] ranks the directions of all factored layers together and says which stay; the
//! [`PruningPlan`] is data that can be printed, stored and replayed; [`apply`] is a pure function
//! (method, sections 2, 3 and 7).

mod apply;
pub mod channels;
mod inputs;
mod refit;
mod select;
mod times;

pub use apply::{apply, compensate, mask};
pub use inputs::{InputSpace, cut_inputs, input_spaces, observed, spelled_out};
pub use refit::{Fit, JointMoments, fit};
pub use select::{Candidate, Goal, Per, SelectConfig, SelectError, select};
pub use times::RankTimes;

use crate::decompose::Basis;
use crate::graph::Size;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the plan's format.
pub const PLAN_VERSION: u32 = 1;

/// Which directions of which layers stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruningPlan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// The basis whose directions are meant. Those of any but the singular vectors depend on data, so
    /// their plan tells ranks, and cannot be repeated on a file.
    #[serde(default = "svd")]
    pub basis: Basis,
    /// By layer name; layers that are not named stay as they are.
    pub layers: BTreeMap<String, LayerPlan>,
    /// Size after the cut under the size rule: the planned layers and what the selection was told of
    /// the rest.
    pub predicted: Size,
}

fn svd() -> Basis {
    Basis::Svd
}

/// Which directions of one layer stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerPlan {
    /// The number of directions that the layer has before the cut.
    pub rank: usize,
    /// The directions that stay, increasing.
    pub keep: Vec<usize>,
}

impl PruningPlan {
    /// The one plan that does what this and then `next` do. The prediction is `next`'s.
    ///
    /// # Errors
    /// [`PruneError`] where `next` does not fit what this plan leaves.
    pub fn then(&self, next: &Self) -> Result<Self, PruneError> {
        self.check_version()?;
        next.check_version()?;
        let mut layers = self.layers.clone();
        for (name, second) in &next.layers {
            second.check(name)?;
            let Some(first) = layers.get_mut(name) else {
                layers.insert(name.clone(), second.clone());
                continue;
            };
            first.check(name)?;
            if first.keep.len() != second.rank {
                let (layer, plan, graph) = (name.clone(), second.rank, first.keep.len());
                return Err(PruneError::Rank { layer, plan, graph });
            }
            first.keep = second.keep.iter().map(|&index| first.keep[index]).collect();
        }
        Ok(Self {
            version: PLAN_VERSION,
            basis: next.basis,
            layers,
            predicted: next.predicted,
        })
    }

    fn check_version(&self) -> Result<(), PruneError> {
        if self.version == PLAN_VERSION {
            Ok(())
        } else {
            Err(PruneError::Version(self.version))
        }
    }
}

impl LayerPlan {
    fn check(&self, layer: &str) -> Result<(), PruneError> {
        let problem = if self.keep.is_empty() {
            "keeps no direction"
        } else if self
            .keep
            .iter()
            .zip(self.keep.iter().skip(1))
            .any(|(a, b)| a >= b)
        {
            "does not list its directions in increasing order"
        } else if self.keep.iter().any(|&index| index >= self.rank) {
            "keeps a direction that the layer does not have"
        } else {
            return Ok(());
        };
        Err(PruneError::Indices {
            layer: layer.to_owned(),
            problem,
        })
    }

    /// The directions that go, increasing.
    fn removed(&self) -> impl Iterator<Item = usize> {
        (0..self.rank).filter(|index| self.keep.binary_search(index).is_err())
    }
}

/// A plan that does not fit a graph.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The plan was written in another format.
    #[error("the plan has version {0}, but version {PLAN_VERSION} is known")]
    Version(u32),
    /// The plan's directions are not those of a file.
    #[error(
        "the plan is one of the {0} basis, whose directions depend on the data it was made with: \
         cut the file again with `secateur prune --target`, or make plans with `--basis svd`"
    )]
    Basis(&'static str),
    /// The directions of a layer are in no order of their own.
    #[error(
        "layer `{0}`: its directions are not singular vectors in falling order, so the plan may count \
         others: cut the file anew by `secateur prune --target`, or repeat plans on files that `secateur decompose` wrote"
    )]
    Directions(String),
    /// The graph has no factored layer of that name.
    #[error("the plan names layer `{0}`, but the graph has no factored layer of that name")]
    NoSuchLayer(String),
    /// Two factored layers have the name, so that the plan does not say which.
    #[error("the graph has more than one factored layer named `{0}`")]
    Ambiguous(String),
    /// The layer has another number of directions.
    #[error("layer `{layer}`: the plan is made for rank {plan}, but the layer has rank {graph}")]
    Rank {
        /// The layer.
        layer: String,
        /// The rank that the plan states.
        plan: usize,
        /// The rank found.
        graph: usize,
    },
    /// The kept directions are not a sorted set of directions.
    #[error("layer `{layer}`: the plan {problem}")]
    Indices {
        /// The layer.
        layer: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The means of the basis activations do not fit the layer.
    #[error("layer `{layer}`: {got} means are given, but its basis has {want} channels")]
    Means {
        /// The layer.
        layer: String,
        /// Means found.
        got: usize,
        /// Channels of the basis.
        want: usize,
    },
    /// The layer's bias cannot be changed.
    #[error("layer `{layer}`: its bias is not a stored vector with one entry per output channel")]
    Bias {
        /// The layer.
        layer: String,
    },
}
