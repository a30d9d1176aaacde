//! Kernels for values in [`Bundles`](crate::Layout::Bundles).

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod block;
pub(crate) mod conv;
mod correlate;
mod depthwise;
mod geometry;
pub(crate) mod gram;
mod joined;
mod outer;
mod panels;
pub(crate) mod pool;
mod product;
mod weight;
mod winograd;

/// Images of the bundles that do not fill a register of every instruction set, let alone a row of sums: those of
/// several positions, or of several channels, share one.
const SMALL: usize = 8;
