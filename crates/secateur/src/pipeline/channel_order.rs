//! How many channels go, and which: the order in which they go, computed as far as a cut wants it.

use super::PipelineError;
use crate::groups::{ChannelGroups, ChannelId, Removed};
use crate::importance::RemovalOrder;

/// The channels of an order whose removal leaves something of every value: a group can be spread over
/// several.
pub(super) struct ChannelOrder<'g> {
    groups: &'g ChannelGroups,
    order: RemovalOrder,
    /// What the order has given so far, without the channels that would empty a value.
    ids: Vec<ChannelId>,
    removed: Removed,
}

impl<'g> ChannelOrder<'g> {
    pub(super) fn new(groups: &'g ChannelGroups, order: RemovalOrder) -> Self {
        Self {
            groups,
            order,
            ids: Vec::new(),
            removed: Removed::nothing(groups),
        }
    }

    /// The first `n` channels, or all that can go where they are fewer.
    pub(super) fn first(&mut self, n: usize) -> &[ChannelId] {
        while self.ids.len() < n {
            let next: Vec<ChannelId> = self.order.by_ref().take(n - self.ids.len()).collect();
            if next.is_empty() {
                break;
            }
            self.add(&next);
        }
        &self.ids[..n.min(self.ids.len())]
    }

    fn add(&mut self, next: &[ChannelId]) {
        // What empties nothing together empties nothing on the way.
        let mut with = self.removed.clone();
        next.iter().for_each(|&id| with.insert(id));
        if self.groups.emptied(&with).is_none() {
            self.removed = with;
            self.ids.extend(next);
            return;
        }
        for &id in next {
            let mut with = self.removed.clone();
            with.insert(id);
            if self.groups.emptied(&with).is_none() {
                self.removed = with;
                self.ids.push(id);
            }
        }
    }
}

/// The length of the shortest run of channels, at least one, that is enough; of all that can go where none is.
/// `first` gives the first of at most `most` channels, or fewer where no more can go. The size falls with every
/// channel, so a longer run than one that is enough is enough as well. Runs are lengthened from a sixteenth
/// of all, for it is dear to find them.
pub(super) fn shortest(
    most: usize,
    first: &mut dyn FnMut(usize) -> Vec<ChannelId>,
    is_enough: &dyn Fn(&[ChannelId]) -> Result<bool, PipelineError>,
) -> Result<Vec<ChannelId>, PipelineError> {
    let (mut too_few, mut wanted) = (0, most.div_ceil(16).max(1));
    let mut run = loop {
        let run = first(wanted);
        let is_all = run.len() < wanted || wanted >= most;
        match is_enough(&run)? {
            true => break run,
            false if is_all => return Ok(run),
            false => {
                too_few = run.len();
                wanted = (2 * wanted).min(most);
            }
        }
    };
    while run.len() > too_few + 1 {
        let middle = usize::midpoint(too_few, run.len());
        if is_enough(&run[..middle])? {
            run.truncate(middle);
        } else {
            too_few = middle;
        }
    }
    Ok(run)
}

/// The part of `order` after which each group has a multiple of `align` channels left, or all of its
/// `sizes`: of what goes beyond that, the last stay.
pub(super) fn aligned(order: &[ChannelId], sizes: &[usize], align: usize) -> Vec<ChannelId> {
    let mut goes = vec![0_usize; sizes.len()];
    for id in order {
        goes[id.group] += 1;
    }
    for (goes, &size) in goes.iter_mut().zip(sizes) {
        let left = (size - *goes).next_multiple_of(align).min(size);
        *goes = size - left;
    }
    let mut takes = |id: &&ChannelId| {
        let more = goes[id.group] > 0;
        goes[id.group] -= usize::from(more);
        more
    };
    order.iter().filter(|id| takes(id)).copied().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn id(group: usize, channel: usize) -> ChannelId {
        ChannelId { group, channel }
    }

    #[test]
    fn groups_are_left_with_aligned_numbers_of_channels_or_whole() {
        // Of 12 channels four and then a fifth go; of 6, which is no multiple, one.
        let order = [id(0, 3), id(1, 2), id(0, 7), id(0, 1), id(0, 0), id(0, 9)];
        let kept = |align| aligned(&order, &[12, 6], align);
        assert_eq!(kept(1), order);
        assert_eq!(kept(4), [id(0, 3), id(0, 7), id(0, 1), id(0, 0)]);
        assert_eq!(kept(16), []);
    }

    #[test]
    fn the_shortest_run_that_is_enough_is_found_whatever_its_length() {
        let all: Vec<ChannelId> = (0..100).map(|channel| id(0, channel)).collect();
        // `most` may promise more than can go.
        for (most, can_go) in [(100, 100), (100, 37), (1, 1), (3, 2), (100, 0)] {
            for enough in 0..=110 {
                let asked = RefCell::new(0);
                let mut first = |n: usize| {
                    asked.replace_with(|asked| n.max(*asked));
                    all[..n.min(can_go)].to_vec()
                };
                let run = shortest(most, &mut first, &|run| Ok(run.len() >= enough)).unwrap();
                let want = enough.max(1).min(can_go);
                assert_eq!(run, &all[..want], "{enough} of {can_go} of {most}");
                // Twice the length that is enough is as far as it looks.
                let asked = asked.into_inner();
                assert!(
                    asked <= (2 * enough).max(most.div_ceil(16)).max(1),
                    "{asked}"
                );
            }
        }
    }
}
