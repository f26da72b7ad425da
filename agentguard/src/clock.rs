//! Time: the kernel stamps records with `CLOCK_BOOTTIME`; people read RFC 3339.
//!
//! [`Clock`] is the difference between the two, taken once and handed to
//! whoever converts, so that converting needs no system call and can be tested.

use std::fmt;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Nanoseconds of `CLOCK_BOOTTIME`, the clock of kernel records and leases.
#[must_use]
pub fn boot_ns() -> u64 {
    u64::try_from(read(ClockId::CLOCK_BOOTTIME)).unwrap_or(0)
}

/// Both clocks exist on every kernel that AgentGuard runs on; zero is what a
/// clock reads that does not.
fn read(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| {
        time.tv_sec()
            .saturating_mul(NANOS_PER_SECOND)
            .saturating_add(time.tv_nsec())
    })
}

/// Turns boot-clock times into wall-clock times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Wall clock minus boot clock, nanoseconds.
    offset: i64,
}

impl Clock {
    /// The difference as it is now. The wall clock can be set: take it anew for
    /// each batch of records.
    #[must_use]
    pub fn now() -> Self {
        Self {
            offset: read(ClockId::CLOCK_REALTIME) - read(ClockId::CLOCK_BOOTTIME),
        }
    }

    /// A clock on which the host was booted at `boot`.
    #[must_use]
    pub const fn booted_at(boot: Timestamp) -> Self {
        Self { offset: boot.0 }
    }

    /// The wall-clock time of a boot-clock time.
    #[must_use]
    pub fn at(self, boot_ns: u64) -> Timestamp {
        let boot_ns = i64::try_from(boot_ns).unwrap_or(i64::MAX);
        Timestamp(self.offset.saturating_add(boot_ns))
    }
}

/// A moment: nanoseconds since 1970 in UTC. Written as RFC 3339 with nine decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The wall clock's time.
    #[must_use]
    pub fn now() -> Self {
        Self(read(ClockId::CLOCK_REALTIME))
    }

    /// From nanoseconds since 1970.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(NANOS_PER_SECOND)
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The moment that much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// Reads what [`Display`](fmt::Display) writes: `YYYY-MM-DDTHH:MM:SS[.n…]Z`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let mut date = date.splitn(3, '-').map(str::parse::<i64>);
        let mut next_date = || date.next()?.ok();
        let days = days_from_civil(next_date()?, next_date()?, next_date()?);
        let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
        let mut clock = clock.splitn(3, ':').map(str::parse::<i64>);
        let mut next_clock = || clock.next()?.ok();
        let seconds = next_clock()? * 3_600 + next_clock()? * 60 + next_clock()?;
        if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let nanos = format!("{fraction:0<9}").parse::<i64>().ok()?;
        days.checked_mul(SECONDS_PER_DAY)?
            .checked_add(seconds)?
            .checked_mul(NANOS_PER_SECOND)?
            .checked_add(nanos)
            .map(Self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds();
        let nanos = self.0.rem_euclid(NANOS_PER_SECOND);
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        let time = seconds.rem_euclid(SECONDS_PER_DAY);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z",
            time / 3_600,
            time / 60 % 60,
            time % 60,
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is not a UTC time in RFC 3339"))
        })
    }
}

/// Year, month and day of a day number since 1970-01-01 in the Gregorian
/// calendar: years are counted from March, so that the leap day comes last.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_rfc_3339() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_798_761_599_999_999_999, "2026-12-31T23:59:59.999999999Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(Timestamp::from_nanos(nanos).to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(Timestamp::from_nanos(nanos)));
        }
        for text in [
            "",
            "Z",
            "2026-01-01",
            "2026-01-01T00:00Z",
            "2026-01-01T00:00:00.x1Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_survives_the_round_trip() {
        for days in -146_097..146_097 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn boot_times_become_wall_times() {
        let clock = Clock::booted_at(Timestamp::from_nanos(1_000));
        assert_eq!(clock.at(5), Timestamp::from_nanos(1_005));
        assert_eq!(clock.at(u64::MAX), Timestamp::from_nanos(i64::MAX));
    }
}
