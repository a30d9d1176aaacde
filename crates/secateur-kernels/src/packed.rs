//! Weights in the order in which a kernel reads them.

use crate::aligned::Aligned;
use crate::conv::ConvShape;
use std::sync::OnceLock;

/// The weight of a convolution as its kernels read it, forward and by data, once they have packed it. It is kept by whoever
/// knows that the weight stays as it is: one [`Packed`] for each weight.
#[derive(Debug, Default)]
pub struct Packed {
    pub(crate) forward: Kept,
    pub(crate) backward: Kept,
}

impl Packed {
    /// Floats that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.forward.len() + self.backward.len()
    }

    /// Whether nothing is kept yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Numbers that are made when they are first asked for, and the convolution, in bundles of so many images, that they are for.
#[derive(Debug, Default)]
pub(crate) struct Kept(OnceLock<(ConvShape, usize, Aligned)>);

impl Kept {
    fn len(&self) -> usize {
        self.0.get().map_or(0, |(_, _, floats)| floats.len())
    }
}

/// Where the numbers of a convolution, in bundles of so many images, are kept.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    pub kept: &'a Kept,
    pub shape: &'a ConvShape,
    pub bundle: usize,
}

impl<'a> Slot<'a> {
    /// The numbers, so many, which `fill` writes the first time; `None` where those of another convolution are kept.
    pub(crate) fn get(self, len: usize, fill: impl FnOnce(&mut [f32])) -> Option<&'a [f32]> {
        let Kept(kept) = self.kept;
        if kept.get().is_none() {
            let mut floats = Aligned::zeros(len);
            fill(&mut floats);
            // No thread waits for another one that is at it, too: both have made the same.
            let _ = kept.set((*self.shape, self.bundle, floats));
        }
        let (shape, bundle, floats) = kept.get()?;
        (shape == self.shape && *bundle == self.bundle).then_some(&floats[..])
    }
}

/// A weight, and where it is kept packed.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// `[output channels, input channels / groups, kernel]`.
    pub values: &'a [f32],
    /// `None` for one that changes.
    pub packed: Option<&'a Packed>,
}

impl<'a> Weight<'a> {
    /// A weight that is packed whenever it is read.
    #[must_use]
    pub fn new(values: &'a [f32]) -> Self {
        let packed = None;
        Self { values, packed }
    }
}
