//! Kernels for values in [`Bundles`](crate::Layout::Bundles).

mod block;
pub(crate) mod conv;
mod correlate;
mod depthwise;
mod geometry;
mod joined;
pub(crate) mod pool;
mod product;
mod weight;
