//! Numbers as people read them: a unit each, and no more digits than are known.

/// A count with a unit that suits its size: `812`, `31,242`, `0.270 M`, `11.2 M`, `15.3 G`.
/// Below 100,000 every digit is shown, above it three.
#[must_use]
pub fn count(n: u64) -> String {
    if n < 100_000 {
        grouped(n)
    } else if n < 9_995_000_000 {
        format!("{} M", three_digits(n as f64 / 1e6))
    } else {
        format!("{} G", three_digits(n as f64 / 1e9))
    }
}

/// Bytes: `812 B`, `45.6 kB`, `1.09 MB`; 1 MB is 1,000,000 bytes.
#[must_use]
pub fn bytes(n: u64) -> String {
    if n < 1_000 {
        format!("{n} B")
    } else if n < 100_000 {
        format!("{} kB", three_digits(n as f64 / 1e3))
    } else {
        format!("{} MB", three_digits(n as f64 / 1e6))
    }
}

/// Digits in groups of three: `10,000`.
#[must_use]
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A fraction in percent with two decimals: `91.73 %`.
#[must_use]
pub fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}

/// The relative change from `before` to `after`: `-74.1 %`; `-` where there was nothing before.
#[must_use]
pub fn change(before: u64, after: u64) -> String {
    if before == 0 {
        return "-".to_owned();
    }
    let percent = 100.0 * (after as f64 - before as f64) / before as f64;
    format!("{} %", signed(percent, 1))
}

/// The share that `part` is of `whole`: `25.9 %`; `-` where there is no whole.
#[must_use]
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", 100.0 * part as f64 / whole as f64)
}

/// A difference in percentage points: `-0.83 pp`.
#[must_use]
pub fn points(difference: f64) -> String {
    format!("{} pp", signed(difference, 2))
}

/// Seconds: `0.42 s`, `12.3 s`, `754 s`.
#[must_use]
pub fn seconds(s: f64) -> String {
    format!("{} s", three_digits(s))
}

/// Milliseconds: `0.421 ms`, `12.3 ms`.
#[must_use]
pub fn milliseconds(ms: f64) -> String {
    format!("{} ms", three_digits(ms))
}

/// A quotient of speeds: `1.87x`.
#[must_use]
pub fn times(quotient: f64) -> String {
    format!("{}x", three_digits(quotient))
}

/// A small quantity, such as a largest difference: `3.1e-6`, `0`.
#[must_use]
pub fn small(x: f64) -> String {
    if x == 0.0 {
        "0".to_owned()
    } else {
        format!("{x:.1e}")
    }
}

/// `+`, `-` or nothing before zero, so that no `-0.0` appears.
fn signed(x: f64, decimals: usize) -> String {
    let text = format!("{x:+.decimals$}");
    let is_zero = text.chars().all(|c| !c.is_ascii_digit() || c == '0');
    if is_zero {
        format!("{:.decimals$}", 0.0)
    } else {
        text
    }
}

/// Three significant digits, or all digits before the point; two decimals at most.
fn three_digits(x: f64) -> String {
    let decimals = match x.abs() {
        x if x < 0.9995 => 3,
        x if x < 9.995 => 2,
        x if x < 99.95 => 1,
        _ => 0,
    };
    format!("{x:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_bytes_have_three_digits_and_a_unit() {
        for (n, want) in [
            (0, "0"),
            (31_242, "31,242"),
            (99_999, "99,999"),
            (269_722, "0.270 M"),
            (999_900, "1.00 M"),
            (11_173_962, "11.2 M"),
            (138_357_544, "138 M"),
            (9_994_999_999, "9995 M"),
            (15_346_630_656, "15.3 G"),
        ] {
            assert_eq!(count(n), want);
        }
        for (n, want) in [
            (999, "999 B"),
            (45_600, "45.6 kB"),
            (1_091_000, "1.09 MB"),
            (2_000, "2.00 kB"),
        ] {
            assert_eq!(bytes(n), want);
        }
    }

    #[test]
    fn changes_carry_a_sign_and_zero_does_not() {
        assert_eq!(change(1000, 259), "-74.1 %");
        assert_eq!(change(1000, 1100), "+10.0 %");
        assert_eq!(change(100_000, 99_999), "0.0 %");
        assert_eq!(change(0, 5), "-");
        assert_eq!(points(-0.83), "-0.83 pp");
        assert_eq!(points(-0.0001), "0.00 pp");
        assert_eq!(points(0.2), "+0.20 pp");
    }

    #[test]
    fn seconds_and_differences_show_what_is_known() {
        assert_eq!(seconds(0.4213), "0.421 s");
        assert_eq!(seconds(12.34), "12.3 s");
        assert_eq!(seconds(754.2), "754 s");
        assert_eq!(milliseconds(0.4213), "0.421 ms");
        assert_eq!(times(1.869), "1.87x");
        assert_eq!(small(3.14e-6), "3.1e-6");
        assert_eq!(small(0.0), "0");
        assert_eq!(percent(0.9173), "91.73 %");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
