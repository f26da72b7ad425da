//! Path patterns: which names a file rule is about.

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
    /// Any number of names.
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
}

impl GlobPattern {
    /// The parts, from left to right.
    #[must_use]
    pub fn tokens(&self) -> &[GlobToken] {
        &self.tokens
    }
}

impl PathObject {
    /// The names, from the root on.
    #[must_use]
    pub fn components(&self) -> &[Box<[u8]>] {
        &self.components
    }
}
