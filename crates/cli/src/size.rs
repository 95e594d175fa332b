//! Amounts of memory, as typed and as printed.

use std::fmt;
use std::str::FromStr;

const UNITS: [(&str, u64); 4] = [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no size: write a number of bytes, or a number and K, M, G or T, as in 512M");
        // `512MiB` is what is printed, so it can be typed.
        let short = text.strip_suffix("iB").unwrap_or(text);
        let is_unit = |unit: &str| short.strip_suffix(unit).or_else(|| short.strip_suffix(&unit.to_lowercase()));
        let (digits, unit) =
            UNITS.into_iter().find_map(|(unit, bytes)| Some((is_unit(unit)?, bytes))).unwrap_or((text, 1));
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(unit).ok_or_else(|| format!("`{text}` is more than any machine has"))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Size {
    /// Exactly, where that is short: `64K`, `4097`; else `1.23 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let Some((unit, one)) = UNITS.into_iter().rev().find(|(_, one)| bytes >= *one) else {
            return write!(f, "{bytes}");
        };
        if bytes.is_multiple_of(one) {
            return write!(f, "{}{unit}", bytes / one);
        }
        write!(f, "{:.2} {unit}iB", bytes as f64 / one as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn a_size_is_a_number_and_perhaps_a_unit() {
        for (text, bytes, shown) in [
            ("0", 0, "0"),
            ("4097", 4097, "4.00 KiB"),
            ("64K", 65536, "64K"),
            ("512m", 512 << 20, "512M"),
            ("3MiB", 3 << 20, "3M"),
            ("2G", 2 << 30, "2G"),
            ("16777215T", 16_777_215 << 40, "16777215T"),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), shown);
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for text in ["", "K", "-1", "+1", "1.5G", "1KB", "1 K", "16777216T", "99999999999999999999"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
