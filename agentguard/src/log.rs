//! Where the daemon logs: to the journal when its standard error is the
//! journal, with fields that `journalctl` can select by; else to standard error.

use std::os::linux::fs::MetadataExt;
use std::str::FromStr;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// The journal if standard error is the journal, else text.
    #[default]
    Auto,
    /// Text on standard error.
    Text,
    /// JSON lines on standard error.
    Json,
}

impl Format {
    /// The formats by name.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("text", Self::Text),
        ("json", Self::Json),
    ];
}

/// The least important level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Level {
    /// Failures that need someone.
    Error,
    /// And what was denied.
    Warn,
    /// And the lives of runs, policies and the daemon.
    #[default]
    Info,
    /// And details for finding faults.
    Debug,
}

impl Level {
    /// The levels by name.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
    ];

    const fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        }
    }
}

/// Starts logging.
///
/// # Errors
/// Logging was started before.
pub fn start(level: Level, format: Format) -> Result<(), TryInitError> {
    let registry = tracing_subscriber::registry().with(level.filter());
    let text = || {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
    };
    match format {
        Format::Json => registry.with(text().json()).try_init(),
        Format::Auto if stderr_is_journal() => match tracing_journald::layer() {
            Ok(journal) => registry
                .with(journal.with_field_prefix(Some("AGENTGUARD".to_owned())))
                .try_init(),
            Err(_) => registry.with(text().without_time()).try_init(),
        },
        Format::Auto | Format::Text => registry.with(text()).try_init(),
    }
}

/// systemd names device and inode of the journal's stream; redirected output
/// has others.
fn stderr_is_journal() -> bool {
    let Some((device, inode)) = std::env::var("JOURNAL_STREAM")
        .ok()
        .and_then(|stream| parse_stream(&stream))
    else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| stderr.st_dev() == device && stderr.st_ino() == inode)
}

fn parse_stream(stream: &str) -> Option<(u64, u64)> {
    let (device, inode) = stream.split_once(':')?;
    Some((u64::from_str(device).ok()?, u64::from_str(inode).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_streams() {
        assert_eq!(parse_stream("8:1234"), Some((8, 1_234)));
        assert_eq!(parse_stream("8"), None);
        assert_eq!(parse_stream("x:y"), None);
    }
}
