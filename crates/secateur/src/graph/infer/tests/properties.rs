//! What holds for any shapes and numbers.

use super::*;
use ndarray::ArrayD;
use proptest::prelude::*;

fn small_shape() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![Just(1_usize), 1..4_usize], 0..5)
}

proptest! {
    #[test]
    fn broadcasting_agrees_with_ndarray(a in small_shape(), b in small_shape()) {
        let shape = broadcast(&a, &b);
        prop_assert_eq!(&shape, &broadcast(&b, &a));
        let (left, right) = (ArrayD::<u8>::zeros(IxDyn(&a)), ArrayD::<u8>::zeros(IxDyn(&b)));
        match shape {
            Some(shape) => {
                let sum = left + right;
                prop_assert_eq!(sum.shape(), &shape[..]);
            }
            None => {
                let pairs = a.iter().rev().zip(b.iter().rev());
                prop_assert!(pairs.into_iter().any(|(&m, &n)| m != n && m != 1 && n != 1));
            }
        }
    }

    /// The loop of the ONNX specification: walk from the clamped start to the clamped end.
    #[test]
    fn a_slice_takes_what_a_loop_takes(length in 0..9_i64, start in -12..12_i64, end in -12..12_i64, step in -4..5_i64) {
        prop_assume!(step != 0);
        let from_end = |bound: i64| if bound < 0 { bound + length } else { bound };
        let (low, high) = if step > 0 { ([0, 0], [length, length]) } else { ([0, -1], [length - 1, length - 1]) };
        let clamp = |bound: i64, side: usize| from_end(bound).min(high[side]).max(low[side]);
        let mut expected = Vec::new();
        let (mut at, end_at) = (clamp(start, 0), clamp(end, 1));
        while at < length && (if step > 0 { at < end_at } else { at > end_at }) {
            expected.push(at);
            at += step;
        }
        let data: Vec<i64> = (0..length).collect();
        let operands = [ints(&data), ints(&[start]), ints(&[end]), ints(&[0]), ints(&[step])];
        let inferred = infer_one(SLICE, &operands).unwrap();
        prop_assert_eq!(inferred.constants.get("y"), Some(&int_tensor(&expected)));
    }

    #[test]
    fn no_slice_of_any_integers_panics(start: i64, end: i64, step: i64) {
        let data = [ints(&[1, 2, 3]), ints(&[start]), ints(&[end]), ints(&[0]), ints(&[step])];
        prop_assert_eq!(infer_one(SLICE, &data).is_ok(), step != 0);
    }

    #[test]
    fn no_reshape_or_pad_of_any_integers_panics(values in prop::collection::vec(prop_oneof![any::<i64>(), -2..9_i64], 4)) {
        let x = shape(&[2, 6]);
        for op in [RESHAPE, PAD] {
            if let Ok(inferred) = infer_one(op.clone(), &[x.clone(), ints(&values)]) {
                let count: usize = inferred.shapes["y"].iter().product();
                prop_assert!(op != RESHAPE || count == 12);
            }
        }
    }
}
