//! Networks that nobody drew.

use crate::check::check;
use crate::steps::{Head, Net, Step, head, input, step};
use proptest::prelude::*;
use secateur::exec::{BurnEngine, NativeEngine};

/// Each output is a sum of at most some hundred terms; removing zeros among them changes the order.
const TOLERANCE: f32 = 2e-5;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn removing_channels_equals_zeroing_them(
        steps in prop::collection::vec(step(), 0..9),
        head in head(),
        share in 0.1_f64..0.9,
        seed in any::<u64>(),
    ) {
        let graph = Net::build(&steps, head);
        let found = check(&NativeEngine::new(), &graph, &input(seed), share, seed);
        prop_assert!(found.difference < TOLERANCE, "{}", found.difference);
    }
}

/// One network per step, so that none is left out by chance, and in the second engine.
#[test]
fn every_step_loses_channels_and_computes_what_zeroing_does() {
    let wide = Step::Conv { co: 6, kernel: 3 };
    let steps = [
        Step::Conv { co: 4, kernel: 1 },
        Step::BatchNorm,
        Step::Activation(0),
        Step::Scale,
        Step::Shift,
        Step::Slope,
        Step::Residual,
        Step::OptionA,
        Step::Concat(4),
        Step::Depthwise(1),
        Step::Depthwise(2),
        Step::Grouped,
        Step::SqueezeExcite,
        Step::Spatial,
        Step::Pool(0),
        Step::Pool(1),
        Step::Shuffle,
        Step::Halves,
        Step::Factored,
        Step::SharedTwice,
    ];
    let heads = [
        Head::Pool,
        Head::Mean,
        Head::Flatten,
        Head::Copy,
        Head::Literal,
        Head::Map,
    ];
    for (index, step) in steps.into_iter().enumerate() {
        let graph = Net::build(&[step.clone(), wide.clone()], heads[index % heads.len()]);
        let found = check(&BurnEngine::new(), &graph, &input(7), 0.5, 3);
        let [channels, removed] = found.channels;
        assert!(removed >= 2, "{step:?}: {removed} of {channels}");
        assert!(found.params[1] < found.params[0], "{step:?}");
        assert!(found.change > 1e-3, "{step:?}: {}", found.change);
        assert!(
            found.difference < TOLERANCE,
            "{step:?}: {}",
            found.difference
        );
    }
}
