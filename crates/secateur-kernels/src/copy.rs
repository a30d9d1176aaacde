//! Copies of short runs, also with a constant added, which are not worth the call of a library function.

/// Runs of at least this length are left to the library.
const LONG: usize = 64;

/// Copies `source` to `target`, which is as long.
#[inline(always)]
pub(crate) fn copy(source: &[f32], target: &mut [f32]) {
    match source.len() {
        LONG.. => target.copy_from_slice(source),
        16.. => copy_by::<16>(source, target),
        8.. => copy_by::<8>(source, target),
        4.. => copy_by::<4>(source, target),
        _ => {
            for (target, source) in target.iter_mut().zip(source) {
                *target = *source;
            }
        }
    }
}

/// Copies at least `N` floats, `N` at a time; the last ones overlap.
#[inline(always)]
fn copy_by<const N: usize>(source: &[f32], target: &mut [f32]) {
    if let (Some(source), Some(target)) = (source.last_chunk::<N>(), target.last_chunk_mut::<N>()) {
        *target = *source;
    }
    let (source, target) = (source.as_chunks::<N>().0, target.as_chunks_mut::<N>().0);
    for (source, target) in source.iter().zip(target) {
        *target = *source;
    }
}

/// Copies every `step`-th float from the first on.
#[inline(always)]
pub(crate) fn copy_stepped(source: &[f32], step: usize, target: &mut [f32]) {
    match step {
        1 => copy(&source[..target.len()], target),
        2 => {
            let (pairs, rest) = source.as_chunks::<2>();
            for (target, [source, _]) in target.iter_mut().zip(pairs) {
                *target = *source;
            }
            if let (Some(target), Some(source)) = (target.get_mut(pairs.len()), rest.first()) {
                *target = *source;
            }
        }
        _ => {
            for (target, source) in target.iter_mut().zip(source.iter().step_by(step)) {
                *target = *source;
            }
        }
    }
}

/// `target = source + constant`, as long as each other.
#[inline(always)]
pub(crate) fn add_constant(source: &[f32], constant: f32, target: &mut [f32]) {
    match source.len() {
        16.. => add_by::<16>(source, constant, target),
        8.. => add_by::<8>(source, constant, target),
        4.. => add_by::<4>(source, constant, target),
        _ => {
            for (target, source) in target.iter_mut().zip(source) {
                *target = *source + constant;
            }
        }
    }
}

#[inline(always)]
fn add_by<const N: usize>(source: &[f32], constant: f32, target: &mut [f32]) {
    if let (Some(source), Some(target)) = (source.last_chunk::<N>(), target.last_chunk_mut::<N>()) {
        *target = source.map(|value| value + constant);
    }
    let (source, target) = (source.as_chunks::<N>().0, target.as_chunks_mut::<N>().0);
    for (source, target) in source.iter().zip(target) {
        *target = source.map(|value| value + constant);
    }
}
