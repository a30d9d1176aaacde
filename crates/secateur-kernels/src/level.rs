//! The instruction set that the kernels use: the best one that the processor has.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::amx::Amx;
use pulp::{Arch, Simd, WithSimd};
use std::sync::OnceLock;

/// Environment variable that asks for a lesser instruction set, `avx512`, `avx2` or `scalar`, or for matrix registers wherever
/// they can be used, `amx`. Tests use it.
const VARIABLE: &str = "SECATEUR_SIMD";

pub(crate) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| choose(std::env::var(VARIABLE).ok().as_deref()))
}

/// The processor's matrix registers, where it has them and no lesser instruction set is asked for, and whether they are to be
/// used wherever they can be: tests ask for that with `amx`.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) fn amx() -> Option<(Amx, bool)> {
    static AMX: OnceLock<Option<(Amx, bool)>> = OnceLock::new();
    *AMX.get_or_init(|| match std::env::var(VARIABLE).as_deref() {
        Ok("avx512" | "avx2" | "scalar") => None,
        _ if cfg!(miri) => None,
        wanted => Amx::try_new().map(|amx| (amx, wanted == Ok("amx"))),
    })
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

/// Runs a loop compiled for the instruction set. The closure must be `#[inline(always)]`.
#[inline(always)]
pub(crate) fn compiled<R>(work: impl FnMut() -> R) -> R {
    dispatch(Loop(work))
}

/// A closure that is called in place. `pulp` calls closures through a function of its own, which is compiled for
/// the least instruction set where it is not inlined.
struct Loop<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Loop<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}
