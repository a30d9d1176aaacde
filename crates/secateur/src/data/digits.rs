//! The 1,797 handwritten digits of the UCI repository (Alpaydin and Kaynak, "Optical Recognition of
//! Handwritten Digits"), 8x8 pixels of 17 grey levels, which come with a dependency.

use super::packed::Packed;

const SIDE: usize = 8;
/// The whitest level.
const LEVELS: f32 = 16.0;

/// All digits, levels 0..16 scaled to 0..255. They have no test split of their own.
pub(super) fn read() -> Packed {
    let digits = smartcore::dataset::digits::load_dataset();
    let samples = digits
        .data
        .iter()
        .map(|level| (level * (255.0 / LEVELS)).round().clamp(0.0, 255.0) as u8)
        .collect();
    let labels: Vec<usize> = digits.target.iter().map(|&label| label as usize).collect();
    Packed {
        height: SIDE,
        width: SIDE,
        channels: 1,
        samples,
        train: labels.len(),
        has_test: false,
        labels,
        classes: (0..10).map(|digit| digit.to_string()).collect(),
    }
}
