//! Version comparison.

use std::cmp::Ordering;

/// Compares versions as Semantic Versioning does (semver.org, 11), but accepts any text: `v1.2`,
/// `2026.11.22`, `1.10.0-rc2`. Ignores build metadata after a `+`.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, a_pre) = split(a);
    let (b, b_pre) = split(b);
    parts(a, b).then_with(|| match (a_pre, b_pre) {
        // A release candidate comes before its release.
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => parts(a, b),
    })
}

/// Splits a version into the version core and the pre-release version.
fn split(version: &str) -> (&str, Option<&str>) {
    let version = version.trim().trim_start_matches(['v', 'V']);
    let version = version.split('+').next().unwrap_or_default();
    match version.split_once('-') {
        Some((version, pre)) => (version, Some(pre)),
        None => (version, None),
    }
}

/// Compares dot-separated identifiers.
fn parts(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let (first, a_rest) = next(a);
        let (second, b_rest) = next(b);
        let order = match (number(first), number(second)) {
            // Compare digits as text, so that numbers of any length work.
            (Some(a), Some(b)) => a.len().cmp(&b.len()).then(a.cmp(b)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => first.cmp(second),
        };
        if order != Ordering::Equal || (a_rest.is_empty() && b_rest.is_empty()) {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
}

/// Returns the digits without leading zeros. A missing number counts as 0. `None` if `part` is not a
/// number.
fn number(part: &str) -> Option<&str> {
    let digits = part.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| part.trim_start_matches('0'))
}

/// Splits off the first run of digits or of other characters. Removes the dot after it.
fn next(text: &str) -> (&str, &str) {
    let digit = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c == '.' || c.is_ascii_digit() != digit).unwrap_or(text.len());
    let (first, rest) = text.split_at(end);
    (first, rest.strip_prefix('.').unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn orders_versions() {
        let order = [
            "0.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-rc1",
            "1.0.0-rc2",
            "1.0.0-rc10",
            "v1",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2026.1.2",
            "2026.11.22",
            "99999999999999999999999999",
        ];
        for pair in order.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        for (a, b) in [("1", "v1.0.0"), ("1.0", "1.00"), ("1.0+b1", "1.0+b2"), ("", "0")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn comparison_is_antisymmetric(
            a in "[0-9a-z.+-]{0,9}", b in "[0-9a-z.+-]{0,9}",
        ) {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        }
    }
}
