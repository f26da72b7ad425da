//! Durations as manifests write them: `90s`, `10m`, `2h`, `1d`, `1h30m`.

use std::fmt::Write as _;
use std::time::Duration;

use super::text::{TextError, quote};

/// Units from the longest to the shortest, in seconds.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Reads a duration.
///
/// # Errors
/// Says what is wrong and what is accepted.
pub fn parse(text: &str) -> Result<Duration, TextError> {
    let bad = |why: &str| {
        TextError::new(format!("{} is not a duration: {why}", quote(text))).with_help(
            "write whole numbers with a unit, the longest first: 90s, 10m, 2h, 1d, 1h30m",
        )
    };
    let mut seconds: u64 = 0;
    let mut number: Option<u64> = None;
    let mut units = UNITS.iter();
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let next = number
                .unwrap_or(0)
                .checked_mul(10)
                .and_then(|n| n.checked_add(u64::from(digit)));
            number = Some(next.ok_or_else(|| bad("the number is too large"))?);
            continue;
        }
        let Some(count) = number.take() else {
            return Err(bad("a number is missing before a unit"));
        };
        let Some(&(_, unit)) = units.find(|&&(name, _)| name == c) else {
            return Err(bad(if UNITS.iter().any(|&(name, _)| name == c) {
                "units go from the longest to the shortest, each once"
            } else {
                "the units are s, m, h and d"
            }));
        };
        seconds = count
            .checked_mul(unit)
            .and_then(|part| seconds.checked_add(part))
            .ok_or_else(|| bad("the number is too large"))?;
    }
    if number.is_some() {
        return Err(bad("the unit is missing"));
    }
    if text.is_empty() {
        return Err(bad("it is empty"));
    }
    Ok(Duration::from_secs(seconds))
}

/// Writes a duration of whole seconds as [`parse`] reads it.
#[must_use]
pub fn format(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, unit) in UNITS {
        if rest >= unit {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{name}", rest / unit);
            rest %= unit;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_the_manual_shows() {
        for (text, seconds) in [
            ("90s", 90),
            ("10m", 600),
            ("2h", 7_200),
            ("1d", 86_400),
            ("1h30m", 5_400),
            ("1d2h3m4s", 93_784),
            ("0s", 0),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "90",
            "h",
            "1.5h",
            "-1s",
            " 1s",
            "1s ",
            "1m1h",
            "1h1h",
            "1w",
            "1H",
            "1ms",
            "∞",
            "99999999999999999999s",
            "999999999999999999d",
            "1h 30m",
            "٣s",
        ] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0..u64::MAX / 2) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse(&format(duration)).unwrap(), duration);
        }
    }
}
