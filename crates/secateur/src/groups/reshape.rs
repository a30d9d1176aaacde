//! `Reshape` and `Flatten`: where the channels are after the axes are cut anew.

use super::Fixed;
use super::classes::Id;
use super::labels::{Channels, Labels, MAX_CHANNELS, unknown};
use crate::graph::{Node, Op, Operands};
use std::collections::BTreeSet;
use std::ops::Range;

impl Labels<'_> {
    /// The channel axis may be joined with others (a dense layer after a map), or be split (a
    /// channel shuffle). In a split one of the new axes remains the channel axis; the channels that
    /// differ along the others go together.
    pub(super) fn reshape(&mut self, node: &Node) -> Result<Channels, Fixed> {
        let fails = || unknown(node);
        let channels = self.input(node)?;
        let (before, after) = (self.shape(node, 0)?, self.output_shape(node)?);
        let (old, new) = block_of(before, after, channels.axis).ok_or_else(fails)?;
        // What the batch axis is cut together with changes with the number of images.
        if old.start == 0 && old.len() > 1 {
            return Err(fails());
        }
        let inner: usize = before[channels.axis + 1..old.end].iter().product();
        let length = channels.ids.len();
        let count: usize = before[old].iter().product();
        let element = |position: usize| channels.ids[position / inner % length];
        if count > MAX_CHANNELS {
            return Err(fails());
        }
        let axes: Vec<usize> = new.clone().filter(|&axis| after[axis] > 1).collect();
        let axis = match axes[..] {
            [] => return Err(fails()),
            [axis] => axis,
            _ => axes
                .iter()
                .copied()
                .rev()
                .max_by_key(|&axis| {
                    let placed = lines(after, &new, axis, count)
                        .map(|(index, position)| (index, self.classes.root(element(position))));
                    let placed: BTreeSet<(usize, Id)> = placed.collect();
                    let roots: BTreeSet<Id> = placed.iter().map(|&(_, root)| root).collect();
                    // Lines that share a channel become one: as good as no axis at all.
                    if placed.len() > roots.len() {
                        0
                    } else {
                        after[axis]
                    }
                })
                .ok_or_else(fails)?,
        };
        self.shape_can_change(node, channels.axis, axis)?;
        let mut ids: Vec<Option<Id>> = vec![None; after[axis]];
        for (index, position) in lines(after, &new, axis, count) {
            let id = element(position);
            match ids[index] {
                Some(first) => self.classes.join(first, id),
                None => ids[index] = Some(id),
            }
        }
        let ids: Option<Vec<Id>> = ids.into_iter().collect();
        Ok(Channels {
            axis,
            ids: ids.ok_or_else(fails)?,
        })
    }

    /// Whether the new length of the channel axis follows by itself or can be written.
    fn shape_can_change(&self, node: &Node, from: usize, to: usize) -> Result<(), Fixed> {
        let Op::Reshape { allow_zero } = node.op else {
            return Ok(());
        };
        let operands = Operands::new(self.graph, self.inferred, node);
        let shape = operands.integers(1).map_err(|_| unknown(node))?;
        let entry = shape.and_then(|shape| shape.get(to).copied());
        match entry {
            Some(-1) => Ok(()),
            Some(0) if !allow_zero && from == to => Ok(()),
            Some(_) | None => self.needs_stored(node, &[1]),
        }
    }
}

/// The index along `axis` of each of the `count` positions of the block `new`, and the position.
fn lines(
    shape: &[usize],
    new: &Range<usize>,
    axis: usize,
    count: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let inner: usize = shape[axis + 1..new.end].iter().product();
    let length = shape[axis];
    (0..count).map(move |position| (position / inner % length, position))
}

/// The smallest runs of axes before and after that hold `axis` and the same elements.
fn block_of(
    before: &[usize],
    after: &[usize],
    axis: usize,
) -> Option<(Range<usize>, Range<usize>)> {
    if before.contains(&0) || after.contains(&0) {
        return None;
    }
    let (mut old, mut new) = (0, 0);
    while old < before.len() && new < after.len() {
        let (first_old, first_new) = (old, new);
        let (mut left, mut right) = (before[old], after[new]);
        (old, new) = (old + 1, new + 1);
        while left != right {
            if left < right {
                left = left.checked_mul(*before.get(old)?)?;
                old += 1;
            } else {
                right = right.checked_mul(*after.get(new)?)?;
                new += 1;
            }
        }
        if old > axis {
            return Some((first_old..old, first_new..new));
        }
    }
    None
}
