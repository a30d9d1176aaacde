//! Changes that stages make to a graph.

use super::{Graph, GraphError, Node};
use std::collections::{BTreeMap, BTreeSet};

impl Graph {
    /// Puts `nodes` in the place of the node of this name, in the order given.
    ///
    /// # Errors
    /// [`GraphError::NoNode`] where there is no such node.
    pub fn replace_node(&mut self, name: &str, nodes: Vec<Node>) -> Result<(), GraphError> {
        let position = self.nodes.iter().position(|node| node.name == name);
        let index = position.ok_or_else(|| GraphError::NoNode(name.to_owned()))?;
        self.nodes.splice(index..=index, nodes);
        Ok(())
    }

    /// Drops the nodes and initializers that reach no output of the graph. Inputs stay.
    pub fn remove_unused(&mut self) {
        let mut used: BTreeSet<String> = self
            .outputs
            .iter()
            .map(|output| output.name.clone())
            .collect();
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.drain(..).rev() {
            if Node::named(&node.outputs).any(|name| used.contains(name)) {
                used.extend(Node::named(&node.inputs).map(str::to_owned));
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self.initializers.retain(|name, _| used.contains(name));
    }

    /// Renames a value wherever it is defined, declared or read. `to` must be free, see
    /// [`Graph::fresh_value`].
    pub fn rename_value(&mut self, from: &str, to: &str) {
        if let Some(tensor) = self.initializers.remove(from) {
            self.initializers.insert(to.to_owned(), tensor);
        }
        let operands = self
            .nodes
            .iter_mut()
            .flat_map(|node| node.inputs.iter_mut().chain(&mut node.outputs));
        let declared = self
            .inputs
            .iter_mut()
            .chain(&mut self.outputs)
            .map(|value| &mut value.name);
        for name in operands.chain(declared).filter(|name| *name == from) {
            to.clone_into(name);
        }
    }

    /// A name that no value has: `hint` itself, or `hint` with the first free number from 1 on.
    #[must_use]
    pub fn fresh_value(&self, hint: &str) -> String {
        let declared = self
            .inputs
            .iter()
            .chain(&self.outputs)
            .map(|value| value.name.as_str());
        let operands = self
            .nodes
            .iter()
            .flat_map(|node| node.inputs.iter().chain(&node.outputs));
        let stored = self.initializers.keys().chain(operands).map(String::as_str);
        free_name(hint, &declared.chain(stored).collect())
    }

    /// A name that no node has: `hint` itself, or `hint` with the first free number from 1 on.
    #[must_use]
    pub fn fresh_node(&self, hint: &str) -> String {
        free_name(
            hint,
            &self.nodes.iter().map(|node| node.name.as_str()).collect(),
        )
    }

    /// The same graph with every node after those whose outputs it reads. Nodes that already are
    /// in such an order keep it.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] where there is no such order.
    pub fn sorted(mut self) -> Result<Self, GraphError> {
        let order = topological_order(&self)?;
        let mut nodes: Vec<Option<Node>> = self.nodes.drain(..).map(Some).collect();
        self.nodes = order
            .into_iter()
            .filter_map(|index| nodes[index].take())
            .collect();
        Ok(self)
    }
}

fn free_name(hint: &str, taken: &BTreeSet<&str>) -> String {
    let free = |name: &String| !name.is_empty() && !taken.contains(name.as_str());
    let numbered = (1_u64..).map(|number| format!("{hint}_{number}"));
    std::iter::once(hint.to_owned())
        .chain(numbered)
        .find(free)
        .unwrap_or_default()
}

/// Kahn's algorithm; of the nodes that are ready, the first in the file goes first.
fn topological_order(graph: &Graph) -> Result<Vec<usize>, GraphError> {
    let producers = graph.producers();
    let mut waits_for = vec![0_usize; graph.nodes.len()];
    let mut readers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for producer in Node::named(&node.inputs).filter_map(|name| producers.get(name)) {
            waits_for[index] += 1;
            readers.entry(*producer).or_default().push(index);
        }
    }
    let mut ready: BTreeSet<usize> = (0..graph.nodes.len())
        .filter(|&index| waits_for[index] == 0)
        .collect();
    let mut order = Vec::with_capacity(graph.nodes.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for &reader in readers.get(&index).into_iter().flatten() {
            waits_for[reader] -= 1;
            if waits_for[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    match waits_for.iter().position(|&count| count > 0) {
        Some(index) => Err(GraphError::Cycle(graph.nodes[index].name.clone())),
        None => Ok(order),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::samples::{Builder, resnet20};
    use super::*;
    use crate::graph::Op;
    use proptest::prelude::*;

    fn small() -> Graph {
        let mut b = Builder::new(3);
        b.conv("conv", "x", [8, 3, 3, 3], 1);
        b.relu("relu", "conv");
        b.output("relu")
    }

    fn names(graph: &Graph) -> Vec<&str> {
        graph.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    #[test]
    fn a_node_is_replaced_in_its_place() {
        let mut graph = small();
        let copy = |name: &str| Node {
            name: name.into(),
            ..graph.nodes[0].clone()
        };
        let (a, b) = (copy("a"), copy("b"));
        graph.replace_node("conv", vec![a, b]).unwrap();
        assert_eq!(names(&graph), ["a", "b", "relu"]);
        graph.replace_node("b", Vec::new()).unwrap();
        assert_eq!(names(&graph), ["a", "relu"]);
        assert_eq!(
            graph.replace_node("b", Vec::new()),
            Err(GraphError::NoNode("b".into()))
        );
    }

    #[test]
    fn what_reaches_no_output_is_removed() {
        let mut graph = small();
        let mut b = Builder {
            graph: graph.clone(),
        };
        b.conv("dead", "relu", [8, 8, 1, 1], 1);
        b.relu("dead.relu", "dead");
        b.zeros("unread", &[2]);
        let mut extended = b.graph;
        extended.remove_unused();
        assert_eq!(extended, graph);
        graph.outputs.clear();
        graph.remove_unused();
        assert!(graph.nodes.is_empty() && graph.initializers.is_empty());
        assert_eq!(graph.inputs.len(), 1);
    }

    #[test]
    fn a_second_output_keeps_its_node() {
        let mut graph = small();
        graph.nodes[1].op = Op::Dropout { ratio: None };
        graph.nodes[1].outputs.push("mask".into());
        graph.outputs[0].name = "mask".into();
        graph.remove_unused();
        assert_eq!(names(&graph), ["conv", "relu"]);
    }

    #[test]
    fn renaming_follows_a_value_everywhere() {
        let mut graph = small();
        graph.rename_value("conv", "a");
        graph.rename_value("x", "image");
        graph.rename_value("relu", "y");
        graph.rename_value("conv.weight", "w");
        assert_eq!(graph.validate(), Ok(()));
        assert_eq!(graph.nodes[0].inputs, ["image", "w"]);
        assert_eq!(
            (
                graph.nodes[1].inputs[0].as_str(),
                graph.outputs[0].name.as_str()
            ),
            ("a", "y")
        );
    }

    #[test]
    fn fresh_names_are_free() {
        let mut graph = small();
        assert_eq!(graph.fresh_value("new"), "new");
        assert_eq!(graph.fresh_value("x"), "x_1");
        graph.inputs[0].name = "x_1".into();
        assert_eq!(graph.fresh_value("x"), "x_2");
        assert_eq!(graph.fresh_value("conv.weight"), "conv.weight_1");
        assert_eq!(graph.fresh_value(""), "_1");
        assert_eq!(graph.fresh_node("relu"), "relu_1");
        assert_eq!(graph.fresh_node("x_1"), "x_1");
    }

    #[test]
    fn a_circle_has_no_order() {
        let mut graph = small();
        graph.nodes[0].inputs[0] = "relu".into();
        assert_eq!(graph.sorted(), Err(GraphError::Cycle("conv".into())));
    }

    proptest! {
        #[test]
        fn sorting_makes_any_order_valid_and_keeps_a_valid_one(seed in prop::collection::vec(any::<u64>(), 99)) {
            let graph = resnet20();
            prop_assert_eq!(&graph.clone().sorted().unwrap(), &graph);
            let mut shuffled = graph.clone();
            let mut keys = seed.iter();
            shuffled.nodes.sort_by_cached_key(|_| keys.next().copied());
            prop_assert_ne!(&shuffled, &graph);
            let sorted = shuffled.sorted().unwrap();
            prop_assert_eq!(sorted.validate(), Ok(()));
            prop_assert_eq!(sorted.nodes.len(), graph.nodes.len());
        }
    }
}
