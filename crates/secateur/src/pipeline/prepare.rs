//! Data set and preprocessing for a model.

use super::{DataSettings, PipelineError};
use crate::data::{
    CLASSES_METADATA_KEY, DataOptions, Dataset, METADATA_KEY, Preprocess, Split,
    classes_to_metadata,
};
use crate::files::checksum;
use crate::graph::Graph;
use crate::progress::Progress;
use std::collections::BTreeMap;

/// What the commands that read images need.
#[derive(Debug)]
pub struct Prepared {
    /// The images.
    pub dataset: Dataset,
    /// How they become input.
    pub preprocess: Preprocess,
}

/// Opens the data and settles the preprocessing: the settings' own, else the one in the model's
/// metadata. The size is the graph input's where fixed, else the settings', else the metadata's,
/// else the data's own.
///
/// # Errors
/// [`PipelineError`] where the model takes no images, the data cannot be used, or nothing says how
/// pixels become input.
pub fn prepare(
    graph: &Graph,
    settings: &DataSettings,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Prepared, PipelineError> {
    let input = graph.image_input()?;
    let stored = match graph.metadata.get(METADATA_KEY) {
        Some(text) => Some(Preprocess::from_metadata(text)?),
        None => None,
    };
    if settings.preprocess.is_none() && stored.is_none() {
        return Err(PipelineError::NoPreprocess);
    }
    let options = DataOptions {
        kind: settings.kind,
        val_fraction: settings.val_fraction,
        test_fraction: settings.test_fraction,
        seed,
        limit: settings.limit,
        max_corrupt: settings.max_corrupt,
        ..DataOptions::default()
    };
    let dataset = match &settings.path {
        Some(path) => Dataset::open_with(path, &options, progress)?,
        None => Dataset::digits(&options)?,
    };
    let native = dataset.native_size();
    let size = |fixed: Option<usize>, axis: usize, stored: Option<usize>, native: usize| {
        fixed
            .or(settings.size.map(|size| size[axis]))
            .or(stored)
            .unwrap_or(native)
    };
    let stored_size = stored.as_ref().map(|p| (p.height, p.width));
    let height = size(input.height, 0, stored_size.map(|s| s.0), native.0);
    let width = size(input.width, 1, stored_size.map(|s| s.1), native.1);
    let preprocess = match (&settings.preprocess, stored) {
        (Some(text), _) => Preprocess::parse(text, height, width, input.channels)?,
        (None, Some(stored)) => Preprocess {
            height,
            width,
            ..stored
        },
        (None, None) => return Err(PipelineError::NoPreprocess),
    };
    Ok(Prepared {
        dataset,
        preprocess,
    })
}

impl Prepared {
    /// A checksum of the images' names and labels and their division into splits.
    #[must_use]
    pub fn fingerprint(&self) -> u32 {
        let splits = [Split::Train, Split::Val, Split::Test];
        checksum(splits.iter().flat_map(|&split| {
            let labels = self.dataset.labels(split);
            let length = [(labels.len() as u64).to_le_bytes()];
            let labels = labels.iter().map(|&label| (label as u64).to_le_bytes());
            let names = self.dataset.members(split);
            let names = names
                .iter()
                .map(|name| (checksum([name]) as u64).to_le_bytes());
            let all = length.into_iter().chain(labels).chain(names);
            all.collect::<Vec<_>>()
        }))
    }

    /// Which image is in which split, by the names of [`Dataset::members`].
    #[must_use]
    pub fn members(&self) -> BTreeMap<&'static str, Vec<String>> {
        let splits = [Split::Train, Split::Val, Split::Test];
        let members = |split: Split| (split.name(), self.dataset.members(split));
        splits.into_iter().map(members).collect()
    }

    /// Checks that the images' classes are known.
    ///
    /// # Errors
    /// [`PipelineError::NoLabels`] where they are not.
    pub fn check_labelled(&self) -> Result<(), PipelineError> {
        match self.dataset.has_labels() {
            true => Ok(()),
            false => Err(PipelineError::NoLabels),
        }
    }

    /// The shape of `n` images as input, `[n, channels, height, width]`.
    #[must_use]
    pub fn input_shape(&self, n: usize) -> [usize; 4] {
        let preprocess = &self.preprocess;
        let channels = preprocess.channels.channels();
        [n, channels, preprocess.height, preprocess.width]
    }

    /// Writes preprocessing and class names, where there are any, into the graph's metadata.
    pub fn describe(&self, graph: &mut Graph) {
        graph
            .metadata
            .insert(METADATA_KEY.to_owned(), self.preprocess.to_metadata());
        if self.dataset.has_labels() {
            graph.metadata.insert(
                CLASSES_METADATA_KEY.to_owned(),
                classes_to_metadata(self.dataset.classes()),
            );
        }
    }
}
