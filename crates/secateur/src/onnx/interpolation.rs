//! `Resize` and `Upsample`, from the file and to it.

use super::attributes::{Attributes, make};
use super::proto::AttributeProto;
use crate::graph::{AspectRatio, Coordinates, Interpolation, Nearest, Op, ResizeAttrs};

/// ONNX's names of what an attribute can say.
const COORDINATES: [(&str, Coordinates); 5] = [
    ("half_pixel", Coordinates::HalfPixel),
    ("half_pixel_symmetric", Coordinates::HalfPixelSymmetric),
    ("pytorch_half_pixel", Coordinates::PytorchHalfPixel),
    ("align_corners", Coordinates::AlignCorners),
    ("asymmetric", Coordinates::Asymmetric),
];
const NEAREST: [(&str, Nearest); 4] = [
    ("round_prefer_floor", Nearest::RoundPreferFloor),
    ("round_prefer_ceil", Nearest::RoundPreferCeil),
    ("floor", Nearest::Floor),
    ("ceil", Nearest::Ceil),
];
const ASPECT_RATIO: [(&str, AspectRatio); 3] = [
    ("stretch", AspectRatio::Stretch),
    ("not_larger", AspectRatio::NotLarger),
    ("not_smaller", AspectRatio::NotSmaller),
];
/// The schema's default of `cubic_coeff_a`.
const CUBIC_A: f32 = -0.75;

/// The value that attribute `name` names; the first of `names` where it is absent.
fn named<T: Copy>(
    a: &Attributes<'_>,
    name: &str,
    names: &[(&'static str, T)],
) -> Result<T, String> {
    let text = a.text(name)?.unwrap_or(names[0].0);
    let found = names.iter().find(|(known, _)| *known == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(known, _)| *known).collect();
        format!(
            "attribute `{name}` is `{text}`; supported are {}",
            known.join(", ")
        )
    })
}

fn text_of<T: Copy + PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    let found = names.iter().find(|(_, known)| *known == value);
    found.map_or(names[0].0, |(name, _)| name)
}

/// The attributes of `Resize`.
pub(super) fn resize(a: &Attributes<'_>, opset: i64) -> Result<ResizeAttrs, String> {
    let mode = a.text("mode")?.unwrap_or("nearest");
    if opset < 11 {
        return Ok(ResizeAttrs::upsample(old_interpolation(mode)?));
    }
    a.float("extrapolation_value")?; // Concerns `tf_crop_and_resize` only, which is refused.
    let interpolation = match mode {
        "nearest" => Interpolation::Nearest(named(a, "nearest_mode", &NEAREST)?),
        "linear" => Interpolation::Linear,
        "cubic" => Interpolation::Cubic {
            a: a.float("cubic_coeff_a")?.unwrap_or(CUBIC_A),
        },
        other => return Err(format!("attribute `mode` is `{other}`, which is unknown")),
    };
    Ok(ResizeAttrs {
        interpolation,
        coordinates: named(a, "coordinate_transformation_mode", &COORDINATES)?,
        exclude_outside: a.flag("exclude_outside")?.unwrap_or(false),
        antialias: a.flag("antialias")?.unwrap_or(false),
        axes: a.ints("axes")?.map(<[i64]>::to_vec),
        aspect_ratio: named(a, "keep_aspect_ratio_policy", &ASPECT_RATIO)?,
    })
}

/// Before operator set 11 the nearest element is the one below.
fn old_interpolation(mode: &str) -> Result<Interpolation, String> {
    match mode {
        "nearest" => Ok(Interpolation::Nearest(Nearest::Floor)),
        "linear" | "bilinear" => Ok(Interpolation::Linear),
        other => Err(format!("attribute `mode` is `{other}`, which is unknown")),
    }
}

/// `Upsample` with `inputs` inputs.
pub(super) fn upsample(a: &Attributes<'_>, inputs: usize) -> Result<Op, String> {
    let scales = a.floats("scales")?.map(<[f32]>::to_vec);
    if scales.is_none() && inputs < 2 {
        return Err("attribute `scales` is missing".into());
    }
    Ok(Op::Upsample {
        interpolation: old_interpolation(a.text("mode")?.unwrap_or("nearest"))?,
        scales,
    })
}

/// `Resize` written for operator set `opset`.
pub(super) fn resize_attributes(
    attrs: &ResizeAttrs,
    opset: i64,
) -> Result<Vec<AttributeProto>, String> {
    if opset < 11 {
        if *attrs != ResizeAttrs::upsample(attrs.interpolation) {
            return Err(format!(
                "has a form that operator set {opset} does not know"
            ));
        }
        return Ok(vec![make::text("mode", old_mode(attrs.interpolation)?)]);
    }
    let coordinates = text_of(&COORDINATES, attrs.coordinates);
    let mut all = vec![make::text("coordinate_transformation_mode", coordinates)];
    match attrs.interpolation {
        Interpolation::Nearest(nearest) => {
            all.push(make::text("mode", "nearest"));
            all.push(make::text("nearest_mode", text_of(&NEAREST, nearest)));
        }
        Interpolation::Linear => all.push(make::text("mode", "linear")),
        Interpolation::Cubic { a } => {
            all.push(make::text("mode", "cubic"));
            all.push(make::float("cubic_coeff_a", a));
        }
    }
    if attrs.exclude_outside {
        all.push(make::flag("exclude_outside", true));
    }
    // Where the operator set lacks one of these, a value other than its default fails the check.
    if attrs.antialias {
        all.push(make::flag("antialias", true));
    }
    all.extend(attrs.axes.as_ref().map(|axes| make::ints("axes", axes)));
    if attrs.aspect_ratio != AspectRatio::Stretch {
        let policy = text_of(&ASPECT_RATIO, attrs.aspect_ratio);
        all.push(make::text("keep_aspect_ratio_policy", policy));
    }
    Ok(all)
}

/// `Upsample` written.
pub(super) fn upsample_attributes(
    interpolation: Interpolation,
    scales: Option<&[f32]>,
) -> Result<Vec<AttributeProto>, String> {
    let mut all = vec![make::text("mode", old_mode(interpolation)?)];
    all.extend(scales.map(|scales| make::floats("scales", scales)));
    Ok(all)
}

fn old_mode(interpolation: Interpolation) -> Result<&'static str, String> {
    match interpolation {
        Interpolation::Nearest(Nearest::Floor) => Ok("nearest"),
        Interpolation::Linear => Ok("linear"),
        Interpolation::Nearest(_) | Interpolation::Cubic { .. } => {
            Err("interpolates in a way that its operator set does not know".into())
        }
    }
}
