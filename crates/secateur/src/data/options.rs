//! How a data set is opened.

use super::{DataError, DataKind};

/// How a data set is opened.
#[derive(Clone, Debug, PartialEq)]
pub struct DataOptions {
    /// What the folder holds; recognised where it is not given.
    pub kind: Option<DataKind>,
    /// The share of each class's training images that is validated on, from 0 to under 1. Not used
    /// where the data has a validation split.
    pub val_fraction: f64,
    /// The share of each class's images that is tested on, from 0 to under 1. Not used where the data
    /// has a test split.
    pub test_fraction: f64,
    /// Chooses the images of the splits.
    pub seed: u64,
    /// The most training images, validation images included; classes keep their shares.
    pub limit: Option<usize>,
    /// How many images may be corrupt; 1 % of the images, and at least 1, where it is not given.
    pub max_corrupt: Option<usize>,
    /// The memory that decoded and resized images may take beside the data's own files, bytes.
    pub cache_bytes: u64,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            kind: None,
            val_fraction: 0.1,
            test_fraction: 0.2,
            seed: 0,
            limit: None,
            max_corrupt: None,
            cache_bytes: 2 << 30,
        }
    }
}

impl DataOptions {
    pub(super) fn check(&self) -> Result<(), DataError> {
        for (option, fraction) in [
            ("the share of validation images", self.val_fraction),
            ("the share of test images", self.test_fraction),
        ] {
            if !(0.0..1.0).contains(&fraction) {
                return Err(DataError::Option {
                    option,
                    got: fraction.to_string(),
                    want: "from 0 to under 1".to_owned(),
                });
            }
        }
        Ok(())
    }
}
