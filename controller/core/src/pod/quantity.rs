//! What runs say of resources, and the parts of it that steps get.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The amount; `None` for text that is none.
pub(super) fn amount(text: &Quantity) -> Option<ropewalk_quantity::Quantity> {
    text.0.parse().ok()
}

/// An equal part of a quantity, rounded down: CPU in thousandths, everything else in whole units (contract 5.10).
pub(super) fn share(resource: &str, quantity: &Quantity, parts: usize) -> Quantity {
    let (Some(amount), Ok(parts)) = (amount(quantity), u32::try_from(parts)) else {
        return quantity.clone();
    };
    let part = if resource == "cpu" { amount.part_in_millis(parts) } else { amount.part_in_units(parts) };
    Quantity(part.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        for (resource, text, parts, expected) in [
            ("cpu", "1", 2, "500m"),
            ("cpu", "2", 2, "1"),
            ("cpu", "1", 3, "333m"),
            ("memory", "1Gi", 2, "512Mi"),
            ("memory", "100", 3, "33"),
            ("memory", "100M", 2, "50M"),
            ("memory", "much", 2, "much"),
        ] {
            assert_eq!(share(resource, &Quantity(text.to_owned()), parts).0, expected, "{resource} {text}");
        }
    }
}
