//! Weights that are kept packed.

use super::{conv, numbers};
use secateur_kernels::Layout;
use secateur_kernels::conv::{ConvShape, Finish, backward_data, forward};
use secateur_kernels::packed::{Packed, Weight};

#[test]
fn a_weight_that_is_kept_packed_is_packed_once() {
    // Products one by one, patches, few channels, positions side by side, and a depthwise kernel, which packs nothing.
    let (one, pads) = ([1, 1], [1, 1, 1, 1]);
    let cases = [
        conv(32, 1, [5, 6, 6], 7, [1, 1], one, one, [0; 4]),
        conv(32, 1, [40, 8, 8], 36, [3, 3], one, one, pads),
        conv(8, 1, [40, 8, 8], 36, [3, 3], one, one, pads),
        conv(8, 1, [5, 6, 6], 7, [3, 3], [2, 2], one, pads),
        conv(8, 1, [20, 6, 6], 33, [1, 1], one, one, [0; 4]),
        conv(16, 4, [4, 6, 6], 4, [3, 3], one, one, pads),
    ];
    for shape in cases {
        let shape = shape.expect("the kernel fits");
        // Of one place: 3x3 kernels are not transformed there, and have one tap in use.
        let other = ConvShape {
            input: [shape.input[0], 1, 1],
            output: [shape.output[0], 1, 1],
            ..shape
        };
        let layout = Layout::Bundles(shape.images);
        let w = numbers(shape.weight_len(), 2);
        let both = |shape: &ConvShape, weight: Weight<'_>| {
            let x = numbers(shape.input_len(), 1);
            let dy = numbers(shape.output_len(), 3);
            let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
            forward(layout, shape, &x, weight, Finish::default(), &mut y);
            backward_data(layout, shape, weight, &dy, &mut dx);
            [y, dx]
        };
        let want = both(&shape, Weight::new(&w));
        let (packed, others) = (Packed::default(), vec![f32::NAN; w.len()]);
        let kept = |values| Weight {
            values,
            packed: Some(&packed),
        };
        assert_eq!(both(&shape, kept(&w)), want, "{shape:?}");
        let len = packed.len();
        assert_eq!(packed.is_empty(), shape.groups > 1, "{shape:?}");
        if shape.groups == 1 {
            assert_eq!(both(&shape, kept(&others)), want);
        }
        // Of another shape nothing is kept, and nothing read.
        let want = both(&other, Weight::new(&w));
        assert_eq!(both(&other, kept(&w)), want, "{other:?}");
        assert_eq!(packed.len(), len);
    }
}
