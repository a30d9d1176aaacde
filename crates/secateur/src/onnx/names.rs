//! Unique names for nodes, whose names ONNX leaves optional.

use super::proto::NodeProto;
use std::collections::{BTreeMap, BTreeSet};

/// A unique name for each node: its own, unless it has none or an earlier node has the same; then
/// its first output's, with a number where that is taken too.
pub(super) fn unique(nodes: &[NodeProto]) -> Vec<String> {
    let mut taken: BTreeSet<String> = nodes.iter().map(|node| node.name().to_owned()).collect();
    let mut kept = BTreeSet::new();
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut names = Vec::with_capacity(nodes.len());
    for node in nodes {
        if !node.name().is_empty() && kept.insert(node.name()) {
            names.push(node.name().to_owned());
            continue;
        }
        let output = node.output.iter().find(|name| !name.is_empty());
        let stem = output.map_or_else(|| node.op_type(), String::as_str);
        let mut name = stem.to_owned();
        while name.is_empty() || !taken.insert(name.clone()) {
            let number = numbers.entry(stem.to_owned()).or_insert(0);
            *number += 1;
            name = format!("{stem}_{number}");
        }
        names.push(name);
    }
    names
}
