use proptest::prelude::*;

use super::*;

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

/// From the documentation of resource.Quantity and its tables: the text, the canonical one, and thousandths.
#[test]
fn texts_become_canonical() {
    const MOST_MILLIS: i128 = i64::MAX as i128 * 1000;
    for (text, canonical, millis) in [
        ("0", "0", 0),
        ("0Mi", "0", 0),
        ("000", "0", 0),
        ("1", "1", 1000),
        ("+3k", "3k", 3_000_000),
        ("-3", "-3", -3000),
        ("007", "7", 7000),
        ("1.5", "1500m", 1500),
        (".5", "500m", 500),
        ("5.", "5", 5000),
        ("100m", "100m", 100),
        ("1000m", "1", 1000),
        ("1500", "1500", 1_500_000),
        ("2000", "2k", 2_000_000),
        ("64M", "64M", 64_000_000_000),
        ("1G", "1G", 1_000_000_000_000),
        ("1T", "1T", 1_000_000_000_000_000),
        ("1P", "1P", 1_000_000_000_000_000_000),
        ("1E", "1E", 1_000_000_000_000_000_000_000),
        // Binary suffixes.
        ("1Ki", "1Ki", 1_024_000),
        ("0.5Ki", "512", 512_000),
        ("1024", "1024", 1_024_000),
        ("1024Mi", "1Gi", 1_073_741_824_000),
        ("1536Mi", "1536Mi", 1_610_612_736_000),
        ("1.5Gi", "1536Mi", 1_610_612_736_000),
        ("-1Ki", "-1Ki", -1_024_000),
        ("1Ti", "1Ti", 1_099_511_627_776_000),
        ("1Pi", "1Pi", 1_125_899_906_842_624_000),
        ("1Ei", "1Ei", 1_152_921_504_606_846_976_000),
        ("1.00000000000000000000000000000000Ei", "1Ei", 1_152_921_504_606_846_976_000),
        // Exponents, which have a number behind the letter.
        ("1e3", "1e3", 1_000_000),
        ("1E3", "1e3", 1_000_000),
        ("1e+3", "1e3", 1_000_000),
        ("12e-1", "1200e-3", 1200),
        ("1e0", "1", 1000),
        // What is finer than the finest, and thousandths of what is finer than those.
        ("1n", "1n", 1),
        ("1u", "1u", 1),
        ("1000001n", "1000001n", 2),
        ("-1n", "-1n", -1),
        ("-1500u", "-1500u", -2),
        ("0.0000000001", "1n", 1),
        ("-0.0000000001", "-1n", -1),
        ("1.0000000001", "1000000001n", 1001),
        ("1.00000000000000000000000000000000000000000000000000000000000000000001", "1000000001n", 1001),
        ("1e-2147483648", "1e-9", 1),
        // What is larger than the largest.
        ("9223372036854775807", "9223372036854775807", MOST_MILLIS),
        ("9223372036854775808", "9223372036854775807", MOST_MILLIS),
        ("9.3E", "9223372036854775807", MOST_MILLIS),
        ("8Ei", "9223372036854775807", MOST_MILLIS),
        ("-8Ei", "-9223372036854775807", -MOST_MILLIS),
        ("99999999999999999999999999", "9223372036854775807", MOST_MILLIS),
        ("1e2147483647", "9223372036854775807", MOST_MILLIS),
    ] {
        let found = quantity(text);
        assert_eq!((found.to_string().as_str(), found.millis()), (canonical, millis), "{text}");
    }
    for text in [
        "",
        "x",
        "m",
        "Mi",
        ".",
        "-",
        "+",
        "--1",
        "+-1",
        "1 Gi",
        " 1",
        "1 ",
        "1gi",
        "1K",
        "1..2",
        "1.2.3",
        "1ee3",
        "e3",
        "1e",
        "1Ee",
        "1e3.5",
        "1e99999999999",
        "1m2",
        "1Mi2",
        "0x1",
        "inf",
        "NaN",
        "1_000",
        "\u{661}",
        "$(params.x)",
    ] {
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
    assert_eq!(sum("8E", "8E"), "9223372036854775807");
    assert_eq!(quantity("1").minus(quantity("1500m")), Quantity::ZERO);
    assert!(quantity("1Ki") > quantity("1k") && quantity("1") == quantity("1000m"));
}

#[test]
fn parts_are_rounded_down_and_keep_the_form() {
    for (text, parts, units, millis) in [
        ("1", 2, "0", "500m"),
        ("2", 2, "1", "1"),
        ("1", 3, "0", "333m"),
        ("1Gi", 2, "512Mi", "512Mi"),
        ("100M", 2, "50M", "50M"),
        ("100", 3, "33", "33333m"),
        ("7", 0, "7", "7"),
    ] {
        let whole = quantity(text);
        let parts = [whole.part_in_units(parts), whole.part_in_millis(parts)].map(|part| part.to_string());
        assert_eq!(parts, [units, millis], "{text}");
    }
}

/// What a suffix stands for, in billionths; told apart from how it is read.
const SUFFIXES: [(&str, i128); 16] = [
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("", 1_000_000_000),
    ("k", 1_000_000_000_000),
    ("M", 1_000_000_000_000_000),
    ("G", 1_000_000_000_000_000_000),
    ("T", 1_000_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000_000_000),
    ("Ki", (1 << 10) * 1_000_000_000),
    ("Mi", (1 << 20) * 1_000_000_000),
    ("Gi", (1 << 30) * 1_000_000_000),
    ("Ti", (1 << 40) * 1_000_000_000),
    ("Pi", (1 << 50) * 1_000_000_000),
    ("Ei", (1 << 60) * 1_000_000_000),
];

proptest! {
    /// Against plain arithmetic, of numbers that it has room for.
    #[test]
    fn amounts_are_exact(
        number in 0_u32..,
        behind_the_point in 0_usize..12,
        zeros in 0_usize..80,
        suffix in 0..SUFFIXES.len(),
        negative: bool,
    ) {
        let (suffix, nanos) = SUFFIXES[suffix];
        let digits = format!("{number:0>12}");
        let (whole, fraction) = digits.split_at(12 - behind_the_point);
        let (sign, zeros) = (if negative { "-" } else { "" }, "0".repeat(zeros));
        let text = format!("{sign}{zeros}{whole}.{fraction}{zeros}{suffix}");
        let divisor = 10_i128.pow(u32::try_from(behind_the_point).unwrap());
        let product = i128::from(number) * nanos;
        let expected = (product / divisor + i128::from(product % divisor != 0)).min(MOST);
        prop_assert_eq!(quantity(&text).nanos, if negative { -expected } else { expected }, "{}", text);
    }

    /// What is written means what was read, and is written the same again.
    #[test]
    fn canonical_texts_stay(text in "[+-]?[0-9]{0,30}\\.?[0-9]{1,30}([num]|[kMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3})?") {
        if let Ok(read) = text.parse::<Quantity>() {
            let written = read.to_string();
            let again = quantity(&written);
            prop_assert_eq!(again, read, "{} is written {}", text, written);
            prop_assert_eq!(again.to_string(), written);
        }
    }

    /// Nothing panics, whatever it is asked.
    #[test]
    fn any_text_is_an_amount_or_none(text in "[-+0-9.eEinumkKMGTPx ]{0,40}") {
        if let Ok(read) = text.parse::<Quantity>() {
            prop_assert!(read.nanos.abs() <= MOST);
            prop_assert!(read.plus(read).nanos.abs() <= MOST && read.minus(read).is_zero());
        }
    }
}
