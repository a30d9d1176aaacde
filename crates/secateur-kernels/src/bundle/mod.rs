//! Kernels for values in [`Bundles`](crate::Layout::Bundles).

pub(crate) mod conv;
mod correlate;
mod depthwise;
mod geometry;
pub(crate) mod pool;
mod product;
mod weight;
