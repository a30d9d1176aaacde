//! Intel's matrix registers (AMX), which multiply numbers of 8 significant bits, `bf16`, and sum in `f32`.
//!
//! A float of 24 significant bits is the sum of three such numbers ([`split`]). Of the nine products of two floats' parts
//! six are computed; the others are less than what rounding the product to a float takes from it.

mod registers;
pub(crate) mod split;

pub(crate) use registers::{Amx, Order, PRODUCTS, Products, Step, Tiles};

/// Rows of a register, and numbers of 4 bytes in a row.
pub(crate) const SIDE: usize = 16;
/// Numbers of 4 bytes in a register.
pub(crate) const TILE: usize = SIDE * SIDE;
/// Floats of a block of two by two registers.
pub(crate) const BLOCK: usize = 4 * TILE;
/// Numbers over which a product of two registers sums: two to each 4 bytes.
pub(crate) const DEPTH: usize = 2 * SIDE;
/// Parts of a float.
pub(crate) const PARTS: usize = 3;
