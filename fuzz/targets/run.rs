//! A run's folder in which one file is not what was written there; the run goes on from it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secateur_fuzz::run::{Place, go_on};
use std::sync::OnceLock;

static PLACE: OnceLock<Place> = OnceLock::new();

// The first byte chooses the file, the rest is its content.
fuzz_target!(|data: &[u8]| {
    let Some((&file, content)) = data.split_first() else {
        return;
    };
    let place = PLACE.get_or_init(|| Place::new().expect("a run to start from"));
    let name = &place.files[usize::from(file) % place.files.len()];
    let copy = place.copy(name).expect("a copied folder");
    std::fs::write(copy.path().join(name), content).expect("a written file");
    // It goes on, or says what is wrong; it does not panic.
    drop(go_on(copy.path()));
});
