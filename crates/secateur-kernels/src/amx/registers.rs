//! The instructions.

use super::{PARTS, SIDE, TILE};
use pulp::x86::V4;
use std::marker::PhantomData;

/// That the processor has matrix registers and the system lets this process use them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx {
    /// Such processors have AVX-512, too.
    pub simd: V4,
    _private: (),
}

impl Amx {
    /// Asks the processor and the system.
    #[allow(unsafe_code)]
    pub(crate) fn try_new() -> Option<Self> {
        /// Leaf 7 of what the processor tells of itself, in `edx`: `amx-bf16` and `amx-tile`.
        const FEATURES: u32 = 1 << 22 | 1 << 24;
        /// Asks for the permission to use a kind of registers; the state of those of matrices.
        const ASK: libc::c_int = 0x1023;
        const STATE: libc::c_ulong = 18;
        let simd = V4::try_new()?;
        let has_leaf = core::arch::x86_64::__cpuid(0).eax >= 7;
        if !has_leaf || core::arch::x86_64::__cpuid_count(7, 0).edx & FEATURES != FEATURES {
            return None;
        }
        // SAFETY: the call changes nothing but what this process may use.
        let refused = unsafe { libc::syscall(libc::SYS_arch_prctl, ASK, STATE) };
        (refused == 0).then_some(Self { simd, _private: () })
    }

    /// Runs `work` with the registers of this thread. `work` must not do so again, as they are given back when it ends: the
    /// next product would end the process.
    #[allow(unsafe_code)]
    pub(crate) fn with_tiles<R>(self, work: impl FnOnce(&mut Tiles) -> R) -> R {
        #[repr(C, align(64))]
        struct Shapes {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            row_bytes: [u16; 16],
            rows: [u8; 16],
        }
        let mut shapes = Shapes {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        shapes.row_bytes[..8].fill(4 * SIDE as u16);
        shapes.rows[..8].fill(SIDE as u8);
        // SAFETY: that there is an `Amx` says that the processor knows the instruction and the system allows it. The 64 bytes
        // are a valid description of eight registers of 16 rows of 64 bytes. `Tiles` gives the registers back when it ends.
        unsafe {
            core::arch::asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly));
        }
        let mut tiles = Tiles(PhantomData);
        work(&mut tiles)
    }
}

/// Where the operands of one product of blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Which of the operands of rows.
    pub a: u32,
    /// Where the operand of each register of columns starts, in numbers of 4 bytes.
    pub b: [u32; 2],
}

/// How operands of columns are stored, in numbers of 4 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// From a row to the next one.
    pub row: usize,
    /// From a part to the next one.
    pub part: usize,
}

impl Order {
    /// One register after the other.
    pub(crate) const DENSE: Self = Self {
        row: SIDE,
        part: TILE,
    };
}

/// The registers of this thread, for 16 x 16 numbers each.
pub(crate) struct Tiles(PhantomData<*const ()>);

impl Drop for Tiles {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: there is such a value only where the registers were taken, on this thread.
        unsafe { core::arch::asm!("tilerelease", options(nostack, nomem)) }
    }
}

macro_rules! when {
    (true, $text:literal) => {
        $text
    };
    (true, true, $text:literal) => {
        $text
    };
    ($($other:tt),* $(,)?) => {
        ""
    };
}

/// Products of two operands in registers 4 to 7, added to the sums in registers 0 to 3.
macro_rules! products {
    ($rows:tt, $columns:tt) => {
        concat!(
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            when!($columns, "tdpbf16ps tmm1, tmm4, tmm7\n"),
            when!($rows, "tdpbf16ps tmm2, tmm5, tmm6\n"),
            when!($rows, $columns, "tdpbf16ps tmm3, tmm5, tmm7\n"),
        )
    };
}

/// Runs instructions for blocks of one or two rows of registers and as many columns.
macro_rules! for_size {
    ($size:expr, $run:ident!($($operand:tt)*)) => {
        match $size {
            [1, 1] => { $run!(false, false, $($operand)*); }
            [1, 2] => { $run!(false, true, $($operand)*); }
            [2, 1] => { $run!(true, false, $($operand)*); }
            [2, 2] => { $run!(true, true, $($operand)*); }
            _ => unreachable!("a block has one or two rows and columns"),
        }
    };
}

macro_rules! load {
    ($rows:tt, $columns:tt, $from:expr) => {
        core::arch::asm!(
            "/* {below} */",
            "tileloadd tmm0, [{c} + {line}*1]",
            when!($columns, "tileloadd tmm1, [{c} + {line}*1 + 1024]"),
            when!($rows, "tileloadd tmm2, [{c} + {line}*1 + {below}]"),
            when!($rows, $columns, "tileloadd tmm3, [{c} + {line}*1 + 3072]"),
            c = in(reg) $from.as_ptr(),
            line = in(reg) 4 * SIDE,
            below = const if $columns { 8 * TILE } else { 4 * TILE },
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            options(nostack, readonly, preserves_flags),
        )
    };
}

macro_rules! store {
    ($rows:tt, $columns:tt, $to:expr) => {
        core::arch::asm!(
            "/* {below} */",
            "tilestored [{c} + {line}*1], tmm0",
            when!($columns, "tilestored [{c} + {line}*1 + 1024], tmm1"),
            when!($rows, "tilestored [{c} + {line}*1 + {below}], tmm2"),
            when!($rows, $columns, "tilestored [{c} + {line}*1 + 3072], tmm3"),
            c = in(reg) $to.as_mut_ptr(),
            line = in(reg) 4 * SIDE,
            below = const if $columns { 8 * TILE } else { 4 * TILE },
            options(nostack, preserves_flags),
        )
    };
}

/// One of the products of a step's parts.
macro_rules! add {
    ($rows:tt, $columns:tt, $a:tt, $b:tt, $at:expr) => {{
        let at: At = $at;
        // SAFETY: that there are `Tiles` says that the registers are this thread's. Registers of 16 rows of 64 bytes are read,
        // the rows `at.row` numbers of 4 bytes apart or, of `a`, 16: `Tiles::add` has checked that all of them lie in its
        // slices.
        unsafe { core::arch::asm!(
            "/* {a} {b} {line} {row} {below} {other} */",
            when!($a, "tileloadd tmm4, [{a} + {line}*1]"),
            when!($a, $rows, "tileloadd tmm5, [{a} + {line}*1 + {below}]"),
            when!($b, "tileloadd tmm6, [{b} + {row}*1]"),
            when!($b, $columns, "tileloadd tmm7, [{other} + {row}*1]"),
            products!($rows, $columns),
            line = in(reg) 4 * SIDE,
            row = in(reg) 4 * at.row,
            a = in(reg) at.a,
            b = in(reg) at.b[0],
            other = in(reg) at.b[1],
            below = const 4 * PARTS * TILE,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly, preserves_flags),
        ) }
    }};
}

/// Where the operands of one product of parts are: the second row of registers comes after the parts of the first.
#[derive(Clone, Copy)]
struct At {
    a: *const u32,
    b: [*const u32; 2],
    row: usize,
}

/// Products of parts of a step: the six largest.
pub(crate) const PRODUCTS: usize = 6;

/// A step: which parts are multiplied, and which of those are in registers from the product before.
macro_rules! step {
    ($rows:tt, $columns:tt, $at:ident, $meanwhile:ident) => {
        add!($rows, $columns, true, true, $at(0, 0));
        $meanwhile();
        add!($rows, $columns, false, true, $at(0, 1));
        $meanwhile();
        add!($rows, $columns, false, true, $at(0, 2));
        $meanwhile();
        add!($rows, $columns, true, true, $at(1, 1));
        $meanwhile();
        add!($rows, $columns, false, true, $at(1, 0));
        $meanwhile();
        add!($rows, $columns, true, false, $at(2, 0));
        $meanwhile();
    };
}

/// Some products of blocks.
#[derive(Clone, Copy)]
pub(crate) struct Products<'a> {
    /// For each step's operand of rows, for each row of registers, its parts, one register after the other.
    pub a: &'a [u32],
    /// Operands of columns.
    pub b: &'a [u32],
    pub order: Order,
    pub steps: &'a [Step],
}

/// Sums of a block stay in the registers from call to call, and operands from product to product: nothing else of the program
/// uses those, as no compiler does by itself. A block has one or two rows and columns of registers.
impl Tiles {
    /// The sums become those, or zero.
    ///
    /// # Panics
    /// Where they are fewer than those of the block.
    #[allow(unsafe_code)]
    pub(crate) fn start(&mut self, size: [usize; 2], from: Option<&[f32]>) {
        let Some(from) = from else {
            // SAFETY: that there are `Tiles` says that the registers are this thread's.
            return unsafe {
                core::arch::asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, nomem, preserves_flags),
                )
            };
        };
        assert!(from.len() >= size[0] * size[1] * TILE, "sums are whole");
        // SAFETY: as above; so many registers of 16 rows of 64 bytes are read, one after the other.
        unsafe { for_size!(size, load!(from)) }
    }

    /// Adds products to the sums. After each of a step's six products of parts `meanwhile` is called: what it does in up to
    /// a hundred instructions takes no time, as the registers multiply that long.
    ///
    /// # Panics
    /// Where an operand would be read beyond its end.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub(crate) fn add(&mut self, size: [usize; 2], of: Products<'_>, mut meanwhile: impl FnMut()) {
        let of_step = size[0] * PARTS * TILE;
        let of_b = (PARTS - 1) * of.order.part + (SIDE - 1) * of.order.row + SIDE;
        for step in of.steps {
            let a = &of.a[step.a as usize * of_step..][..of_step];
            let b = [0, size[1] - 1].map(|column| &of.b[step.b[column] as usize..][..of_b]);
            let at = |of_a: usize, of_b: usize| At {
                a: a[of_a * TILE..].as_ptr(),
                b: b.map(|b| b[of_b * of.order.part..].as_ptr()),
                row: of.order.row,
            };
            for_size!(size, step!(at, meanwhile))
        }
    }

    /// Writes the sums: a register after the other, row by row.
    ///
    /// # Panics
    /// Where there is not so much place.
    #[allow(unsafe_code)]
    pub(crate) fn store(&mut self, size: [usize; 2], to: &mut [f32]) {
        assert!(
            to.len() >= size[0] * size[1] * TILE,
            "there is place for all"
        );
        // SAFETY: as above; so many registers of 16 rows of 64 bytes are written, one after the other.
        unsafe { for_size!(size, store!(to)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amx::{DEPTH, split::split};

    /// Numbers from -1 to 1.
    fn number(i: usize) -> f32 {
        ((i * 7919 + i / 13) % 2003) as f32 / 1001.0 - 1.0
    }

    /// An operand `[step][register][row or column][number]` as its registers are: rows of pairs, or pairs of rows.
    fn operand(
        amx: Amx,
        registers: usize,
        by_pairs: bool,
        steps: usize,
        value: impl Fn(usize, usize, usize) -> f32,
    ) -> Vec<u32> {
        let mut packed = vec![0; steps * registers * PARTS * TILE];
        for (index, tile) in packed.chunks_exact_mut(PARTS * TILE).enumerate() {
            let (step, register) = (index / registers, index % registers);
            for row in 0..SIDE {
                let of = |k: usize| value(step, register * SIDE + row, k);
                let parts = amx.simd.vectorize(
                    #[inline(always)]
                    || {
                        split(
                            amx.simd,
                            std::array::from_fn(of),
                            std::array::from_fn(|k| of(k + SIDE)),
                        )
                    },
                );
                for (part, parts) in parts.iter().enumerate() {
                    for (k, pair) in parts.iter().enumerate() {
                        let at = if by_pairs {
                            k * SIDE + row
                        } else {
                            row * SIDE + k
                        };
                        tile[part * TILE + at] = *pair;
                    }
                }
            }
        }
        packed
    }

    fn multiply(tiles: &mut Tiles, size: [usize; 2], of: Products<'_>, keep: bool, c: &mut [f32]) {
        tiles.start(size, keep.then_some(&*c));
        tiles.add(size, of, || {});
        tiles.store(size, c);
    }

    #[test]
    fn blocks_are_products_to_the_precision_of_floats() {
        let Some(amx) = Amx::try_new() else { return };
        let n_steps = 5;
        for rows in [1, 2] {
            for columns in [1, 2] {
                let of_a =
                    |step: usize, row: usize, k: usize| number(step * 4096 + row * DEPTH + k);
                let of_b = |step: usize, column: usize, k: usize| {
                    number(9 + step * 8192 + column * DEPTH + k)
                };
                let a = operand(amx, rows, false, n_steps, of_a);
                let b = operand(amx, columns, true, n_steps, of_b);
                let of_register = PARTS * TILE;
                let steps: Vec<Step> = (0..n_steps)
                    .map(|step| {
                        let first = step * columns * of_register;
                        Step {
                            a: step as u32,
                            b: [first as u32, (first + of_register) as u32],
                        }
                    })
                    .collect();
                let mut c = vec![1.0; rows * columns * TILE];
                for keep in [false, true] {
                    amx.with_tiles(|tiles| {
                        multiply(
                            tiles,
                            [rows, columns],
                            Products {
                                a: &a,
                                b: &b,
                                order: Order::DENSE,
                                steps: &steps,
                            },
                            keep,
                            &mut c,
                        )
                    });
                    let times = if keep { 2.0 } else { 1.0 };
                    for (index, value) in c.iter().enumerate() {
                        let (register, at) = (index / TILE, index % TILE);
                        let row = register / columns * SIDE + at / SIDE;
                        let column = register % columns * SIDE + at % SIDE;
                        let sum: f64 = (0..n_steps)
                            .flat_map(|step| (0..DEPTH).map(move |k| (step, k)))
                            .map(|(step, k)| {
                                f64::from(of_a(step, row, k)) * f64::from(of_b(step, column, k))
                            })
                            .sum();
                        assert!(
                            (f64::from(*value) - times * sum).abs() < 5e-5,
                            "{rows} {columns} {index}: {value} {sum}"
                        );
                    }
                }
            }
        }
    }
}
