//! Path patterns: which names a file rule is about.
//!
//! The matchers here are the reference: plain, slow and obviously right. What
//! decides in the kernel is compiled from the same patterns and tested against them.

use std::fmt;

mod parse;

pub(super) use parse::unescape;

/// The kernel programs read paths of this length; longer ones are denied there.
pub const MAX_PATH_BYTES: usize = 4_096;
/// A longer name cannot exist.
pub const MAX_NAME_BYTES: usize = 255;
/// The kernel programs walk this many names; deeper paths are denied there.
pub const MAX_COMPONENTS: usize = 64;

/// A pattern over paths, as a list of names from the root of the file tree.
///
/// [`Component::AnyDepth`] at the end stands for one or more names (`/a/**` is
/// everything below `/a`, not `/a`), elsewhere for none or more. The empty
/// pattern is the root directory itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern {
    components: Vec<Component>,
}

/// One part of a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Exactly this name.
    Exact(Box<[u8]>),
    /// A name that matches a pattern.
    Glob(GlobPattern),
    /// Any number of names. Never twice in a row.
    AnyDepth,
}

/// A pattern over one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GlobPattern {
    tokens: Vec<GlobToken>,
}

/// One part of a pattern over a name. No two literals and no two [`GlobToken::AnyRun`]
/// stand side by side, and no literal is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GlobToken {
    /// Exactly these bytes.
    Literal(Box<[u8]>),
    /// `?`: one character, that is one well-formed UTF-8 sequence.
    AnyChar,
    /// `*`: any bytes, also none.
    AnyRun,
}

/// One path, as names from the root of the file tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathObject {
    components: Vec<Box<[u8]>>,
}

impl PathPattern {
    /// The parts, from the root on.
    #[must_use]
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The leading names that hold no pattern: the deepest directory that every
    /// match is in, or the whole path where nothing is a pattern.
    #[must_use]
    pub fn literal_prefix(&self) -> Vec<&[u8]> {
        self.components
            .iter()
            .map_while(|component| match component {
                Component::Exact(name) => Some(&**name),
                Component::Glob(_) | Component::AnyDepth => None,
            })
            .collect()
    }

    /// Whether the pattern matches the path with these names, from the root on.
    #[must_use]
    pub fn matches<N: AsRef<[u8]>>(&self, names: &[N]) -> bool {
        // reached[i]: the parts so far can stand for exactly the first i names.
        let mut reached = vec![false; names.len() + 1];
        reached[0] = true;
        for (index, component) in self.components.iter().enumerate() {
            let is_last = index + 1 == self.components.len();
            let mut next = vec![false; names.len() + 1];
            for start in (0..reached.len()).filter(|&start| reached[start]) {
                match component {
                    Component::AnyDepth => next[start + usize::from(is_last)..].fill(true),
                    _ if start == names.len() => {}
                    Component::Exact(name) => next[start + 1] |= **name == *names[start].as_ref(),
                    Component::Glob(glob) => next[start + 1] |= glob.matches(names[start].as_ref()),
                }
                if *component == Component::AnyDepth {
                    break; // a later start adds nothing
                }
            }
            reached = next;
        }
        reached[names.len()]
    }
}

impl Component {
    /// The length of the shortest name that this part matches.
    fn min_bytes(&self) -> usize {
        match self {
            Self::Exact(name) => name.len(),
            Self::Glob(glob) => glob
                .tokens
                .iter()
                .map(|token| match token {
                    GlobToken::Literal(bytes) => bytes.len(),
                    GlobToken::AnyChar => 1,
                    GlobToken::AnyRun => 0,
                })
                .sum(),
            Self::AnyDepth => 0,
        }
    }
}

impl GlobPattern {
    /// The parts, from left to right.
    #[must_use]
    pub fn tokens(&self) -> &[GlobToken] {
        &self.tokens
    }

    /// Any name with this end.
    #[must_use]
    pub fn with_end(end: &[u8]) -> Self {
        Self {
            tokens: vec![GlobToken::AnyRun, GlobToken::Literal(end.into())],
        }
    }

    /// Whether the pattern matches a name.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        // reached[i]: the tokens so far can stand for exactly the first i bytes.
        let mut reached = vec![false; name.len() + 1];
        reached[0] = true;
        for token in &self.tokens {
            let mut next = vec![false; name.len() + 1];
            for start in (0..reached.len()).filter(|&start| reached[start]) {
                match token {
                    GlobToken::Literal(bytes) => {
                        if name[start..].starts_with(bytes) {
                            next[start + bytes.len()] = true;
                        }
                    }
                    GlobToken::AnyChar => {
                        if let Some(length) = leading_char(&name[start..]) {
                            next[start + length] = true;
                        }
                    }
                    GlobToken::AnyRun => {
                        next[start..].fill(true);
                        break; // a later start adds nothing
                    }
                }
            }
            reached = next;
        }
        reached[name.len()]
    }
}

/// The length of the well-formed UTF-8 character that bytes begin with.
fn leading_char(bytes: &[u8]) -> Option<usize> {
    (1..=bytes.len().min(4)).find(|&length| std::str::from_utf8(&bytes[..length]).is_ok())
}

impl PathObject {
    /// The names, from the root on.
    #[must_use]
    pub fn components(&self) -> &[Box<[u8]>] {
        &self.components
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let floats = matches!(self.components[..], [Component::AnyDepth, _, ..]);
        for (index, component) in self.components.iter().enumerate() {
            if index > 0 || !floats {
                f.write_str("/")?;
            }
            match component {
                Component::Exact(name) => write_literal(f, name)?,
                Component::Glob(glob) => write!(f, "{glob}")?,
                Component::AnyDepth => f.write_str("**")?,
            }
        }
        if self.components.is_empty() {
            f.write_str("/")?;
        }
        Ok(())
    }
}

impl fmt::Display for GlobPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tokens.iter().try_for_each(|token| match token {
            GlobToken::Literal(bytes) => write_literal(f, bytes),
            GlobToken::AnyChar => f.write_str("?"),
            GlobToken::AnyRun => f.write_str("*"),
        })
    }
}

impl fmt::Display for PathObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.components {
            write!(f, "/{}", String::from_utf8_lossy(name))?;
        }
        if self.components.is_empty() {
            f.write_str("/")?;
        }
        Ok(())
    }
}

/// Writes bytes so that [`tokenize`] reads the same bytes back.
pub(super) fn write_literal(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '*' | '?' | '\\' | '[' | '{' => write!(f, "\\{c}")?,
                c if c.is_control() => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        write!(f, "\\x{byte:02x}")?;
                    }
                }
                c => write!(f, "{c}")?,
            }
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
