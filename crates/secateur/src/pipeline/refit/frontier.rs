//! How far a refit has come: values of both networks from which the rest can be run, so that no layer
//! costs a pass through all that come before it.

use crate::data::Batch;
use crate::exec::{Engine, Request};
use crate::graph::{Graph, Node, ValueDecl};
use crate::tensor::ElementType;
use crate::train::TrainError;
use std::collections::BTreeSet;

// Bytes of the values that are held of both networks together.
const MAX_BYTES: usize = 1 << 29;

/// One value that all that is still to run goes through, in both networks.
pub(super) struct Frontier {
    /// The value; the images where there is none.
    value: Option<String>,
    /// A value further on, which is made when it is needed.
    next: Option<String>,
    /// Its values in the cut network.
    pub ours: Vec<Batch>,
    /// Its values in the uncut network.
    pub theirs: Vec<Batch>,
}

impl Frontier {
    pub fn new(images: &[Batch]) -> Self {
        Self {
            value: None,
            next: None,
            ours: images.to_vec(),
            theirs: images.to_vec(),
        }
    }

    /// Tells that all nodes up to the one that makes `value` are as they are to be.
    pub fn reached(&mut self, value: &str, cut: &Graph, uncut: &Graph) {
        if is_passage(cut, value) && is_passage(uncut, value) {
            self.next = Some(value.to_owned());
        }
    }

    /// Moves on as far as has been reached, where the values there fit in memory.
    pub fn advance(
        &mut self,
        engine: &dyn Engine,
        cut: &Graph,
        uncut: &Graph,
    ) -> Result<(), TrainError> {
        let Some(next) = self.next.take() else {
            return Ok(());
        };
        let mut sides = Vec::new();
        let mut bytes = 0;
        for (graph, batches) in [(cut, &self.ours), (uncut, &self.theirs)] {
            let part = self.rest(graph);
            let mut session = engine.session(&Request::evaluation(&part, vec![next.clone()]))?;
            let mut made = Vec::with_capacity(batches.len());
            for batch in batches {
                let images = session.forward(&batch.images)?.remove(0);
                if made.is_empty() {
                    bytes += images.len() * size_of::<f32>() * batches.len();
                }
                if bytes > MAX_BYTES {
                    return Ok(());
                }
                made.push(Batch {
                    images,
                    labels: batch.labels.clone(),
                });
            }
            sides.push(made);
        }
        (self.theirs, self.ours) = (sides.remove(1), sides.remove(0));
        self.value = Some(next);
        Ok(())
    }

    /// The part of a network that is still to run.
    pub fn rest(&self, graph: &Graph) -> Graph {
        let Some(value) = &self.value else {
            return graph.clone();
        };
        let from = graph.producers().get(value.as_str()).map_or(0, |at| at + 1);
        Graph {
            inputs: vec![ValueDecl {
                name: value.clone(),
                element_type: ElementType::F32,
                dims: None,
            }],
            nodes: graph.nodes[from..].to_vec(),
            ..graph.clone()
        }
    }
}

/// Whether the nodes after the one that makes `value` read nothing else that is made up to there.
fn is_passage(graph: &Graph, value: &str) -> bool {
    let Some(&made) = graph.producers().get(value) else {
        return false;
    };
    let mut known = BTreeSet::from([value]);
    for node in &graph.nodes[made + 1..] {
        let reads_known = Node::named(&node.inputs)
            .all(|input| known.contains(input) || graph.initializers.contains_key(input));
        if !reads_known {
            return false;
        }
        known.extend(Node::named(&node.outputs));
    }
    true
}
