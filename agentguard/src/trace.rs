//! W3C trace context: a run continues its launcher's trace, or begins one.
//!
//! It serves correlation only. An agent can write whatever it likes into its
//! environment; identity is the kernel's tag.

use std::fmt;

/// A `traceparent` value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

/// No random numbers to be had.
#[derive(Debug, thiserror::Error)]
#[error("the kernel gives no random numbers: {0}")]
pub struct NoRandom(getrandom::Error);

impl TraceParent {
    /// A new span in the trace that `parent` names, or in a new trace if it
    /// names none that is valid.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub fn child_of(parent: Option<&str>) -> Result<Self, NoRandom> {
        let mut span = [0; 8];
        fill(&mut span)?;
        if let Some(parent) = parent.and_then(Self::parse) {
            return Ok(Self { span, ..parent });
        }
        let mut trace = [0; 16];
        fill(&mut trace)?;
        // 1: sampled, 2: the trace id is random.
        Ok(Self {
            trace,
            span,
            flags: 3,
        })
    }

    /// Reads version 00; of later versions the part that it has in common.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let trace = hex(parts.next()?)?;
        let span = hex(parts.next()?)?;
        let [flags]: [u8; 1] = hex(parts.next()?)?;
        let valid = version[0] != 0xff
            && (version[0] != 0 || parts.next().is_none())
            && trace != [0; 16]
            && span != [0; 8];
        valid.then_some(Self { trace, span, flags })
    }
}

/// Exactly N bytes in lower-case hex, as the specification asks.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Random and not all zero, which would be invalid.
fn fill(bytes: &mut [u8]) -> Result<(), NoRandom> {
    loop {
        getrandom::fill(bytes).map_err(NoRandom)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(());
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            u128::from_be_bytes(self.trace),
            u64::from_be_bytes(self.span),
            self.flags
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn continues_a_valid_trace_with_a_new_span() {
        assert_eq!(TraceParent::parse(PARENT).unwrap().to_string(), PARENT);
        let child = TraceParent::child_of(Some(PARENT)).unwrap().to_string();
        assert!(
            child.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"),
            "{child}"
        );
        assert!(child.ends_with("-01"), "{child}");
        assert_ne!(child, PARENT);
    }

    #[test]
    fn begins_a_trace_where_the_parent_is_not_valid() {
        for parent in [
            "",
            "garbage",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(parent), None, "{parent}");
            let begun = TraceParent::child_of(Some(parent)).unwrap();
            assert_eq!(TraceParent::parse(&begun.to_string()), Some(begun));
        }
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(TraceParent::parse(later).is_some());
    }
}
