//! Which image belongs to which split: stratified, seeded, and validation never from test.

use rand::seq::SliceRandom;

use super::random::{Purpose, generator};
use super::{DataError, DataOptions};

/// One labelled image: its place in the store and its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sample {
    pub item: usize,
    pub label: usize,
}

/// The splits as the data has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    pub train: Vec<Sample>,
    pub val: Option<Vec<Sample>>,
    pub test: Option<Vec<Sample>>,
}

/// The splits as they are used, each in the order of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Splits {
    pub train: Vec<Sample>,
    pub val: Vec<Sample>,
    pub test: Vec<Sample>,
}

/// Divides what the data has: first a test split is carved from train where there is none, then
/// train is cut to the limit, then a validation split is carved from it where there is none.
pub(super) fn divide(
    listing: Listing,
    classes: usize,
    options: &DataOptions,
) -> Result<Splits, DataError> {
    let seed = options.seed;
    let Listing {
        mut train,
        val,
        test,
    } = listing;
    let test = match test {
        Some(test) => test,
        None => carve(
            &mut train,
            classes,
            |_, n| share(n, options.test_fraction),
            seed,
            |class| Purpose::Test { class },
        ),
    };
    let mut val = val;
    if let Some(limit) = options.limit {
        cut(&mut train, val.as_mut(), classes, limit, options)?;
    }
    let val = match val {
        Some(val) => val,
        None => carve(
            &mut train,
            classes,
            |_, n| share(n, options.val_fraction),
            seed,
            |class| Purpose::Val { class },
        ),
    };
    let mut splits = Splits { train, val, test };
    for split in [&mut splits.train, &mut splits.val, &mut splits.test] {
        split.sort_unstable();
    }
    Ok(splits)
}

/// Cuts training and own validation images to `limit` together, in proportion, but so that each can
/// keep one image of each class.
fn cut(
    train: &mut Vec<Sample>,
    val: Option<&mut Vec<Sample>>,
    classes: usize,
    limit: usize,
    options: &DataOptions,
) -> Result<(), DataError> {
    let own = val.as_ref().map_or(0, |val| val.len());
    let per_class = if own > 0 || options.val_fraction > 0.0 {
        2
    } else {
        1
    };
    if limit < classes * per_class {
        return Err(DataError::Option {
            option: "the limit of training images",
            got: limit.to_string(),
            want: format!(
                "at least {}, {per_class} for each of {classes} classes",
                classes * per_class
            ),
        });
    }
    let all = train.len() + own;
    if limit >= all {
        return Ok(());
    }
    let mut left = limit;
    if let Some(val) = val.filter(|val| !val.is_empty()) {
        let share = (limit as u128 * own as u128 / all as u128) as usize;
        keep(
            val,
            classes,
            share.clamp(classes, limit - classes),
            options.seed,
        );
        left -= val.len();
    }
    keep(train, classes, left, options.seed);
    Ok(())
}

/// `fraction` of `n`, rounded, leaving at least one on either side where possible.
fn share(n: usize, fraction: f64) -> usize {
    if fraction <= 0.0 || n < 2 {
        return 0;
    }
    ((n as f64 * fraction).round() as usize).clamp(1, n - 1)
}

/// Moves `count(class, n)` of the `n` samples of each class out of `samples`.
fn carve(
    samples: &mut Vec<Sample>,
    classes: usize,
    count: impl Fn(usize, usize) -> usize,
    seed: u64,
    purpose: impl Fn(usize) -> Purpose,
) -> Vec<Sample> {
    let mut by_class = vec![Vec::new(); classes];
    for &sample in samples.iter() {
        by_class[sample.label].push(sample);
    }
    samples.clear();
    let mut carved = Vec::new();
    for (class, mut members) in by_class.into_iter().enumerate() {
        members.sort_unstable();
        members.shuffle(&mut generator(seed, purpose(class)));
        let rest = members.split_off(count(class, members.len()));
        carved.extend(members);
        samples.extend(rest);
    }
    carved
}

/// Cuts `samples` to `limit`, keeping the shares of the classes.
fn keep(samples: &mut Vec<Sample>, classes: usize, limit: usize, seed: u64) {
    let mut counts = vec![0; classes];
    for sample in samples.iter() {
        counts[sample.label] += 1;
    }
    let quotas = quotas(&counts, limit);
    *samples = carve(
        samples,
        classes,
        |class, _| quotas[class],
        seed,
        |class| Purpose::Limit { class },
    );
}

/// `limit` divided in proportion to `counts` by largest remainders, at least 1 of each class that has
/// any; ties go to the earlier class.
fn quotas(counts: &[usize], limit: usize) -> Vec<usize> {
    let all: usize = counts.iter().sum();
    if limit >= all {
        return counts.to_vec();
    }
    let share = |count: usize| limit as u128 * count as u128;
    let mut quotas: Vec<usize> = counts
        .iter()
        .map(|&n| ((share(n) / all as u128) as usize).max(1).min(n))
        .collect();
    let mut by_remainder: Vec<usize> = (0..counts.len()).collect();
    by_remainder.sort_by_key(|&class| std::cmp::Reverse(share(counts[class]) % all as u128));
    let mut total: usize = quotas.iter().sum();
    for &class in by_remainder.iter().cycle().take(2 * counts.len()) {
        if total < limit && quotas[class] < counts[class] {
            quotas[class] += 1;
            total += 1;
        }
    }
    // Many small classes were rounded up to one: the largest give way.
    while total > limit {
        let Some((class, _)) = quotas
            .iter()
            .enumerate()
            .filter(|(_, q)| **q > 1)
            .max_by_key(|(class, q)| (**q, *class))
        else {
            break;
        };
        quotas[class] -= 1;
        total -= 1;
    }
    quotas
}
