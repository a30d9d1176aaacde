//! The instruction set that the kernels use: the best one that the processor has.

use pulp::{Arch, WithSimd};
use std::sync::OnceLock;

/// Environment variable that asks for a lesser instruction set: `avx2` or `scalar`. Tests use it.
const VARIABLE: &str = "SECATEUR_SIMD";

pub(crate) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| choose(std::env::var(VARIABLE).ok().as_deref()))
}

fn choose(wanted: Option<&str>) -> Arch {
    match wanted {
        Some("scalar") => Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        Some("avx2") => pulp::x86::V3::try_new().map_or_else(Arch::new, Arch::V3),
        _ => Arch::new(),
    }
}

/// Runs `op` compiled for the instruction set.
#[inline(always)]
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    arch().dispatch(op)
}
