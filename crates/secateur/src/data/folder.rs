//! Image folders: one folder a class, with or without `train`, `val` and `test` above them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::DataError;
use super::split::{Listing, Sample};

/// The images of an image folder, not yet decoded.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The class folders of the training images, sorted by name.
    pub classes: Vec<String>,
    /// One image a file, in the order of splits, classes and names.
    pub paths: Vec<PathBuf>,
    /// Which file is in which split.
    pub listing: Listing,
    /// How many files and folders were passed over: hidden, no image by their name, or nested deeper.
    pub ignored: usize,
}

const TRAIN: [&str; 4] = ["train", "training", "train_set", "training_set"];
const VAL: [&str; 6] = [
    "val",
    "valid",
    "validation",
    "val_set",
    "validation_set",
    "dev",
];
const TEST: [&str; 4] = ["test", "testing", "test_set", "testing_set"];

/// Extensions that say that a file is meant to be an image. Those that cannot be decoded are listed
/// too: such a file is reported and not passed over.
const EXTENSIONS: [&str; 21] = [
    "avif", "bmp", "gif", "heic", "heif", "jfif", "jp2", "jpe", "jpeg", "jpg", "jxl", "pbm", "pgm",
    "png", "pnm", "ppm", "psd", "tga", "tif", "tiff", "webp",
];

/// The folders and files directly in a folder, sorted by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    pub folders: Vec<String>,
    pub files: Vec<String>,
    /// How many names start with a dot, or are unreadable and not those of images.
    pub hidden: usize,
}

/// Lists a folder. Links are followed.
///
/// # Errors
/// A folder or an image whose name is not Unicode: it could be neither reported nor written to a
/// model's metadata, and leaving it out would change the data.
pub(super) fn entries(folder: &Path) -> Result<Entries, DataError> {
    let read_error = |source| DataError::Read {
        path: folder.into(),
        source,
    };
    let mut entries = Entries::default();
    for entry in fs::read_dir(folder).map_err(read_error)? {
        let entry = entry.map_err(read_error)?;
        let (name, path) = (entry.file_name(), entry.path());
        let lossy = name.to_string_lossy();
        if lossy.starts_with('.') || lossy == "__MACOSX" {
            entries.hidden += 1;
            continue;
        }
        let kind = entry.file_type().map_err(read_error)?;
        // A broken link is reported when it is decoded, if it is named as an image.
        let is_link_to = |want: fn(&fs::Metadata) -> bool| {
            kind.is_symlink() && fs::metadata(&path).is_ok_and(|to| want(&to))
        };
        let is_folder = kind.is_dir() || is_link_to(fs::Metadata::is_dir);
        match name.to_str() {
            Some(name) if is_folder => entries.folders.push(name.to_owned()),
            Some(name) => entries.files.push(name.to_owned()),
            None if is_folder || is_image(&lossy) => {
                return Err(DataError::Layout {
                    path: folder.into(),
                    what: format!("the name of `{lossy}` is not Unicode"),
                });
            }
            None => entries.hidden += 1,
        }
    }
    entries.folders.sort_unstable();
    entries.files.sort_unstable();
    Ok(entries)
}

/// Whether a name is that of an image.
fn is_image(name: &str) -> bool {
    Path::new(name)
        .extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()))
}

fn holds_images(folder: &Path) -> Result<bool, DataError> {
    Ok(is_flat(&entries(folder)?))
}

/// Whether a folder that is directly in `root` holds images, directly or one folder deeper.
pub(super) fn recognise(root: &Path, top: &Entries) -> Result<bool, DataError> {
    for name in &top.folders {
        let folder = root.join(name);
        if holds_images(&folder)? {
            return Ok(true);
        }
        if !split_of(name).is_empty() && has_class_folders(&folder)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_class_folders(folder: &Path) -> Result<bool, DataError> {
    for name in entries(folder)?.folders {
        if holds_images(&folder.join(name))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a folder holds images itself.
pub(super) fn is_flat(top: &Entries) -> bool {
    top.files.iter().any(|name| is_image(name))
}

// Folders deeper than this are passed over.
const MAX_DEPTH: usize = 8;

/// Lists the images of a folder and of the folders below it, of whatever names, as one class.
pub(super) fn without_labels(root: &Path) -> Result<Files, DataError> {
    let mut files = Files {
        classes: vec!["unlabelled".to_owned()],
        ..Files::default()
    };
    files.add_below(root, MAX_DEPTH, &mut BTreeSet::new())?;
    if files.paths.is_empty() {
        return Err(DataError::Layout {
            path: root.into(),
            what: "there is no image in it".to_owned(),
        });
    }
    let sample = |item| Sample { item, label: 0 };
    files.listing.train = (0..files.paths.len()).map(sample).collect();
    Ok(files)
}

/// `train`, `val`, `test` for a folder's name, or nothing.
fn split_of(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    let is = |names: &[&str]| names.contains(&name.as_str());
    if is(&TRAIN) {
        "train"
    } else if is(&VAL) {
        "val"
    } else if is(&TEST) {
        "test"
    } else {
        ""
    }
}

/// Lists the images of an image folder and the splits that it has.
pub(super) fn list(root: &Path, top: &Entries) -> Result<Files, DataError> {
    let layout = |what: String| DataError::Layout {
        path: root.into(),
        what,
    };
    // A class may be called `train`: a split is a folder of that name with class folders in it.
    let mut splits: Vec<(&str, &String)> = Vec::new();
    let mut flat = Vec::new();
    for name in &top.folders {
        match split_of(name) {
            "" => {}
            split if has_class_folders(&root.join(name))? => splits.push((split, name)),
            _ => flat.push(name.as_str()),
        }
    }
    let mut files = Files {
        ignored: top.hidden + top.files.len(),
        ..Files::default()
    };
    if splits.is_empty() {
        if !flat.is_empty() && flat.len() == top.folders.len() {
            return Err(layout(format!(
                "`{}` has images but no class folders: want one folder of images a class (or kind `images`, for images without labels)",
                flat.join("`, `")
            )));
        }
        files.classes.clone_from(&top.folders);
        files.listing.train = files.add(root, &top.folders)?;
        return Ok(files);
    }
    if let Some(name) = flat
        .iter()
        .find(|name| holds_images(&root.join(name)).unwrap_or(true))
    {
        return Err(layout(format!(
            "`{name}` has images but no class folders, unlike `{}`: labels are wanted for each split",
            splits[0].1
        )));
    }
    for name in top.folders.iter().filter(|name| split_of(name).is_empty()) {
        if holds_images(&root.join(name))? {
            return Err(layout(format!(
                "`{name}` is a folder of images beside `{}`: want either splits or class folders",
                splits[0].1
            )));
        }
        files.ignored += 1;
    }
    let find = |wanted: &str| -> Result<Option<&String>, DataError> {
        let found: Vec<&String> = splits
            .iter()
            .filter(|(split, _)| *split == wanted)
            .map(|(_, name)| *name)
            .collect();
        match found.as_slice() {
            [] => Ok(None),
            [name] => Ok(Some(name)),
            [first, second, ..] => Err(layout(format!(
                "`{first}` and `{second}` both name the {wanted} split"
            ))),
        }
    };
    let Some(train) = find("train")? else {
        return Err(layout(format!(
            "`{}` is there, but no folder `train`",
            splits[0].1
        )));
    };
    let inner = entries(&root.join(train))?;
    files.ignored += inner.hidden + inner.files.len();
    files.classes.clone_from(&inner.folders);
    files.listing.train = files.add(&root.join(train), &inner.folders)?;
    if let Some(name) = find("val")? {
        files.listing.val = Some(files.add_split(&root.join(name))?);
    }
    if let Some(name) = find("test")? {
        files.listing.test = Some(files.add_split(&root.join(name))?);
    }
    Ok(files)
}

impl Files {
    /// Adds the images of a folder, then those of its folders, by name; each folder once, as links can go in
    /// circles.
    fn add_below(
        &mut self,
        folder: &Path,
        depth: usize,
        seen: &mut BTreeSet<PathBuf>,
    ) -> Result<(), DataError> {
        let real = fs::canonicalize(folder).map_err(|source| DataError::Read {
            path: folder.into(),
            source,
        })?;
        if !seen.insert(real) {
            self.ignored += 1;
            return Ok(());
        }
        let inner = entries(folder)?;
        let (images, others): (Vec<_>, Vec<_>) =
            inner.files.iter().partition(|name| is_image(name));
        self.ignored += inner.hidden + others.len();
        self.paths
            .extend(images.iter().map(|name| folder.join(name)));
        for name in &inner.folders {
            match depth.checked_sub(1) {
                Some(depth) => self.add_below(&folder.join(name), depth, seen)?,
                None => self.ignored += 1,
            }
        }
        Ok(())
    }

    /// Adds the images of a split whose classes must be among the training classes.
    fn add_split(&mut self, folder: &Path) -> Result<Vec<Sample>, DataError> {
        let inner = entries(folder)?;
        self.ignored += inner.hidden + inner.files.len();
        if let Some(name) = inner
            .folders
            .iter()
            .find(|name| !self.classes.contains(name))
        {
            return Err(DataError::Layout {
                path: folder.into(),
                what: format!("class folder `{name}` is not among the training classes"),
            });
        }
        self.add(folder, &inner.folders)
    }

    /// Adds the images of class folders, each of which must have one.
    fn add(&mut self, folder: &Path, classes: &[String]) -> Result<Vec<Sample>, DataError> {
        let mut samples = Vec::new();
        for class in classes {
            let class_folder = folder.join(class);
            let inner = entries(&class_folder)?;
            let (images, others): (Vec<_>, Vec<_>) =
                inner.files.iter().partition(|name| is_image(name));
            if images.is_empty() {
                return Err(DataError::EmptyClass { path: class_folder });
            }
            self.ignored += inner.hidden + inner.folders.len() + others.len();
            let label = self
                .classes
                .iter()
                .position(|name| name == class)
                .unwrap_or_default();
            for name in images {
                samples.push(Sample {
                    item: self.paths.len(),
                    label,
                });
                self.paths.push(class_folder.join(name));
            }
        }
        Ok(samples)
    }
}
