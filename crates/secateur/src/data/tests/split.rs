//! Splits: disjoint, complete, stratified, seeded, limited.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::split::{Listing, divide};
use super::*;

fn samples(labels: &[usize], first: usize) -> Vec<Sample> {
    labels
        .iter()
        .enumerate()
        .map(|(at, &label)| Sample {
            item: first + at,
            label,
        })
        .collect()
}

fn items(split: &[Sample]) -> BTreeSet<usize> {
    split.iter().map(|sample| sample.item).collect()
}

proptest! {
    #[test]
    fn splits_are_disjoint_complete_and_stratified(
        train in prop::collection::vec(0..4usize, 1..300),
        test in prop::option::of(prop::collection::vec(0..4usize, 0..50)),
        val_fraction in 0.0..0.9f64,
        test_fraction in 0.0..0.9f64,
        seed: u64,
    ) {
        let listing = Listing {
            train: samples(&train, 0),
            val: None,
            test: test.as_ref().map(|labels| samples(labels, train.len())),
        };
        let all = train.len() + test.as_ref().map_or(0, Vec::len);
        let options = DataOptions { val_fraction, test_fraction, seed, ..DataOptions::default() };
        let splits = divide(listing, 4, &options).unwrap();
        let [a, b, c] = [&splits.train, &splits.val, &splits.test].map(|split| items(split));
        prop_assert_eq!(a.len() + b.len() + c.len(), all);
        prop_assert_eq!(a.union(&b).chain(&c).collect::<BTreeSet<_>>().len(), all);
        if test.is_some() {
            prop_assert_eq!(c, (train.len()..all).collect::<BTreeSet<_>>());
        }
        for class in 0..4 {
            let count = |split: &[Sample]| split.iter().filter(|sample| sample.label == class).count();
            let total = train.iter().filter(|label| **label == class).count();
            let carved = if test.is_some() { 0 } else { count(&splits.test) };
            let near = |got: usize, n: usize, fraction: f64| {
                // Within rounding, or within keeping one on either side.
                (got as f64 - n as f64 * fraction).abs() <= 1.0 && (n < 2 || fraction == 0.0 || (1..n).contains(&got))
            };
            if test.is_none() {
                prop_assert!(near(carved, total, test_fraction));
            }
            prop_assert!(near(count(&splits.val), total - carved, val_fraction));
            prop_assert!(total == 0 || count(&splits.train) > 0);
        }
    }

    #[test]
    fn a_limit_is_kept_to_the_image_and_classes_keep_their_shares(
        train in prop::collection::vec(0..5usize, 60..400),
        val in prop::option::of(prop::collection::vec(0..5usize, 20..60)),
        limit in 20..300usize,
        seed: u64,
    ) {
        // Every class has an image in either.
        let train = [train, (0..5).collect()].concat();
        let val = val.map(|val| [val, (0..5).collect()].concat());
        let listing = Listing {
            train: samples(&train, 0),
            val: val.as_ref().map(|labels| samples(labels, train.len())),
            test: Some(Vec::new()),
        };
        let own = val.as_ref().map_or(0, Vec::len);
        let options = DataOptions { limit: Some(limit), seed, ..DataOptions::default() };
        let splits = divide(listing, 5, &options).unwrap();
        prop_assert_eq!(splits.train.len() + splits.val.len(), limit.min(train.len() + own));
        for class in 0..5 {
            prop_assert!(splits.train.iter().any(|sample| sample.label == class));
            prop_assert!(splits.val.iter().any(|sample| sample.label == class) || val.is_none());
            if val.is_none() {
                let total = train.iter().filter(|label| **label == class).count();
                let got = [&splits.train, &splits.val].into_iter().flatten().filter(|sample| sample.label == class).count();
                let want = total as f64 * (limit.min(train.len()) as f64 / train.len() as f64);
                prop_assert!((got as f64 - want).abs() <= 1.5, "class {class}: {got} of {want}");
            }
        }
    }
}

#[test]
fn another_seed_gives_another_split_and_the_same_seed_the_same() {
    let labels: Vec<usize> = (0..200).map(|n| n % 4).collect();
    let split = |seed| {
        let listing = Listing {
            train: samples(&labels, 0),
            val: None,
            test: None,
        };
        divide(
            listing,
            4,
            &DataOptions {
                seed,
                ..DataOptions::default()
            },
        )
        .unwrap()
    };
    assert_eq!(split(1), split(1));
    assert_ne!(items(&split(1).val), items(&split(2).val));
    assert_ne!(items(&split(1).test), items(&split(2).test));
}

#[test]
fn few_images_of_a_class_are_trained_on_first_then_tested_then_validated() {
    // Class 0 has one image, class 1 two, class 2 three.
    let listing = Listing {
        train: samples(&[0, 1, 1, 2, 2, 2], 0),
        val: None,
        test: None,
    };
    let splits = divide(listing, 3, &DataOptions::default()).unwrap();
    let labels = |split: &[Sample]| split.iter().map(|sample| sample.label).collect::<Vec<_>>();
    assert_eq!(labels(&splits.train), [0, 1, 2]);
    assert_eq!(labels(&splits.test), [1, 2]);
    assert_eq!(labels(&splits.val), [2]);
}

#[test]
fn a_limit_keeps_one_image_of_every_class() {
    // 1000 images of class 0, one each of classes 1 to 9.
    let labels: Vec<usize> = vec![0; 1000].into_iter().chain(1..10).collect();
    let listing = Listing {
        train: samples(&labels, 0),
        val: None,
        test: Some(Vec::new()),
    };
    let options = DataOptions {
        limit: Some(20),
        val_fraction: 0.0,
        ..DataOptions::default()
    };
    let splits = divide(listing.clone(), 10, &options).unwrap();
    let mut got: Vec<usize> = splits.train.iter().map(|sample| sample.label).collect();
    got.sort_unstable();
    assert_eq!(
        got,
        vec![0; 11].into_iter().chain(1..10).collect::<Vec<_>>()
    );
    let options = DataOptions {
        limit: Some(19),
        ..DataOptions::default()
    };
    let error = divide(listing, 10, &options).unwrap_err().to_string();
    assert!(
        error.contains("is 19, but must be at least 20, 2 for each of 10 classes"),
        "{error}"
    );
}

#[test]
fn fractions_out_of_range_are_errors() {
    for fraction in [-0.1, 1.0, f64::NAN] {
        let val = DataOptions {
            val_fraction: fraction,
            ..DataOptions::default()
        };
        let test = DataOptions {
            test_fraction: fraction,
            ..DataOptions::default()
        };
        for options in [val, test] {
            assert!(matches!(
                Dataset::digits(&options),
                Err(DataError::Option { .. })
            ));
        }
    }
}
