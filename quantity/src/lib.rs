//! Amounts of resources, as Kubernetes reads, adds and writes them (`resource.Quantity`). No IO.
//!
//! Of our own, because the crate there is (`kube_quantity` 0.9) reads numbers as floating point: it takes `inf` and `Mi` for
//! amounts, is exact to 2^53 only, knows no largest amount and writes no exponents.

mod read;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Billionths in one: the finest amount there is.
const UNIT: i128 = 1_000_000_000;

/// Billionths in a thousandth.
const MILLI: i128 = 1_000_000;

/// The largest amount in whole units, as in Go; whatever is larger counts as this.
const MOST: i128 = i64::MAX as i128 * UNIT;

/// Suffixes of powers of 1000, with their exponents.
const DECIMAL: [(&str, i32); 10] =
    [("n", -3), ("u", -2), ("m", -1), ("", 0), ("k", 1), ("M", 2), ("G", 3), ("T", 4), ("P", 5), ("E", 6)];

/// Suffixes of powers of 1024, with their exponents.
const BINARY: [(&str, u32); 6] = [("Ki", 1), ("Mi", 2), ("Gi", 3), ("Ti", 4), ("Pi", 5), ("Ei", 6)];

/// An exact amount. Two are equal when they are the same amount, however they are written.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// At most [`MOST`] from nothing, in either direction.
    nanos: i128,
    form: Form,
}

/// How an amount likes to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

/// The text is no quantity. What is said is what Kubernetes says.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct NoQuantity;

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self::whole(0);
    /// One unit.
    pub const ONE: Self = Self::whole(1);

    /// So many whole units.
    pub const fn whole(number: i64) -> Self {
        Self { nanos: number as i128 * UNIT, form: Form::Decimal }
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whole units; what is left of one counts as one, whatever its sign, as in Kubernetes.
    pub fn units(self) -> i128 {
        away_from_zero(self.nanos, UNIT)
    }

    /// Thousandths; what is left of one counts as one, whatever its sign, as in Kubernetes.
    pub fn millis(self) -> i128 {
        away_from_zero(self.nanos, MILLI)
    }

    /// One of so many equal parts in whole units, rounded down, written as this is.
    #[must_use]
    pub fn part_in_units(self, parts: u32) -> Self {
        Self { nanos: self.units() / i128::from(parts.max(1)) * UNIT, ..self }
    }

    /// One of so many equal parts in thousandths, rounded down, written as this is.
    #[must_use]
    pub fn part_in_millis(self, parts: u32) -> Self {
        Self { nanos: self.millis() / i128::from(parts.max(1)) * MILLI, ..self }
    }

    /// The sum; an amount added to nothing keeps its form.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let form = if self.is_zero() { other.form } else { self.form };
        Self { nanos: (self.nanos + other.nanos).clamp(-MOST, MOST), form }
    }

    /// The difference, and nothing where it would be less.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { nanos: (self.nanos - other.nanos).clamp(0, MOST), ..self }
    }

    /// How many times the other amount fits in, for showing and comparing; `None` if it is nothing.
    #[expect(clippy::cast_precision_loss, reason = "ratios are told with six digits")]
    pub fn ratio(self, other: Self) -> Option<f64> {
        (other.nanos != 0).then(|| self.nanos as f64 / other.nanos as f64)
    }
}

fn away_from_zero(amount: i128, unit: i128) -> i128 {
    amount / unit + (amount % unit).signum()
}

impl FromStr for Quantity {
    type Err = NoQuantity;

    /// Finer than billionths rounds away from zero, as in Kubernetes: nobody gets something for nothing.
    fn from_str(text: &str) -> Result<Self, NoQuantity> {
        read::quantity(text).ok_or(NoQuantity)
    }
}

impl fmt::Display for Quantity {
    /// The canonical text: whole digits, and the largest suffix that loses none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.nanos / UNIT;
        if self.form == Form::Binary && self.nanos % UNIT == 0 && units.abs() >= 1024 {
            let power = (units.trailing_zeros() / 10).min(6);
            let suffix = BINARY.iter().find(|(_, known)| *known == power).map_or("", |(suffix, _)| suffix);
            return write!(f, "{}{suffix}", units >> (10 * power));
        }
        if self.is_zero() {
            return f.write_str("0");
        }
        let (mut digits, mut power) = (self.nanos, -3);
        while digits % 1000 == 0 && power < 6 {
            digits /= 1000;
            power += 1;
        }
        match self.form {
            Form::Exponent if power == 0 => write!(f, "{digits}"),
            Form::Exponent => write!(f, "{digits}e{}", power * 3),
            Form::Decimal | Form::Binary => {
                let suffix =
                    DECIMAL.iter().find(|(_, known)| *known == power).map_or("", |(suffix, _)| suffix);
                write!(f, "{digits}{suffix}")
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

#[cfg(test)]
mod tests;
