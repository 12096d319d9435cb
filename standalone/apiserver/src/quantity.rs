//! Amounts of resources, as Kubernetes reads, adds and writes them (`resource.Quantity`). Pure.

use std::{cmp::Ordering, collections::BTreeMap, fmt, str::FromStr};

use serde_json::Value;

/// Amounts by resource name, such as `cpu` or `requests.storage`.
pub(crate) type Resources = BTreeMap<String, Quantity>;

/// Billionths in one: the finest amount there is.
const UNIT: i128 = 1_000_000_000;

/// The largest amount in whole units, as in Go; whatever is larger counts as this.
const MOST: i128 = i64::MAX as i128 * UNIT;

/// Suffixes in powers of 1000 and 1024, with their exponents.
const DECIMAL: [(&str, i32); 10] =
    [("n", -3), ("u", -2), ("m", -1), ("", 0), ("k", 1), ("M", 2), ("G", 3), ("T", 4), ("P", 5), ("E", 6)];
const BINARY: [(&str, u32); 6] = [("Ki", 1), ("Mi", 2), ("Gi", 3), ("Ti", 4), ("Pi", 5), ("Ei", 6)];

/// How an amount likes to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

/// An exact amount. Two are equal when they are the same amount, however they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantity {
    nanos: i128,
    form: Form,
}

impl Quantity {
    pub(crate) const ZERO: Self = Self::whole(0);
    pub(crate) const ONE: Self = Self::whole(1);

    /// So many whole units.
    pub(crate) const fn whole(number: i64) -> Self {
        Self { nanos: number as i128 * UNIT, form: Form::Decimal }
    }

    /// The amount in a field: a text or a number; `None` for anything else.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.to_string().parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The sum; an amount added to nothing keeps its form.
    pub(crate) fn plus(self, other: Self) -> Self {
        let form = if self.is_zero() { other.form } else { self.form };
        Self { nanos: (self.nanos + other.nanos).min(MOST), form }
    }

    /// The difference, and nothing where it would be less.
    pub(crate) fn minus(self, other: Self) -> Self {
        Self { nanos: (self.nanos - other.nanos).max(0), ..self }
    }

    /// How many times the other amount fits in, for showing and comparing; `None` if it is nothing.
    #[expect(clippy::cast_precision_loss, reason = "ratios are told with six digits")]
    pub(crate) fn ratio(self, other: Self) -> Option<f64> {
        (other.nanos != 0).then(|| self.nanos as f64 / other.nanos as f64)
    }
}

/// The text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub(crate) struct NoQuantity;

impl FromStr for Quantity {
    type Err = NoQuantity;

    /// Finer than billionths rounds away from zero, as in Kubernetes: nobody gets something for nothing.
    fn from_str(text: &str) -> Result<Self, NoQuantity> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // Longer numbers than this are all beyond the largest amount, or finer than the finest.
        if whole.len() + fraction.len() == 0 || fraction.contains('.') || number.len() > 64 {
            return Err(NoQuantity);
        }
        let decimal = DECIMAL.iter().find(|(name, _)| *name == suffix);
        let binary = BINARY.iter().find(|(name, _)| *name == suffix);
        let exponent = suffix.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty());
        let (form, tens, factor) = match (decimal, binary, exponent) {
            (Some((_, power)), ..) => (Form::Decimal, power * 3, 1),
            (_, Some((_, power)), _) => (Form::Binary, 0, 1_i128 << (10 * power)),
            (.., Some(digits)) => (Form::Exponent, digits.parse::<i32>().map_err(|_| NoQuantity)?, 1),
            _ => return Err(NoQuantity),
        };
        let amount = scaled(whole, fraction, tens.saturating_add(9), factor);
        Ok(Self { nanos: if negative { -amount } else { amount }, form })
    }
}

/// `whole.fraction * 10^tens * factor`, rounded up and bounded.
fn scaled(whole: &str, fraction: &str, tens: i32, factor: i128) -> i128 {
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let shift = i64::from(tens) - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let places = i64::try_from(digits.len()).unwrap_or(i64::MAX) + shift;
    // 28 digits are enough for every amount up to the largest; without this the numbers could overflow.
    if places > 28 {
        return MOST;
    }
    if places < -9 {
        return 1;
    }
    // As many digits as can matter, and whether any beyond them is not zero.
    let (head, tail) = digits.split_at(digits.len().min(30));
    let dropped = i64::try_from(tail.len()).unwrap_or_default();
    let mut value = head.parse::<i128>().unwrap_or(MOST);
    let mut inexact = tail.bytes().any(|digit| digit != b'0');
    let shift = shift + dropped;
    if shift >= 0 {
        value = value.saturating_mul(10_i128.saturating_pow(u32::try_from(shift).unwrap_or(u32::MAX)));
        value = value.saturating_mul(factor);
    } else {
        let divisor = 10_i128.saturating_pow(u32::try_from(-shift).unwrap_or(u32::MAX));
        value = value.saturating_mul(factor);
        inexact |= value % divisor != 0;
        value /= divisor;
    }
    (value + i128::from(inexact)).min(MOST)
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

/// The amounts in a map of names to quantities; what is no quantity is left out.
pub(crate) fn resources(map: Option<&Value>) -> Resources {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::of(value)?))).collect()
}

/// Adds amounts to amounts, name by name.
pub(crate) fn add(total: &mut Resources, more: &Resources) {
    for (name, quantity) in more {
        let sum = total.get(name).map_or(*quantity, |before| before.plus(*quantity));
        total.insert(name.clone(), sum);
    }
}

/// `cpu=1,memory=2Gi`, as errors tell of amounts.
pub(crate) fn listed(resources: &Resources) -> String {
    let shown: Vec<String> = resources.iter().map(|(name, quantity)| format!("{name}={quantity}")).collect();
    shown.join(",")
}

/// Which of the amounts of a container: `requests` or `limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Requests,
    Limits,
}

impl Side {
    pub(crate) fn of(self, container: &Value) -> Resources {
        let key = match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        };
        resources(container.get("resources").and_then(|both| both.get(key)))
    }
}

/// What a pod asks for as a whole, or may use: its containers together with those that start first and stay, or the
/// greediest of those that run alone before them, whichever is more. What it says for itself counts instead.
pub(crate) fn of_pod(pod: &Value, side: Side) -> Resources {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let containers = |key: &str| spec.get(key).and_then(Value::as_array).into_iter().flatten();
    let mut total = Resources::new();
    containers("containers").for_each(|container| add(&mut total, &side.of(container)));
    let (mut staying, mut peak) = (Resources::new(), Resources::new());
    for container in containers("initContainers") {
        let own = side.of(container);
        let mut now = staying.clone();
        add(&mut now, &own);
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            add(&mut total, &own);
            staying.clone_from(&now);
        }
        raise(&mut peak, now);
    }
    raise(&mut total, peak);
    for (name, quantity) in side.of(spec) {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            total.insert(name, quantity);
        }
    }
    total
}

fn raise(total: &mut Resources, least: Resources) {
    for (name, quantity) in least {
        let more = total.get(&name).is_none_or(|known| *known < quantity);
        if more {
            total.insert(name, quantity);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn texts_become_canonical() {
        // From the documentation of resource.Quantity and its tables.
        for (text, canonical) in [
            ("0", "0"),
            ("0Mi", "0"),
            ("1.5", "1500m"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("1Ki", "1Ki"),
            ("1024", "1024"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e-1", "1200e-3"),
            ("1E", "1E"),
            ("-3", "-3"),
            ("+3k", "3k"),
            ("0.0000000001", "1n"),
            ("1.0000000001", "1000000001n"),
            ("9223372036854775807", "9223372036854775807"),
            ("99999999999999999999999999", "9223372036854775807"),
        ] {
            assert_eq!(quantity(text).to_string(), canonical, "{text}");
        }
        for text in ["", "x", "1 Gi", "1gi", "1K", "1..2", "1.2.3", "Mi", "1ee3", "e3", "1m2", "0x1"] {
            assert_eq!(text.parse::<Quantity>().map(|found| found.to_string()), Err(NoQuantity), "{text}");
        }
    }

    #[test]
    fn amounts_add_up_in_the_form_of_the_first() {
        let sum = |a: &str, b: &str| quantity(a).plus(quantity(b)).to_string();
        assert_eq!(sum("1Gi", "1G"), "2073741824");
        assert_eq!(sum("512Mi", "512Mi"), "1Gi");
        assert_eq!(sum("0", "64Mi"), "64Mi");
        assert_eq!(sum("900m", "100m"), "1");
        assert_eq!(quantity("1").minus(quantity("1500m")), Quantity::ZERO);
        assert!(quantity("1Ki") > quantity("1k") && quantity("1") == quantity("1000m"));
    }

    #[test]
    fn a_pod_asks_for_its_containers_or_its_greediest_start() {
        let asks = |cpu: &str| json!({ "resources": { "requests": { "cpu": cpu } } });
        let stays = |cpu: &str| {
            let mut container = asks(cpu);
            container["restartPolicy"] = json!("Always");
            container
        };
        for (init, containers, own, expected) in [
            (vec![], vec![asks("1"), asks("500m")], json!({}), "1500m"),
            (vec![asks("2")], vec![asks("1"), asks("500m")], json!({}), "2"),
            (vec![asks("1"), asks("1")], vec![asks("500m")], json!({}), "1"),
            (vec![stays("1")], vec![asks("500m")], json!({}), "1500m"),
            (vec![stays("1"), asks("2")], vec![asks("500m")], json!({}), "3"),
            (vec![asks("2"), stays("1")], vec![asks("500m")], json!({}), "2"),
            (vec![], vec![asks("1")], json!({ "requests": { "cpu": "4" } }), "4"),
        ] {
            let spec = json!({ "initContainers": init, "containers": containers, "resources": own });
            let total = of_pod(&json!({ "spec": spec }), Side::Requests);
            assert_eq!(listed(&total), format!("cpu={expected}"), "{spec}");
        }
    }
}
