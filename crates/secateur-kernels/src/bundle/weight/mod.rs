//! The gradient of the weight of a convolution.

mod lanes;
pub(super) mod sums;
mod tiles;

use super::SMALL;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::amx;
use super::geometry::Correlation;
use super::winograd;
use crate::tile::TileSize;

/// So much work for each product is more than lane by lane.
const WASTE: usize = 2;
/// Numbers of a gradient that sums are kept of beside it.
const LARGEST: usize = 1 << 24;

/// Writes all of `dw`, `[output, channel, tap]`, for a correlation from the input to the output.
pub(super) fn gradient(correlation: &Correlation, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if let Some(amx) = amx::for_gradient(correlation) {
        return amx::gradient(amx, correlation, x, dy, dw);
    }
    let (turned, work) = tiles::best(correlation);
    let products = correlation.outputs * correlation.channels * correlation.taps();
    // Where a bundle fills a register, and that is a small one, turning takes longer than it saves.
    let fills = correlation.images == SMALL && TileSize::get().width == 2 * SMALL;
    if work < WASTE * products && !fills && dw.len() <= LARGEST {
        if winograd::gradient_is_faster(correlation) {
            winograd::gradient(correlation, turned, x, dy, dw);
        } else {
            tiles::gradient(correlation, turned, x, dy, dw);
        }
    } else {
        lanes::gradient(correlation, x, dy, dw);
    }
}
