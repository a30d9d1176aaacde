//! IDX files: images and labels of both splits, plain or gzip.

#![no_main]

use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use secateur::data::DataKind;
use secateur_fuzz::{files, read_all};
use std::io::Write;

const NAMES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

// The first byte: which files are called `.gz`; the upper half: which of them are packed here.
fuzz_target!(|data: &[u8]| {
    let Some((&flags, data)) = data.split_first() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (index, (name, content)) in NAMES.iter().zip(files::<4>(data)).enumerate() {
        if index >= 2 && content.is_empty() {
            continue;
        }
        let is_zipped = flags >> index & 1 == 1;
        let name = if is_zipped { format!("{name}.gz") } else { (*name).to_owned() };
        let content = if is_zipped && flags >> (4 + index) & 1 == 1 {
            let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
            packer.write_all(content).expect("memory");
            packer.finish().expect("memory")
        } else {
            content.to_vec()
        };
        std::fs::write(folder.path().join(name), content).expect("a written file");
    }
    read_all(folder.path(), Some(DataKind::Idx));
});
