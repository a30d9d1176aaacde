//! Tests of data sets as a whole, on small data made in temporary folders and on the shared data.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod batches;
mod folder;
mod packed;
mod preprocess;
mod shared;
mod split;
mod store;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// An IDX file of unsigned bytes.
fn idx(sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, sizes.len() as u8];
    for size in sizes {
        file.extend(size.to_be_bytes());
    }
    file.extend(bytes);
    file
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `count` records of a CIFAR file; image `i` has label `i % classes` and its samples start at `i`.
fn cifar(count: usize, classes: usize, first: usize, coarse: bool) -> Vec<u8> {
    let mut file = Vec::new();
    for i in first..first + count {
        if coarse {
            file.push(0);
        }
        file.push((i % classes) as u8);
        file.extend((0..3072).map(|at| ((i + at) % 251) as u8));
    }
    file
}

/// A CIFAR-10 folder of `train` and `test` images.
fn cifar10(folder: &Path, train: usize, test: usize) {
    fs::write(folder.join("data_batch_1.bin"), cifar(train, 10, 0, false)).unwrap();
    fs::write(folder.join("test_batch.bin"), cifar(test, 10, train, false)).unwrap();
}

fn counts(labels: &[usize]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for &label in labels {
        *counts.entry(label).or_default() += 1;
    }
    counts
}

/// All pixels of a split, image by image, as a network without preprocessing sees them.
fn raw(data: &Dataset, split: Split) -> Vec<Vec<f32>> {
    let (height, width, channels) = data.native_size();
    let preprocess = Preprocess::parse("scale=1", height, width, channels).unwrap();
    let mut images = Vec::new();
    for batch in data.batches(split, &preprocess, Order::Stored, Augment::None, 7) {
        let batch = batch.unwrap();
        for image in batch.images.outer_iter() {
            images.push(image.iter().copied().collect());
        }
    }
    images
}
