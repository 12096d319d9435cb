//! Kubernetes quantities, as far as splitting and comparing needs them.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const BINARY: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
const DECIMAL: [(&str, i32); 9] =
    [("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// Thousandths, rounded up as Kubernetes does; `None` for text that is no quantity.
pub(super) fn millis(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    if let Some((digits, shift)) =
        BINARY.iter().find_map(|(suffix, shift)| Some((text.strip_suffix(suffix)?, *shift)))
    {
        return scaled(digits, 0)?.checked_mul(1 << shift).map(to_millis);
    }
    if let Some((digits, power)) =
        DECIMAL.iter().find_map(|(suffix, power)| Some((text.strip_suffix(suffix)?, *power)))
    {
        return scaled(digits, power).map(to_millis);
    }
    if let Some((digits, power)) = text.split_once(['e', 'E']) {
        return scaled(digits, power.parse().ok()?).map(to_millis);
    }
    scaled(text, 0).map(to_millis)
}

/// Billionths: fine enough for the smallest suffix.
fn scaled(digits: &str, power: i32) -> Option<i128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let number: i128 = format!("{whole}{fraction}").parse().ok()?;
    let power = power + 9 - i32::try_from(fraction.len()).ok()?;
    if power >= 0 {
        number.checked_mul(10_i128.checked_pow(u32::try_from(power).ok()?)?)
    } else {
        Some(number / 10_i128.checked_pow(power.unsigned_abs())?)
    }
}

fn to_millis(billionths: i128) -> i128 {
    const PER_MILLI: i128 = 1_000_000;
    (billionths + PER_MILLI - 1).div_euclid(PER_MILLI)
}

/// An equal part of a quantity, rounded down: CPU in thousandths, everything else in whole units (contract 5.10).
pub(super) fn share(resource: &str, quantity: &Quantity, parts: usize) -> Quantity {
    let (Some(millis), Ok(parts)) = (millis(quantity), i128::try_from(parts.max(1))) else {
        return quantity.clone();
    };
    if resource == "cpu" {
        let part = millis / parts;
        return Quantity(if part % 1000 == 0 { (part / 1000).to_string() } else { format!("{part}m") });
    }
    let part = millis / 1000 / parts;
    let binary = BINARY.iter().find(|(_, shift)| part > 0 && part % (1_i128 << shift) == 0);
    Quantity(match binary {
        Some((suffix, shift)) => format!("{}{suffix}", part >> shift),
        None => part.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_suffixes() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("500m", Some(500)),
            ("0.5", Some(500)),
            ("1Ki", Some(1_024_000)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("2k", Some(2_000_000)),
            ("1e3", Some(1_000_000)),
            ("100n", Some(1)),
            ("much", None),
        ] {
            assert_eq!(millis(&Quantity(text.to_owned())), expected, "{text}");
        }
    }

    #[test]
    fn splits() {
        for (resource, text, parts, expected) in [
            ("cpu", "1", 2, "500m"),
            ("cpu", "2", 2, "1"),
            ("cpu", "1", 3, "333m"),
            ("memory", "1Gi", 2, "512Mi"),
            ("memory", "100", 3, "33"),
        ] {
            assert_eq!(share(resource, &Quantity(text.to_owned()), parts).0, expected, "{resource} {text}");
        }
    }
}
