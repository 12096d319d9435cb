//! A text becomes an amount: a sign, digits with a point among them, and a suffix or an exponent.

use super::{BINARY, DECIMAL, Form, MOST, Quantity};

/// Digits of the largest amount in billionths: 9,223,372,036,854,775,807 with nine more.
const MOST_DIGITS: i64 = 28;

/// `None` for what is no quantity.
pub(crate) fn quantity(text: &str) -> Option<Quantity> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let decimal = DECIMAL.iter().find(|(name, _)| *name == suffix);
    let binary = BINARY.iter().find(|(name, _)| *name == suffix);
    let exponent = suffix.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty());
    let (form, tens, kibis) = match (decimal, binary, exponent) {
        (Some((_, power)), ..) => (Form::Decimal, power * 3, 0),
        (_, Some((_, power)), _) => (Form::Binary, 0, *power),
        (.., Some(digits)) => (Form::Exponent, digits.parse::<i32>().ok()?, 0),
        _ => return None,
    };
    let mut digits: Vec<u8> = [whole, fraction].concat().bytes().map(|digit| digit - b'0').collect();
    (0..kibis).for_each(|_| multiply_by_1024(&mut digits));
    let point = i64::try_from(fraction.len()).ok()? - i64::from(tens) - 9;
    let amount = rounded_up(&digits, point);
    Some(Quantity { nanos: if negative { -amount } else { amount }, form })
}

/// By hand, digit for digit: a number may have as many as it likes, and the last one may be what makes it round up.
fn multiply_by_1024(digits: &mut Vec<u8>) {
    let mut carry = 0;
    for digit in digits.iter_mut().rev() {
        let product = u32::from(*digit) * 1024 + carry;
        *digit = units_digit(product);
        carry = product / 10;
    }
    let mut more = Vec::new();
    while carry > 0 {
        more.push(units_digit(carry));
        carry /= 10;
    }
    digits.splice(0..0, more.into_iter().rev());
}

fn units_digit(number: u32) -> u8 {
    u8::try_from(number % 10).unwrap_or_default()
}

/// The number of these digits, of which so many are behind the point, rounded up, and no more than [`MOST`]. With fewer than
/// none behind the point zeros follow.
fn rounded_up(digits: &[u8], point: i64) -> i128 {
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let digits = &digits[zeros..];
    if digits.is_empty() {
        return 0;
    }
    let places = i64::try_from(digits.len()).unwrap_or(i64::MAX).saturating_sub(point);
    if places > MOST_DIGITS {
        return MOST;
    }
    let places = usize::try_from(places).unwrap_or(0);
    let (whole, rest) = digits.split_at(places.min(digits.len()));
    let number = whole.iter().fold(0, |number: i128, digit| number * 10 + i128::from(*digit));
    // No more than there are digits in the largest amount.
    let missing = u32::try_from(places - whole.len()).unwrap_or(0);
    let is_inexact = rest.iter().any(|digit| *digit != 0);
    (number * 10_i128.pow(missing) + i128::from(is_inexact)).min(MOST)
}
