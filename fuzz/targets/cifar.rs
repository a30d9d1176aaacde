//! CIFAR-10 and CIFAR-100 in binary form, with their lists of names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secateur_fuzz::{files, read_all};

// The first byte's lowest bit: CIFAR-100.
fuzz_target!(|data: &[u8]| {
    let Some((&flags, data)) = data.split_first() else {
        return;
    };
    let names = if flags & 1 == 1 {
        ["fine_label_names.txt", "test.bin", "train.bin"]
    } else {
        ["batches.meta.txt", "test_batch.bin", "data_batch_1.bin"]
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in names.iter().zip(files::<3>(data)) {
        if !content.is_empty() {
            std::fs::write(folder.path().join(name), content).expect("a written file");
        }
    }
    read_all(folder.path(), None);
});
