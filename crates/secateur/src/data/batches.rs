//! Batches of preprocessed images, prepared in parallel ahead of their use.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use ndarray::{ArcArray, IxDyn};
use rand::Rng;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::preprocess::Change;
use super::random::{Purpose, generator};
use super::split::Sample;
use super::{Augment, Batch, DataError, Inner, Order, Preprocess};

/// How many finished batches wait to be taken; one more is in the making.
const AHEAD: usize = 1;

/// The batches of one pass over a split, in order. After an error there are no more.
#[derive(Debug)]
pub struct Batches {
    receiver: Receiver<Result<Batch, DataError>>,
    left: usize,
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let batch = self.receiver.recv().unwrap_or_else(|_| {
            Err(DataError::Loader(
                "it ended before the last batch".to_owned(),
            ))
        });
        if batch.is_err() {
            self.left = 0;
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Batches {}

/// What each batch of a pass is made with.
pub(super) struct Pass {
    pub data: Arc<Inner>,
    pub preprocess: Preprocess,
    pub augment: Augment,
    pub seed: u64,
    pub epoch: u64,
    pub samples: Vec<Sample>,
    pub batch_size: usize,
}

/// The order of a pass, and the seed and the epoch of its random changes.
pub(super) fn ordered(
    mut samples: Vec<Sample>,
    order: Order,
    seed: u64,
) -> (Vec<Sample>, u64, u64) {
    match order {
        Order::Stored => (samples, seed, 0),
        Order::Shuffled { seed, epoch } => {
            samples.shuffle(&mut generator(seed, Purpose::Order { epoch }));
            (samples, seed, epoch)
        }
    }
}

/// Starts a thread that prepares the batches of `pass`, or one that gives its error.
pub(super) fn start(pass: Pass) -> Batches {
    let (sender, receiver) = sync_channel(AHEAD);
    let checked = pass.preprocess.check().map_err(DataError::from);
    let left = if checked.is_err() {
        1
    } else {
        pass.samples.len().div_ceil(pass.batch_size)
    };
    // The channel has room for one error, and its receiver still lives.
    if let Err(error) = checked {
        let _ = sender.send(Err(error));
        return Batches { receiver, left };
    }
    let failed = sender.clone();
    let thread = thread::Builder::new()
        .name("secateur-batches".to_owned())
        .spawn(move || {
            let tables = pass.preprocess.tables();
            for samples in pass.samples.chunks(pass.batch_size) {
                let batch = match pass.data.pool() {
                    Some(pool) => pool.install(|| prepare(&pass, &tables, samples)),
                    None => prepare(&pass, &tables, samples),
                };
                let stop = batch.is_err();
                // A receiver that is gone wants no more batches.
                if sender.send(batch).is_err() || stop {
                    return;
                }
            }
        });
    if let Err(error) = thread {
        let _ = failed.send(Err(DataError::Loader(error.to_string())));
    }
    Batches { receiver, left }
}

fn prepare(pass: &Pass, tables: &[[f32; 256]], samples: &[Sample]) -> Result<Batch, DataError> {
    let Preprocess {
        height,
        width,
        channels,
        ..
    } = pass.preprocess;
    let channels = channels.channels();
    let len = channels * height * width;
    let mut images = vec![0.0; samples.len() * len];
    images
        .par_chunks_exact_mut(len)
        .zip(samples)
        .try_for_each(|(input, sample)| {
            let image = pass
                .data
                .store
                .fitted(sample.item, height, width, channels)?;
            let change = change(pass, sample.item);
            pass.preprocess.write(tables, image.view(), change, input);
            Ok::<(), DataError>(())
        })?;
    let shape = IxDyn(&[samples.len(), channels, height, width]);
    let images = ArcArray::from_shape_vec(shape, images)
        .map_err(|error| DataError::Loader(error.to_string()))?;
    Ok(Batch {
        images,
        labels: samples.iter().map(|sample| sample.label).collect(),
    })
}

/// The random change of one image: a function of the seed, the epoch and the image alone.
fn change(pass: &Pass, item: usize) -> Change {
    let flips = match pass.augment {
        Augment::None => return Change::default(),
        Augment::Crop => false,
        Augment::CropFlip => true,
    };
    let mut random = generator(
        pass.seed,
        Purpose::Augment {
            epoch: pass.epoch,
            item,
        },
    );
    let mut shift = |side: usize| {
        let most = (side / 8) as i32;
        random.random_range(-most..=most) as isize
    };
    let (down, right) = (shift(pass.preprocess.height), shift(pass.preprocess.width));
    Change {
        down,
        right,
        flip: flips && random.random_bool(0.5),
    }
}
