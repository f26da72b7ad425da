//! Reads the single words of a manifest: names, accounts, digests, durations.

use std::time::Duration;

use super::super::duration;
use super::super::text::{TextError, quote, suggestion};

/// A name is one segment of a SPIFFE identity.
pub const MAX_NAME_BYTES: usize = 63;
/// The longest address that mail accepts.
const MAX_OWNER_BYTES: usize = 254;
/// The longest name of a user or group that is accepted.
const MAX_ACCOUNT_BYTES: usize = 254;
/// A description is for a line or two in a report.
const MAX_DESCRIPTION_CHARS: usize = 1_000;

/// Reads an agent's name.
pub fn agent_name(text: &str) -> Result<String, TextError> {
    let bad = |why: String| {
        TextError::new(format!("{} is not an agent name: {why}", quote(text))).with_help(format!(
            "1 to {MAX_NAME_BYTES} of the characters A-Z a-z 0-9 . _ - make a name"
        ))
    };
    if text.is_empty() {
        return Err(bad("it is empty".into()));
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(c) = text.chars().find(|&c| !is_allowed(c)) {
        return Err(bad(format!("it holds {}", quote(&c.to_string()))));
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(bad(format!("it has {} characters", text.len())));
    }
    if matches!(text, "." | "..") {
        return Err(bad("it would be a step in a path".into()));
    }
    Ok(text.to_owned())
}

pub fn owner_name(text: &str) -> Result<String, TextError> {
    let bad = |why: &str| {
        TextError::new(format!("{} does not name an owner: {why}", quote(text)))
            .with_help("write a mail address or the name of a team or person")
    };
    if text.trim().is_empty() {
        return Err(bad("it is empty"));
    }
    if text.len() > MAX_OWNER_BYTES {
        return Err(bad("it is longer than 254 bytes"));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(bad("it holds control characters, or spaces at its ends"));
    }
    match text.split_once('@') {
        Some((local, domain))
            if local.is_empty()
                || domain.is_empty()
                || domain.contains('@')
                || text.contains(char::is_whitespace) =>
        {
            Err(bad("it is not a mail address"))
        }
        _ => Ok(text.to_owned()),
    }
}

pub fn description(text: &str) -> Result<String, TextError> {
    if text.chars().count() > MAX_DESCRIPTION_CHARS {
        return Err(TextError::new(format!(
            "the description is longer than {MAX_DESCRIPTION_CHARS} characters"
        )));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(TextError::new("the description holds control characters"));
    }
    Ok(text.trim().to_owned())
}

/// Reads the name of a user or group. Whether it exists is for the host that
/// uses the manifest; what no host can have is refused here.
pub fn account_name(text: &str) -> Result<String, TextError> {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | ',');
    if text.is_empty()
        || text.len() > MAX_ACCOUNT_BYTES
        || text.starts_with('-')
        || text.contains(is_odd)
    {
        return Err(
            TextError::new(format!("{} is not an account name", quote(text))).with_help(
                "write the name as `getent` shows it: no spaces, colons, commas or slashes",
            ),
        );
    }
    Ok(text.to_owned())
}

pub fn digest(text: &str) -> Result<[u8; 32], TextError> {
    let bad = || {
        TextError::new(format!("{} is not a SHA-256 digest", quote(text)))
            .with_help("write the 64 hexadecimal digits that `sha256sum FILE` prints")
    };
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
    }
    Ok(bytes)
}

/// Reads the name of a unit that has a cgroup for processes.
pub fn unit_name(text: &str) -> Result<String, TextError> {
    const KINDS: [&str; 3] = ["service", "scope", "slice"];
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
    let bad = || TextError::new(format!("{} is not the name of a systemd unit", quote(text)));
    if text.is_empty() || text.len() > 255 || !text.chars().all(is_allowed) {
        return Err(bad().with_help("write it as `systemctl` shows it: `invoice-agent.service`"));
    }
    match text.rsplit_once('.') {
        Some((stem, kind)) if !stem.is_empty() && KINDS.contains(&kind) => Ok(text.to_owned()),
        Some((_, kind)) if !KINDS.contains(&kind) && text.contains('.') => {
            Err(bad().with_help(format!("its kind: {}", suggestion(kind, &KINDS))))
        }
        _ => Err(bad().with_help(format!(
            "did you mean {}?",
            quote(&format!("{text}.service"))
        ))),
    }
}

pub fn bounded(text: &str, max: Duration) -> Result<Duration, TextError> {
    let found = duration::parse(text)?;
    if found.is_zero() || found > max {
        return Err(TextError::new(format!("{} is out of bounds", quote(text)))
            .with_help(format!("write 1s to {}", duration::format(max))));
    }
    Ok(found)
}
