//! Typed quantities and how they are printed.

use std::fmt;

/// A number of bytes; prints with binary prefixes ("1.50 MiB").
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut unit = "B";
        for next in ["KiB", "MiB", "GiB", "TiB"] {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = next;
        }
        if unit == "B" {
            write!(f, "{} B", self.0)
        } else {
            write!(f, "{value:.2} {unit}")
        }
    }
}

/// A number of things; prints with separators ("1,048,576").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// A duration in seconds; prints as "850 ms", "12.3 s", "4 min 05 s", "2 h 03 min".
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, serde::Serialize, serde::Deserialize)]
pub struct Seconds(pub f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        if s < 1.0 {
            write!(f, "{:.0} ms", s * 1e3)
        } else if s < 60.0 {
            write!(f, "{s:.1} s")
        } else if s < 3600.0 {
            write!(
                f,
                "{:.0} min {:02.0} s",
                (s / 60.0).floor(),
                (s % 60.0).floor()
            )
        } else {
            write!(
                f,
                "{:.0} h {:02.0} min",
                (s / 3600.0).floor(),
                (s % 3600.0 / 60.0).floor()
            )
        }
    }
}

/// A value with so many decimals; one that rounds to zero has no sign.
pub fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(size) if size.bytes().all(|byte| matches!(byte, b'0' | b'.')) => size.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rounds_to_zero_has_no_sign() {
        assert_eq!(fixed(-0.00001, 4), "0.0000");
        assert_eq!(fixed(-0.0, 2), "0.00");
        assert_eq!(fixed(-0.00006, 4), "-0.0001");
        assert_eq!(fixed(-1.0, 0), "-1");
        assert_eq!(fixed(0.25, 3), "0.250");
    }

    #[test]
    fn quantities_print_with_their_units() {
        assert_eq!(Bytes(512).to_string(), "512 B");
        assert_eq!(Bytes(3 << 19).to_string(), "1.50 MiB");
        assert_eq!(Count(0).to_string(), "0");
        assert_eq!(Count(512).to_string(), "512");
        assert_eq!(Count(8192).to_string(), "8,192");
        assert_eq!(Count(1_048_576).to_string(), "1,048,576");
        assert_eq!(Seconds(0.85).to_string(), "850 ms");
        assert_eq!(Seconds(245.0).to_string(), "4 min 05 s");
        assert_eq!(Seconds(7380.0).to_string(), "2 h 03 min");
    }
}
