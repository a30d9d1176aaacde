//! Batches: order, random changes, and independence of threads, batch size and memory.

use super::*;

/// What a pass gives: all input values and labels, in order, without regard to batches.
fn pass(
    data: &Dataset,
    split: Split,
    preprocess: &Preprocess,
    order: Order,
    augment: Augment,
    batch_size: usize,
) -> (Vec<f32>, Vec<usize>) {
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for batch in data.batches(split, preprocess, order, augment, batch_size) {
        let batch = batch.unwrap();
        assert_eq!(batch.images.shape()[0], batch.labels.len());
        values.extend(batch.images.iter());
        labels.extend(batch.labels);
    }
    (values, labels)
}

fn unit(height: usize, width: usize, channels: usize) -> Preprocess {
    Preprocess::parse("unit", height, width, channels).unwrap()
}

const EPOCH: Order = Order::Shuffled { seed: 3, epoch: 1 };

#[test]
fn batches_do_not_depend_on_threads_batch_size_or_memory() {
    let folder = tempfile::tempdir().unwrap();
    cifar10(folder.path(), 50, 20);
    for (height, width) in [(32, 32), (17, 23)] {
        let mut seen = Vec::new();
        for (threads, batch_size, cache_bytes) in
            [(1, 8, 1 << 30), (2, 8, 1 << 30), (2, 13, 5000), (1, 100, 0)]
        {
            let options = DataOptions {
                cache_bytes,
                ..DataOptions::default()
            };
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            seen.push(pool.install(|| {
                let data = Dataset::open(folder.path(), &options).unwrap();
                let input = unit(height, width, 3);
                // Twice: what is kept after the first pass changes nothing.
                let first = pass(
                    &data,
                    Split::Train,
                    &input,
                    EPOCH,
                    Augment::CropFlip,
                    batch_size,
                );
                assert!(
                    first
                        == pass(
                            &data,
                            Split::Train,
                            &input,
                            EPOCH,
                            Augment::CropFlip,
                            batch_size
                        )
                );
                first
            }));
        }
        assert_eq!(seen[0].1.len(), 40);
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn a_single_thread_that_waits_for_its_batches_gets_them() {
    // The caller holds the only thread of its pool while it waits.
    let data = Dataset::digits(&DataOptions::default()).unwrap();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let batches = pool.install(|| {
        data.batches(
            Split::Test,
            &unit(8, 8, 1),
            Order::Stored,
            Augment::None,
            50,
        )
        .filter(Result::is_ok)
        .count()
    });
    assert_eq!(batches, data.len(Split::Test).div_ceil(50));
}

#[test]
fn another_epoch_or_seed_gives_another_order_of_the_same_images() {
    let data = Dataset::digits(&DataOptions::default()).unwrap();
    let labels = |order| {
        pass(
            &data,
            Split::Train,
            &unit(8, 8, 1),
            order,
            Augment::None,
            64,
        )
        .1
    };
    let stored = labels(Order::Stored);
    assert_eq!(stored, data.labels(Split::Train));
    let first = labels(EPOCH);
    assert_eq!(first, labels(EPOCH));
    let orders = [
        stored,
        first.clone(),
        labels(Order::Shuffled { seed: 3, epoch: 2 }),
        labels(Order::Shuffled { seed: 4, epoch: 1 }),
    ];
    for (at, order) in orders.iter().enumerate() {
        assert_eq!(counts(order), counts(&first));
        assert!(orders[..at].iter().all(|other| other != order));
    }
}

#[test]
fn the_validation_split_is_never_taken_from_the_test_images() {
    let folder = tempfile::tempdir().unwrap();
    cifar10(folder.path(), 100, 100);
    let data = Dataset::open(folder.path(), &DataOptions::default()).unwrap();
    // Image `i` starts with sample `i`; those from 100 on are for testing.
    let starts = |split| {
        raw(&data, split)
            .iter()
            .map(|image| image[0] as usize)
            .collect::<Vec<_>>()
    };
    let (train, val) = (starts(Split::Train), starts(Split::Val));
    assert_eq!(starts(Split::Test), (100..200).collect::<Vec<_>>());
    assert_eq!((train.len(), val.len()), (90, 10));
    let mut both = [train, val].concat();
    both.sort_unstable();
    assert_eq!(both, (0..100).collect::<Vec<_>>());
    assert_eq!(
        counts(data.labels(Split::Val))
            .into_values()
            .collect::<Vec<_>>(),
        [1; 10]
    );
}

/// The change of an image found by trying all: which shift and flip of `stored` gives `changed`.
fn found(stored: &[f32], changed: &[f32], side: i64) -> Vec<(i64, i64, bool)> {
    let most = side / 8;
    let mut found = Vec::new();
    for (down, right, flip) in
        (-most..=most).flat_map(|d| (-most..=most).flat_map(move |r| [(d, r, false), (d, r, true)]))
    {
        let mut expected = Vec::new();
        for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
            let x = if flip { side - 1 - x } else { x };
            let (y, x) = (y + down, x + right);
            let inside = (0..side).contains(&y) && (0..side).contains(&x);
            expected.push(if inside {
                stored[(y * side + x) as usize]
            } else {
                0.0
            });
        }
        if expected == changed {
            found.push((down, right, flip));
        }
    }
    found
}

#[test]
fn crops_shift_by_up_to_an_eighth_fill_with_zero_and_flip_half_of_the_time() {
    let data = Dataset::digits(&DataOptions {
        limit: Some(400),
        ..DataOptions::default()
    })
    .unwrap();
    // A mean, so that zero is not black.
    let input = Preprocess::parse("mean=0.3;std=0.2;scale=1/255", 16, 16, 1).unwrap();
    let side = 16;
    let stored = pass(
        &data,
        Split::Train,
        &input,
        Order::Stored,
        Augment::None,
        64,
    )
    .0;
    for (augment, flips) in [(Augment::Crop, false), (Augment::CropFlip, true)] {
        let changed = pass(&data, Split::Train, &input, Order::Stored, augment, 64).0;
        let mut shifts = BTreeMap::new();
        let (mut flipped, mut images) = (0, 0);
        for (a, b) in stored.chunks(256).zip(changed.chunks(256)) {
            let found = found(a, b, side);
            assert!(
                !found.is_empty(),
                "no shift within an eighth gives this image"
            );
            // A few images are symmetrical enough to be explained twice.
            if let [(down, right, flip)] = found[..] {
                *shifts.entry((down, right)).or_insert(0) += 1;
                flipped += usize::from(flip);
                images += 1;
            }
        }
        assert!(images > 300);
        assert_eq!(shifts.len(), 25, "all shifts of -2..=2 occur: {shifts:?}");
        // 360 throws of a coin: beyond 5 standard deviations is no chance.
        let deviation = (flipped as f64 - images as f64 / 2.0).abs() / (images as f64 / 4.0).sqrt();
        assert!(if flips { deviation < 5.0 } else { flipped == 0 });
    }
}

#[test]
fn a_preprocessing_that_cannot_be_applied_is_the_only_item() {
    let data = Dataset::digits(&DataOptions::default()).unwrap();
    let broken = Preprocess {
        std: vec![],
        ..unit(8, 8, 1)
    };
    let items: Vec<_> = data
        .batches(Split::Train, &broken, Order::Stored, Augment::None, 8)
        .collect();
    assert!(matches!(items[..], [Err(DataError::Preprocess(_))]));
}

#[test]
fn batches_tell_how_many_are_left_and_can_be_abandoned() {
    let data = Dataset::digits(&DataOptions::default()).unwrap();
    let mut batches = data.batches(
        Split::Train,
        &unit(8, 8, 3),
        Order::Stored,
        Augment::None,
        100,
    );
    let all = data.len(Split::Train).div_ceil(100);
    assert_eq!(batches.len(), all);
    let first = batches.next().unwrap().unwrap();
    assert_eq!(first.images.shape(), [100, 3, 8, 8]);
    assert_eq!(batches.len(), all - 1);
    drop(batches);
    let empty = DataOptions {
        val_fraction: 0.0,
        ..DataOptions::default()
    };
    let data = Dataset::digits(&empty).unwrap();
    assert_eq!(
        data.batches(Split::Val, &unit(8, 8, 1), Order::Stored, Augment::None, 0)
            .count(),
        0
    );
    assert_eq!(
        data.batches(Split::Test, &unit(8, 8, 1), Order::Stored, Augment::None, 0)
            .len(),
        data.len(Split::Test)
    );
}

#[test]
fn an_image_changes_anew_in_each_epoch_and_seed_wherever_it_stands() {
    let data = Dataset::digits(&DataOptions {
        seed: 9,
        ..DataOptions::default()
    })
    .unwrap();
    let input = unit(16, 16, 1);
    // How each image looks in a pass, in the order of the store: found by the image before the change.
    let looks = |order, split| {
        let plain = pass(&data, split, &input, order, Augment::None, 32).0;
        let changed = pass(&data, split, &input, order, Augment::CropFlip, 32).0;
        let mut looks: Vec<_> = plain
            .chunks(256)
            .zip(changed.chunks(256))
            .map(|(a, b)| (bits(a), bits(b)))
            .collect();
        looks.sort_unstable();
        looks
    };
    let epoch = |seed, epoch| looks(Order::Shuffled { seed, epoch }, Split::Test);
    let same = |a: &[(Vec<u32>, Vec<u32>)], b: &[(Vec<u32>, Vec<u32>)]| {
        a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
    };
    let first = epoch(9, 0);
    // The order of an epoch is another one, the changes are those of the seed and the epoch.
    assert_eq!(first, looks(Order::Stored, Split::Test));
    assert_eq!(first, epoch(9, 0));
    // One in 50 changes is the same by chance.
    assert!(same(&first, &epoch(9, 1)) < 0.1);
    assert!(same(&first, &epoch(8, 0)) < 0.1);
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
