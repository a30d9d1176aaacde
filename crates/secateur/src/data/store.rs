//! The images of a data set: where they are, and what of them is kept in memory.
//!
//! What is kept changes the time that work takes and nothing else.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::pixels::{Pixels, View};
use super::{Corrupt, DataError};

/// Where images come from.
#[derive(Debug)]
pub(super) enum Source {
    /// All of one size, in one allocation `[images, height, width, channels]`.
    Packed {
        height: usize,
        width: usize,
        channels: usize,
        samples: Vec<u8>,
    },
    /// One file each.
    Files(Vec<PathBuf>),
}

/// The images of a data set by number.
#[derive(Debug)]
pub(super) struct Store {
    source: Source,
    /// Per image: what is kept beside the source.
    kept: Vec<Mutex<Kept>>,
    budget: Budget,
}

/// Decoded images kept: as stored in the file, or at the size last asked for.
#[derive(Debug, Default)]
struct Kept {
    native: Option<Arc<Pixels>>,
    fitted: Option<Fitted>,
}

/// An image made to fit. A grey one has one channel whatever was asked for.
#[derive(Debug)]
struct Fitted {
    max_channels: usize,
    pixels: Arc<Pixels>,
}

/// An image, borrowed from the store or shared with it.
pub(super) enum Held<'a> {
    Stored(View<'a>),
    Shared(Arc<Pixels>),
}

impl Held<'_> {
    pub(super) fn view(&self) -> View<'_> {
        match self {
            Held::Stored(view) => *view,
            Held::Shared(pixels) => pixels.view(),
        }
    }
}

impl Store {
    /// A store that keeps at most `cache_bytes` bytes beside a packed source.
    pub(super) fn new(source: Source, images: usize, cache_bytes: u64) -> Self {
        let kept = (0..images).map(|_| Mutex::default()).collect();
        Self {
            source,
            kept,
            budget: Budget {
                limit: cache_bytes,
                used: AtomicU64::new(0),
            },
        }
    }

    /// Decodes image `item` where it is a file, keeps it if half of the memory allows (the other half
    /// is for resized images), and gives its height, width and channels.
    pub(super) fn check(&self, item: usize) -> Result<(usize, usize, usize), Corrupt> {
        let native = match &self.source {
            Source::Packed {
                height,
                width,
                channels,
                ..
            } => return Ok((*height, *width, *channels)),
            Source::Files(_) => self.decode(item)?,
        };
        let size = (native.height(), native.width(), native.channels());
        if self
            .budget
            .take(native.samples().len(), self.budget.limit / 2)
        {
            self.kept(item).native = Some(Arc::new(native));
        }
        Ok(size)
    }

    /// Image `item` at `[height, width]` with at most `max_channels` channels.
    pub(super) fn fitted(
        &self,
        item: usize,
        height: usize,
        width: usize,
        max_channels: usize,
    ) -> Result<Held<'_>, DataError> {
        if let Some(view) = self.packed(item)
            && view.fits(height, width, max_channels)
        {
            return Ok(Held::Stored(view));
        }
        let native = {
            let kept = self.kept(item);
            if let Some(fitted) = &kept.fitted
                && (fitted.pixels.height(), fitted.pixels.width()) == (height, width)
                && fitted.max_channels == max_channels
            {
                return Ok(Held::Shared(Arc::clone(&fitted.pixels)));
            }
            kept.native.clone()
        };
        // Not under the lock: others may want the image meanwhile, and the result is the same.
        let fitted = if let Some(view) = self.packed(item) {
            Arc::new(view.fitted(height, width, max_channels)?)
        } else {
            let native = match native {
                Some(native) => native,
                None => Arc::new(self.decode(item).map_err(DataError::Image)?),
            };
            if native.view().fits(height, width, max_channels) {
                native
            } else {
                Arc::new(native.view().fitted(height, width, max_channels)?)
            }
        };
        self.keep(item, max_channels, &fitted);
        Ok(Held::Shared(fitted))
    }

    /// The memory used beside a packed source, bytes.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> u64 {
        self.budget.used.load(Ordering::Relaxed)
    }

    /// Keeps a fitted image in place of what was kept, if memory allows.
    fn keep(&self, item: usize, max_channels: usize, fitted: &Arc<Pixels>) {
        let mut kept = self.kept(item);
        if let Some(before) = kept.fitted.take() {
            self.budget.give_back(before.pixels.samples().len());
        }
        if let Some(native) = &kept.native
            && native.samples().len() >= fitted.samples().len()
        {
            self.budget.give_back(native.samples().len());
            kept.native = None;
        }
        if self.budget.take(fitted.samples().len(), self.budget.limit) {
            kept.fitted = Some(Fitted {
                max_channels,
                pixels: Arc::clone(fitted),
            });
        }
    }

    /// The path of an image's file, or its number in a data set of packed images.
    pub(super) fn name(&self, item: usize) -> String {
        match &self.source {
            Source::Files(paths) => paths
                .get(item)
                .map_or_else(String::new, |path| path.display().to_string()),
            Source::Packed { .. } => item.to_string(),
        }
    }

    fn packed(&self, item: usize) -> Option<View<'_>> {
        match &self.source {
            Source::Packed {
                height,
                width,
                channels,
                samples,
            } => {
                let len = height * width * channels;
                let samples = &samples[item * len..(item + 1) * len];
                Some(View {
                    height: *height,
                    width: *width,
                    channels: *channels,
                    samples,
                })
            }
            Source::Files(_) => None,
        }
    }

    fn decode(&self, item: usize) -> Result<Pixels, Corrupt> {
        match &self.source {
            Source::Files(paths) => {
                let path = &paths[item];
                Pixels::open(path).map_err(|reason| Corrupt {
                    path: path.clone(),
                    reason,
                })
            }
            Source::Packed { .. } => Err(Corrupt {
                path: PathBuf::new(),
                reason: "a packed image has no file".to_owned(),
            }),
        }
    }

    fn kept(&self, item: usize) -> std::sync::MutexGuard<'_, Kept> {
        // Nothing that can panic happens under the lock, so a poisoned one is still sound.
        self.kept[item]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that may be used, bytes.
#[derive(Debug)]
struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// Takes `bytes` if no more than `limit` are used then.
    fn take(&self, bytes: usize, limit: u64) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes as u64).filter(|used| *used <= limit)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}
