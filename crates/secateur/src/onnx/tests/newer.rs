//! Forms of newer operators that are refused.

use super::build::{floats, node};
use super::refused::{assert_says, of_node};
use crate::onnx::attributes::make;
use crate::onnx::proto::{AttributeProto, NodeProto};

#[test]
fn forms_of_newer_operators_that_are_not_supported_say_so() {
    let refused = |opset, node: NodeProto, attributes: Vec<AttributeProto>, wanted: &[&str]| {
        let given = NodeProto {
            attribute: attributes,
            ..node
        };
        let scales = floats("s", &[4], &[1.0; 4]);
        assert_says(&of_node(opset, given, vec![scales]), wanted);
    };
    let resize = || node("Resize", "n", &["x", "", "s"], &["y"]);
    let mode = "coordinate_transformation_mode";
    let crop = make::text(mode, "tf_crop_and_resize");
    refused(
        13,
        resize(),
        vec![crop],
        &["`n`", mode, "tf_crop_and_resize"],
    );
    refused(
        13,
        resize(),
        vec![make::text("mode", "lanczos")],
        &["`mode`", "lanczos"],
    );
    refused(
        13,
        resize(),
        vec![make::flag("antialias", true)],
        &["`antialias`", "operator set 13"],
    );
    let old = || node("Upsample", "n", &["x", "s"], &["y"]);
    refused(
        10,
        old(),
        vec![],
        &["`Upsample in operator set 10` is not supported"],
    );
    let norm = || node("LayerNormalization", "n", &["x", "s"], &["y"]);
    refused(
        17,
        norm(),
        vec![make::int("stash_type", 10)],
        &["`stash_type`", "10"],
    );
    let gelu = || node("Gelu", "n", &["x"], &["y"]);
    refused(
        20,
        gelu(),
        vec![make::text("approximate", "erf")],
        &["`approximate`", "`erf`"],
    );
    let celu = || node("Celu", "n", &["x"], &["y"]);
    refused(
        12,
        celu(),
        vec![make::float("alpha", 0.0)],
        &["`alpha` is 0"],
    );
    let split = |outputs: &[&str]| node("Split", "n", &["x"], outputs);
    refused(
        18,
        split(&["y", "z"]),
        vec![make::int("num_outputs", 3)],
        &["`num_outputs`", "2"],
    );
    refused(18, split(&["y", ""]), vec![], &["output 1 is left out"]);
    let blocks = || node("DepthToSpace", "n", &["x"], &["y"]);
    refused(
        13,
        blocks(),
        vec![make::int("blocksize", 0)],
        &["`blocksize` is 0"],
    );
    refused(13, blocks(), vec![], &["`blocksize` is missing"]);
}
