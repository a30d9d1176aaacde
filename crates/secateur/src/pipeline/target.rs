//! What a run must reach: `acc-drop=1.0pp`, `output-error=5%`, `params=25%`, `macs=50%`, `size=2MB`, `latency=8ms`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An amount that is kept: a share of the original's, or an absolute number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// A share of the original's, 0 to 1.
    Share(f64),
    /// A number of parameters, multiply-accumulates, bytes or milliseconds.
    Absolute(f64),
}

impl Amount {
    /// The number it stands for, given the original's.
    #[must_use]
    pub fn resolve(self, original: f64) -> f64 {
        match self {
            Self::Share(share) => share * original,
            Self::Absolute(number) => number,
        }
    }
}

/// One thing that must hold at the end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// At most this many percentage points of top-1 accuracy lost.
    AccDrop(f64),
    /// At most this error of the outputs beside the uncut network's, a share of their spread: for images
    /// without labels.
    OutputError(f64),
    /// At most this many parameters kept.
    Params(Amount),
    /// At most this many multiply-accumulates kept.
    Macs(Amount),
    /// An exported file of at most this many bytes.
    Size(Amount),
    /// At most this many milliseconds for one run of the exported file, the median.
    Latency(Amount),
}

/// What shares are of: the network before anything was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Original {
    /// Parameters.
    pub params: u64,
    /// Multiply-accumulates of one image.
    pub macs: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Milliseconds of one run; 0 where that was not measured.
    pub millis: f64,
}

/// A text that is no target.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no target: want `acc-drop=1.0pp`, `params=25%`, `macs=50%`, `size=2MB` or `latency=8ms` (what is kept), \
     or, without labels, `output-error=5%`"
)]
pub struct TargetError(String);

impl Target {
    /// The name before `=`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::AccDrop(_) => "acc-drop",
            Self::OutputError(_) => "output-error",
            Self::Params(_) => "params",
            Self::Macs(_) => "macs",
            Self::Size(_) => "size",
            Self::Latency(_) => "latency",
        }
    }

    /// The wanted number: percentage points, a share of the outputs' spread, parameters, multiply-accumulates, bytes or milliseconds.
    #[must_use]
    pub fn want(&self, original: &Original) -> f64 {
        match self {
            Self::AccDrop(points) => *points,
            Self::OutputError(share) => *share,
            Self::Params(amount) => amount.resolve(original.params as f64),
            Self::Macs(amount) => amount.resolve(original.macs as f64),
            Self::Size(amount) => amount.resolve(original.bytes as f64),
            Self::Latency(amount) => amount.resolve(original.millis),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let error = || TargetError(text.to_owned());
        let (name, value) = text.split_once('=').ok_or_else(error)?;
        let (name, value) = (name.trim(), value.trim());
        let number = |digits: &str| {
            let number = digits.trim().parse::<f64>().map_err(|_| error())?;
            if number.is_finite() && number >= 0.0 {
                Ok(number)
            } else {
                Err(error())
            }
        };
        let amount = |units: &[(&str, f64)]| {
            if let Some(percent) = value.strip_suffix('%') {
                let share = number(percent)? / 100.0;
                return if share <= 1.0 {
                    Ok(Amount::Share(share))
                } else {
                    Err(error())
                };
            }
            for (unit, factor) in units {
                if let Some(digits) = value.strip_suffix(unit) {
                    return Ok(Amount::Absolute(number(digits)? * factor));
                }
            }
            Ok(Amount::Absolute(number(value)?))
        };
        let counts = [("k", 1e3), ("M", 1e6), ("G", 1e9)];
        let bytes = [
            ("KiB", 1024.0),
            ("MiB", 1_048_576.0),
            ("kB", 1e3),
            ("KB", 1e3),
            ("MB", 1e6),
            ("GB", 1e9),
            ("B", 1.0),
        ];
        // Longer units first: every one of them ends in `s`. A bare number could be either.
        let times = [("ms", 1.0), ("us", 1e-3), ("s", 1e3)];
        match name {
            "acc-drop" => Ok(Self::AccDrop(number(
                value.strip_suffix("pp").ok_or_else(error)?,
            )?)),
            "output-error" => match amount(&[])? {
                Amount::Share(share) => Ok(Self::OutputError(share)),
                Amount::Absolute(_) => Err(error()),
            },
            "params" => Ok(Self::Params(amount(&counts)?)),
            "macs" => Ok(Self::Macs(amount(&counts)?)),
            "size" => Ok(Self::Size(amount(&bytes)?)),
            "latency" if value.ends_with(['s', '%']) => Ok(Self::Latency(amount(&times)?)),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |f: &mut fmt::Formatter<'_>, amount: &Amount, unit: &str| match amount {
            // A share is read as a percentage divided by 100: take its rounding back.
            Amount::Share(share) => {
                let percent = (share * 1e11).round() / 1e9;
                write!(f, "{}={percent}%", self.name())
            }
            Amount::Absolute(number) => write!(f, "{}={number}{unit}", self.name()),
        };
        match self {
            Self::AccDrop(points) => write!(f, "acc-drop={points}pp"),
            Self::OutputError(share) => amount(f, &Amount::Share(*share), ""),
            Self::Params(a) | Self::Macs(a) => amount(f, a, ""),
            Self::Size(a) => amount(f, a, "B"),
            Self::Latency(a) => amount(f, a, "ms"),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;
    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_say_what_is_kept() {
        for (text, want) in [
            ("acc-drop=1.0pp", Target::AccDrop(1.0)),
            ("params=25%", Target::Params(Amount::Share(0.25))),
            ("params=1.5M", Target::Params(Amount::Absolute(1.5e6))),
            ("macs=50%", Target::Macs(Amount::Share(0.5))),
            ("size=2MB", Target::Size(Amount::Absolute(2e6))),
            ("size=512KiB", Target::Size(Amount::Absolute(524_288.0))),
            ("output-error=5%", Target::OutputError(0.05)),
            ("latency=50%", Target::Latency(Amount::Share(0.5))),
            ("latency=8ms", Target::Latency(Amount::Absolute(8.0))),
            ("latency=2s", Target::Latency(Amount::Absolute(2000.0))),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target, want);
            assert_eq!(target.to_string().parse::<Target>().unwrap(), want);
        }
    }

    #[test]
    fn a_bare_ratio_a_typo_and_a_negative_number_are_refused() {
        for text in [
            "acc-drop=1.0",
            "ratio=0.5",
            "params",
            "params=-1%",
            "params=120%",
            "macs=x",
            "size=NaN",
            "latency=8",
            "output-error=0.1",
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
