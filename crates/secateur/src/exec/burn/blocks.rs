//! Channels turned into positions, and back.

use super::apply::Args;
use super::value::Value;
use crate::exec::ExecError;
use crate::graph::DepthOrder;

/// `DepthToSpace`.
pub(super) fn depth_to_space(
    args: &mut Args<'_>,
    block: usize,
    order: DepthOrder,
) -> Result<Value, ExecError> {
    let [images, channels, height, width] = args.image_shape(0)?;
    let area = block * block;
    if area == 0 || channels % area != 0 {
        return Err(args.error(format!("{channels} channels and blocks of {block}")));
    }
    let out = channels / area;
    let x = args.take(0)?;
    let y = match order {
        DepthOrder::DepthFirst => x
            .reshape([images, block, block, out, height, width])
            .permute([0, 3, 4, 1, 5, 2]),
        DepthOrder::ColumnFirst => x
            .reshape([images, out, block, block, height, width])
            .permute([0, 1, 4, 2, 5, 3]),
    };
    Ok(Value::from(y).reshaped(args.out_shape))
}

/// `SpaceToDepth`.
pub(super) fn space_to_depth(
    args: &mut Args<'_>,
    block: usize,
    order: DepthOrder,
) -> Result<Value, ExecError> {
    let [images, channels, height, width] = args.image_shape(0)?;
    if block == 0 || height % block != 0 || width % block != 0 {
        return Err(args.error(format!(
            "an image of {height} by {width} and blocks of {block}"
        )));
    }
    let (rows, columns) = (height / block, width / block);
    let x = args.take(0)?;
    let x = x.reshape([images, channels, rows, block, columns, block]);
    let y = match order {
        DepthOrder::DepthFirst => x.permute([0, 3, 5, 1, 2, 4]),
        DepthOrder::ColumnFirst => x.permute([0, 1, 3, 5, 2, 4]),
    };
    Ok(Value::from(y).reshaped(args.out_shape))
}
