//! What is kept in memory, and how much.

use super::super::pixels::View;
use super::super::store::Source;
use super::*;

/// Ten images of 4x6 in colour, all samples of image `i` being `i * 20`.
fn store(cache_bytes: u64) -> Store {
    let samples = (0..10u8).flat_map(|i| [i * 20; 72]).collect();
    Store::new(
        Source::Packed {
            height: 4,
            width: 6,
            channels: 3,
            samples,
        },
        10,
        cache_bytes,
    )
}

fn samples(store: &Store, item: usize, size: (usize, usize), channels: usize) -> Vec<u8> {
    let image = store.fitted(item, size.0, size.1, channels).unwrap();
    let View {
        height,
        width,
        channels: got,
        samples,
    } = image.view();
    assert_eq!((height, width, got), (size.0, size.1, channels));
    samples.to_vec()
}

#[test]
fn an_image_is_given_at_the_size_asked_for_whatever_was_kept() {
    let store = store(1 << 20);
    for (size, channels) in [
        ((4, 6), 3),
        ((8, 8), 3),
        ((2, 3), 3),
        ((8, 8), 1),
        ((8, 8), 3),
        ((4, 6), 1),
        ((4, 6), 3),
    ] {
        for item in [0, 3, 9] {
            let got = samples(&store, item, size, channels);
            assert_eq!(got, vec![item as u8 * 20; size.0 * size.1 * channels]);
        }
    }
}

#[test]
fn memory_is_used_up_to_the_limit_and_given_back() {
    // Room for three images of 8x8 in colour.
    let store = store(3 * 192);
    for item in 0..10 {
        samples(&store, item, (8, 8), 3);
    }
    assert_eq!(store.kept_bytes(), 3 * 192);
    // Twelve times as small: those that were kept make room for all.
    for _ in 0..2 {
        for item in 0..10 {
            samples(&store, item, (4, 4), 1);
        }
    }
    assert_eq!(store.kept_bytes(), 10 * 16);
    // What fits as stored is not kept twice.
    samples(&store, 0, (4, 6), 3);
    assert_eq!(store.kept_bytes(), 10 * 16);
}
