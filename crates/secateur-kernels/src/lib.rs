//! CPU kernels of convolutional networks, forward and backward, on plain `f32` slices.
//!
//! Values of images are ordered as a [`Layout`] says: `[images, channels, height, width]`, the last axis
//! fastest, or bundles of images that stand side by side. Work is divided
//! into parts that depend on shapes alone and sums are taken in one order, so results do not depend
//! on the number of threads. Loops are compiled for each instruction set by `pulp` and the best one is
//! chosen at run time; products of whole planes are `faer`'s. Functions that are passed in are compiled with the
//! caller, and as fast as that is optimised; those that networks spend time in are written out here.

pub mod aligned;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod bundle;
pub mod channel;
mod clamp;
pub mod conv;
mod copy;
pub mod elementwise;
pub mod gram;
pub mod layout;
mod level;
mod matrix;
pub mod norm;
pub mod packed;
pub mod pool;
mod scratch;
mod tile;
mod transpose;
mod window;

pub use clamp::Clamp;
pub use layout::Layout;
pub use window::Window;
