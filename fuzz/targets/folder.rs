//! A tree of folders, images and links, with and without classes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secateur::data::DataKind;
use secateur_fuzz::{files, read_all};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

// Four entries, each a name and a content. A name that ends in `@` is a link to the path in its content.
fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    for pair in files::<12>(data).chunks_exact(2) {
        let (name, content) = (pair[0], pair[1]);
        let Some(path) = inside(root, name) else {
            continue;
        };
        // Names that a file system refuses are no case.
        if let Some(parent) = path.parent() {
            let _ = std::fs::create_dir_all(parent);
        }
        if name.ends_with(b"@") {
            let target = inside(root, content).unwrap_or_else(|| root.to_owned());
            let _ = std::os::unix::fs::symlink(target, path);
        } else {
            let _ = std::fs::write(path, content);
        }
    }
    read_all(root, None);
    read_all(root, Some(DataKind::Images));
});

/// A path below `root`, whatever the bytes say.
fn inside(root: &Path, name: &[u8]) -> Option<PathBuf> {
    let parts = name.split(|&byte| byte == b'/');
    let mut path = root.to_owned();
    let before = path.clone();
    for part in parts.filter(|part| !matches!(part, [] | [b'.'] | [b'.', b'.'])) {
        path.push(OsStr::from_bytes(part));
    }
    (path != before).then_some(path)
}
