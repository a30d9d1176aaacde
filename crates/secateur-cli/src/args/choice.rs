//! Values of options: choices that the library names, and image sizes.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A parser for a choice whose names are those of the library's settings files. The names are listed
/// for the help; a test holds them against the library.
pub fn of<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| parse::<T>(&name))
}

fn parse<T: DeserializeOwned>(name: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(Value::String(name.to_owned()))
}

/// The name of a choice.
pub fn name(choice: &impl Serialize) -> String {
    match serde_json::to_value(choice) {
        Ok(Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// `HxW`, in pixels.
pub fn size(text: &str) -> Result<[usize; 2], String> {
    let parse = || {
        let (height, width) = text.split_once(['x', 'X'])?;
        let size = [height.trim().parse().ok()?, width.trim().parse().ok()?];
        size.iter().all(|&side| side > 0).then_some(size)
    };
    parse().ok_or_else(|| {
        format!("`{text}` is no size: want height and width in pixels, such as `224x224`")
    })
}

/// A fraction that a share of data can be.
pub fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fraction) if (0.0..1.0).contains(&fraction) => Ok(fraction),
        _ => Err(format!("`{text}` is not from 0 to under 1")),
    }
}

/// A weight from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("`{text}` is not from 0 to 1")),
    }
}

/// A number above zero.
pub fn positive(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(format!("`{text}` is no number above 0")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_height_by_width() {
        assert_eq!(size("32x64").unwrap(), [32, 64]);
        for text in ["32", "0x32", "32x", "axb", "-1x4", "32x64x3"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fractions_leave_something() {
        assert_eq!(fraction("0.25").unwrap(), 0.25);
        for text in ["1", "-0.1", "NaN", "x"] {
            assert!(fraction(text).is_err(), "{text}");
        }
        assert_eq!(share("1").unwrap(), 1.0);
        for text in ["1.1", "-0.1", "NaN"] {
            assert!(share(text).is_err(), "{text}");
        }
        for text in ["0", "-1", "inf", "NaN"] {
            assert!(positive(text).is_err(), "{text}");
        }
    }
}
