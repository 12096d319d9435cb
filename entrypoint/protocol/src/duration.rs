//! Durations as Go spells them (`1h30m`, `1.5s`), the form every timeout in the API has. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A signed duration in nanoseconds, read and written like Go's `time.Duration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(
    /// Nanoseconds.
    pub i64,
);

impl GoDuration {
    /// No time at all; as a timeout it means "none".
    pub const ZERO: GoDuration = GoDuration(0);

    /// A duration of whole seconds, clamped to what fits (about 292 years).
    pub const fn from_secs(seconds: i64) -> Self {
        GoDuration(seconds.saturating_mul(1_000_000_000))
    }

    /// The length in nanoseconds.
    pub const fn as_nanos(&self) -> i64 {
        self.0
    }

    /// The length as a std duration; negative lengths become zero.
    pub fn as_std(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    /// Whether this is exactly zero, which disables a timeout.
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl From<Duration> for GoDuration {
    /// Clamped to what fits (about 292 years).
    fn from(duration: Duration) -> Self {
        GoDuration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// Why a text is no duration. The wording is Go's, as users know it from other tools.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// Not of the form number, unit, number, unit, ...; or out of range.
    #[error("invalid duration {0:?}, expected a form such as \"1h30m\" or \"90s\"")]
    Invalid(String),
    /// A number with no unit behind it.
    #[error("missing unit in duration {0:?}, expected a form such as \"1h30m\" or \"90s\"")]
    MissingUnit(String),
    /// A unit other than ns, us, µs, ms, s, m and h.
    #[error("unknown unit {unit:?} in duration {text:?}, the units are ns, us, ms, s, m and h")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The whole text.
        text: String,
    },
}

impl FromStr for GoDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseDurationError::Invalid(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(GoDuration::ZERO);
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (whole, after_whole) = split_digits(rest);
            let (fraction, after_number) = match after_whole.strip_prefix('.') {
                Some(after_point) => split_digits(after_point),
                None => ("", after_whole),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(invalid());
            }
            let unit_end =
                after_number.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after_number.len());
            let (unit, next) = after_number.split_at(unit_end);
            if unit.is_empty() {
                return Err(ParseDurationError::MissingUnit(text.to_owned()));
            }
            let nanos = unit_nanos(unit).ok_or_else(|| ParseDurationError::UnknownUnit {
                unit: unit.to_owned(),
                text: text.to_owned(),
            })?;
            let count: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
            total = count
                .checked_mul(nanos)
                .and_then(|part| part.checked_add(fraction_nanos(fraction, nanos)))
                .and_then(|part| total.checked_add(part))
                .filter(|sum| *sum <= 1 << 63)
                .ok_or_else(invalid)?;
            rest = next;
        }
        if negative {
            Ok(GoDuration(0_i64.checked_sub_unsigned(total).ok_or_else(invalid)?))
        } else {
            Ok(GoDuration(i64::try_from(total).map_err(|_| invalid())?))
        }
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3600 * NANOS_PER_SECOND,
        _ => return None,
    })
}

/// Nanoseconds in `0.<digits>` of a unit.
///
/// In floating point on purpose: Go does the same, and `0.3333333333333333333h` is 20 minutes there.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn fraction_nanos(digits: &str, unit: u64) -> u64 {
    let mut value: u64 = 0;
    let mut scale = 1.0_f64;
    for digit in digits.bytes() {
        let Some(next) = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(u64::from(digit - b'0')))
            .filter(|v| *v <= 1 << 63)
        else {
            break;
        };
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        if nanos < NANOS_PER_SECOND {
            let (unit, size) = match nanos {
                1..1_000 => ("ns", 1),
                1_000..1_000_000 => ("\u{b5}s", 1_000),
                _ => ("ms", 1_000_000),
            };
            return write!(f, "{}{unit}", Decimal { value: nanos, scale: size });
        }
        let minutes = nanos / (60 * NANOS_PER_SECOND);
        let seconds = Decimal { value: nanos % (60 * NANOS_PER_SECOND), scale: NANOS_PER_SECOND };
        match (minutes / 60, minutes % 60) {
            (0, 0) => write!(f, "{seconds}s"),
            (0, minutes) => write!(f, "{minutes}m{seconds}s"),
            (hours, minutes) => write!(f, "{hours}h{minutes}m{seconds}s"),
        }
    }
}

/// `value / scale` as a decimal number without trailing zeros; `scale` is a power of ten.
struct Decimal {
    value: u64,
    scale: u64,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value / self.scale)?;
        let remainder = self.value % self.scale;
        if remainder == 0 {
            return Ok(());
        }
        let width = self.scale.ilog10() as usize;
        let digits = format!("{remainder:0width$}");
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(feature = "schemars")]
impl schemars::JsonSchema for GoDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "duration" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", 0, "0s")]
    #[case("0s", 0, "0s")]
    #[case("-0", 0, "0s")]
    #[case("1h", 3_600_000_000_000, "1h0m0s")]
    #[case("1h30m", 5_400_000_000_000, "1h30m0s")]
    #[case("90s", 90_000_000_000, "1m30s")]
    #[case("1.5s", 1_500_000_000, "1.5s")]
    #[case(".5s", 500_000_000, "500ms")]
    #[case("1.s", 1_000_000_000, "1s")]
    #[case("+5s", 5_000_000_000, "5s")]
    #[case("-1.5h", -5_400_000_000_000, "-1h30m0s")]
    #[case("1us", 1_000, "1µs")]
    #[case("1µs", 1_000, "1µs")]
    #[case("1μs", 1_000, "1µs")]
    #[case("1500ns", 1_500, "1.5µs")]
    #[case("2ms", 2_000_000, "2ms")]
    #[case("3m1ns", 180_000_000_001, "3m0.000000001s")]
    #[case("0.3333333333333333333h", 1_200_000_000_000, "20m0s")]
    #[case("0.9223372036854775807h", 3_320_413_933_267, "55m20.413933267s")]
    #[case("9223372036854775807ns", i64::MAX, "2562047h47m16.854775807s")]
    #[case("-9223372036854775808ns", i64::MIN, "-2562047h47m16.854775808s")]
    fn reads_and_writes_as_go(#[case] text: &str, #[case] nanos: i64, #[case] canonical: &str) {
        assert_eq!(text.parse(), Ok(GoDuration(nanos)));
        assert_eq!(GoDuration(nanos).to_string(), canonical);
    }

    #[rstest]
    #[case("", "invalid duration")]
    #[case("-", "invalid duration")]
    #[case(".s", "invalid duration")]
    #[case("+-1s", "invalid duration")]
    #[case("1h ", "unknown unit \"h \"")]
    #[case(" 1h", "invalid duration")]
    #[case("3", "missing unit")]
    #[case("1h3", "missing unit")]
    #[case("1d", "unknown unit \"d\"")]
    #[case("9223372036854775808ns", "invalid duration")]
    #[case("9999999h", "invalid duration")]
    #[case("99999999999999999999s", "invalid duration")]
    fn refuses_what_go_refuses(#[case] text: &str, #[case] reason: &str) {
        let error = text.parse::<GoDuration>().map_err(|e| e.to_string());
        assert!(error.as_ref().is_err_and(|e| e.starts_with(reason)), "{error:?}");
    }

    #[test]
    fn negative_durations_clamp_to_zero_in_std() {
        assert_eq!(GoDuration(-1).as_std(), Duration::ZERO);
        assert_eq!(GoDuration::from_secs(2).as_std(), Duration::from_secs(2));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanos: i64) {
            prop_assert_eq!(GoDuration(nanos).to_string().parse(), Ok(GoDuration(nanos)));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = text.parse::<GoDuration>();
        }
    }
}
