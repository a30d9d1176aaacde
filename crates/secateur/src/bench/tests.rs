//! Turns are fair, and their statistics are those of the textbook.

use super::*;
use crate::progress::Silent;
use crate::tensor::Floats;
use crate::verify::{Loaded, VerifyError};
use ndarray::{ArrayD, IxDyn};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Notes its name at each run.
struct Noting(char, Arc<Mutex<String>>);

impl Loaded for Noting {
    fn batch(&self) -> usize {
        1
    }

    fn run_some(&mut self, images: &Floats, _most: usize) -> Result<Vec<Floats>, VerifyError> {
        self.1.lock().unwrap().push(self.0);
        Ok(vec![images.clone()])
    }
}

fn image() -> Floats {
    ArrayD::zeros(IxDyn(&[1, 1, 1, 1])).into_shared()
}

#[test]
fn every_second_turn_goes_backwards_and_warming_up_is_not_measured() {
    let notes = Arc::new(Mutex::new(String::new()));
    let network = |name| -> (Box<dyn Loaded>, Floats) {
        (Box::new(Noting(name, Arc::clone(&notes))), image())
    };
    let turns = Turns {
        warm_up: 1,
        least: 3,
        most: 3,
        limit: Duration::ZERO,
    };
    let samples = in_turns(&mut [network('a'), network('b')], &turns, &Silent).unwrap();
    assert_eq!(notes.lock().unwrap().as_str(), "ababbaab");
    assert_eq!(
        samples.iter().map(|s| s.0.len()).collect::<Vec<_>>(),
        [3, 3]
    );
}

#[test]
fn the_limit_ends_the_turns_but_not_before_the_least() {
    let notes = Arc::new(Mutex::new(String::new()));
    let network: (Box<dyn Loaded>, Floats) = (Box::new(Noting('a', notes)), image());
    let turns = Turns {
        warm_up: 0,
        least: 4,
        most: 1000,
        limit: Duration::ZERO,
    };
    let samples = in_turns(&mut [network], &turns, &Silent).unwrap();
    assert_eq!(samples[0].0.len(), 4);
}

#[test]
fn quantiles_are_interpolated() {
    let values = [4.0, 1.0, 3.0, 2.0];
    assert_eq!(quantile(&values, 0.5), 2.5);
    assert_eq!(quantile(&values, 0.0), 1.0);
    assert_eq!(quantile(&values, 1.0), 4.0);
    assert!((quantile(&values, 0.95) - 3.85).abs() < 1e-12);
    assert_eq!(quantile(&[], 0.5), 0.0);
}

#[test]
fn a_speedup_is_the_median_of_paired_quotients() {
    // The third turn was disturbed for both: the pairs do not care.
    let slow = Samples(vec![4.0, 8.0, 400.0]);
    let fast = Samples(vec![2.0, 4.0, 200.0]);
    assert_eq!(fast.speedup_over(&slow), 2.0);
    assert_eq!(slow.speedup_over(&fast), 0.5);
}
