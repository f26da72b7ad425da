//! Reads path patterns and paths.

use super::super::text::{TextError, quote};
use super::{
    Component, GlobPattern, GlobToken, MAX_COMPONENTS, MAX_NAME_BYTES, MAX_PATH_BYTES, PathObject,
    PathPattern,
};

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Says what is wrong with the text and what to write instead.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let names = names_of(text)?;
        let mut components = Vec::new();
        if !names.is_empty() {
            for name in names.split('/') {
                let component = parse_component(text, name)?;
                if component != Component::AnyDepth || components.last() != Some(&component) {
                    components.push(component);
                }
            }
        }
        let pattern = Self { components };
        pattern.check_size()?;
        Ok(pattern)
    }

    fn check_size(&self) -> Result<(), TextError> {
        let named = || {
            self.components
                .iter()
                .filter(|component| **component != Component::AnyDepth)
        };
        if named().count() > MAX_COMPONENTS {
            return Err(TextError::new(format!(
                "the pattern has {} names; paths deeper than {MAX_COMPONENTS} names are always denied",
                named().count()
            )));
        }
        let shortest: usize = named().map(|component| 1 + component.min_bytes()).sum();
        if shortest > MAX_PATH_BYTES {
            return Err(TextError::new(format!(
                "the pattern needs paths of {shortest} bytes; those longer than {MAX_PATH_BYTES} bytes are always denied"
            )));
        }
        Ok(())
    }
}

impl GlobPattern {
    /// Reads the pattern of one name.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(name: &str) -> Result<Self, TextError> {
        if name.contains('/') {
            return Err(TextError::new("a name cannot hold a slash"));
        }
        Ok(Self {
            tokens: tokenize(name)?,
        })
    }
}

impl PathObject {
    /// Reads an absolute path as the kernel would report it: resolved, so
    /// without `.`, `..`, empty names or a slash at the end.
    ///
    /// # Errors
    /// Says which of these it is.
    pub fn from_bytes(path: &[u8]) -> Result<Self, TextError> {
        let Some(rest) = path.strip_prefix(b"/") else {
            return Err(TextError::new(format!(
                "{} is not an absolute path",
                quote(&String::from_utf8_lossy(path))
            ))
            .with_help("begin with `/`"));
        };
        if path.len() > MAX_PATH_BYTES || path.contains(&0) {
            return Err(TextError::new(format!(
                "a path has at most {MAX_PATH_BYTES} bytes and no NUL"
            )));
        }
        if rest.is_empty() {
            return Ok(Self {
                components: Vec::new(),
            });
        }
        let components: Vec<Box<[u8]>> = rest.split(|&b| b == b'/').map(Box::from).collect();
        for name in &components {
            if matches!(&**name, b"" | b"." | b"..") {
                return Err(TextError::new(format!(
                    "{} is not a resolved path",
                    quote(&String::from_utf8_lossy(path))
                ))
                .with_help("leave out `.`, `..`, double slashes and a slash at the end"));
            }
            if name.len() > MAX_NAME_BYTES {
                return Err(TextError::new(format!(
                    "a name has at most {MAX_NAME_BYTES} bytes"
                )));
            }
        }
        Ok(Self { components })
    }
}

/// What follows the leading slash; refuses what is not an absolute path or `**/…`.
fn names_of(text: &str) -> Result<&str, TextError> {
    if text.is_empty() {
        return Err(TextError::new("the path is empty").with_help("write an absolute path"));
    }
    if text.contains('\0') {
        return Err(TextError::new("a path cannot hold a NUL character"));
    }
    if text == "~" || text.starts_with("~/") {
        return Err(
            TextError::new("`~` is not expanded: rules do not depend on who is logged in")
                .with_help("write the home directory out, such as `/home/alice/.ssh/**`"),
        );
    }
    if let Some(rest) = text.strip_prefix('/') {
        return Ok(rest);
    }
    if text.starts_with("**/") {
        return Ok(text);
    }
    let error = TextError::new(format!("{} is not an absolute path", quote(text)));
    Err(match text {
        "*" | "**" => error.with_help("write `/**` for everything below the root directory"),
        _ => {
            let text = text.trim_start_matches("./");
            error.with_help(format!(
                "begin with `/`, or with `**/` to match at any depth: {}",
                quote(&format!("**/{text}"))
            ))
        }
    })
}

fn parse_component(path: &str, name: &str) -> Result<Component, TextError> {
    if name.is_empty() {
        return Err(empty_name(path));
    }
    if name == "**" {
        return Ok(Component::AnyDepth);
    }
    let tokens = tokenize(name)?;
    let runs_touch = tokens
        .windows(2)
        .any(|pair| pair[0] == GlobToken::AnyRun && pair[1] == GlobToken::AnyRun);
    if runs_touch {
        return Err(TextError::new(format!(
            "`**` must stand between slashes, not within a name as in {}",
            quote(name)
        ))
        .with_help(format!(
            "did you mean {}?",
            quote(&path.replace(name, &spread_out(name)))
        )));
    }
    if let [GlobToken::Literal(bytes)] = &tokens[..]
        && matches!(**bytes, [b'.'] | [b'.', b'.'])
    {
        return Err(TextError::new(format!(
            "a rule's path cannot hold the name {}",
            quote(name)
        ))
        .with_help("write the path that is meant, as the kernel resolves it"));
    }
    let component = match <[GlobToken; 1]>::try_from(tokens) {
        Ok([GlobToken::Literal(bytes)]) => Component::Exact(bytes),
        Ok(tokens) => Component::Glob(GlobPattern {
            tokens: tokens.into(),
        }),
        Err(tokens) => Component::Glob(GlobPattern { tokens }),
    };
    let length = component.min_bytes();
    if length > MAX_NAME_BYTES {
        return Err(TextError::new(format!(
            "the name {} can never match: a name has at most {MAX_NAME_BYTES} bytes, and this needs {length}",
            quote(name)
        )));
    }
    Ok(component)
}

fn empty_name(path: &str) -> TextError {
    let cleaned: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let root = if path.starts_with('/') { "/" } else { "" };
    let cleaned = format!("{root}{}", cleaned.join("/"));
    if path.ends_with('/') {
        TextError::new(format!("{} ends with a slash", quote(path))).with_help(format!(
            "write {} for the directory itself, {} for everything below it, or both",
            quote(&cleaned),
            quote(&format!("{}/**", cleaned.trim_end_matches('/')))
        ))
    } else {
        TextError::new("the path holds an empty name: two slashes side by side")
            .with_help(format!("write {}", quote(&cleaned)))
    }
}

/// `a**b` as the pattern that was probably meant: `a*/**/*b`.
fn spread_out(name: &str) -> String {
    let before = name.split("**").next().unwrap_or_default();
    let after = name.rsplit("**").next().unwrap_or_default();
    let after = after.trim_start_matches('*');
    let mut parts = Vec::new();
    if !before.is_empty() {
        parts.push(format!("{before}*"));
    }
    parts.push("**".to_owned());
    if !after.is_empty() {
        parts.push(format!("*{after}"));
    }
    parts.join("/")
}

/// Splits a name at its wildcards and resolves escapes.
fn tokenize(name: &str) -> Result<Vec<GlobToken>, TextError> {
    let mut tokens = Vec::new();
    let mut literal = Vec::new();
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        let wildcard = match c {
            '*' => Some(GlobToken::AnyRun),
            '?' => Some(GlobToken::AnyChar),
            '\\' => {
                literal.extend(unescape(&mut chars)?);
                None
            }
            '[' | '{' => return Err(unsupported(c)),
            c => {
                literal.extend(c.encode_utf8(&mut [0; 4]).bytes());
                None
            }
        };
        if let Some(token) = wildcard {
            flush(&mut literal, &mut tokens);
            tokens.push(token);
        }
    }
    flush(&mut literal, &mut tokens);
    Ok(tokens)
}

fn flush(literal: &mut Vec<u8>, tokens: &mut Vec<GlobToken>) {
    if !literal.is_empty() {
        tokens.push(GlobToken::Literal(std::mem::take(literal).into()));
    }
}

fn unsupported(c: char) -> TextError {
    let (what, instead) = if c == '[' {
        (
            "character classes (`[a-z]`)",
            "use `?` for any one character",
        )
    } else {
        ("alternatives (`{a,b}`)", "write one rule for each")
    };
    TextError::new(format!("{what} are not supported in patterns")).with_help(format!(
        "{instead}; for the character itself write `\\{c}` (in YAML, within single quotes)"
    ))
}

/// Resolves what follows a backslash.
pub(in super::super) fn unescape(chars: &mut std::str::Chars<'_>) -> Result<Vec<u8>, TextError> {
    const HELP: &str =
        "after a backslash: one of * ? \\ [ ] { } for that character, or xHH for a byte in hex";
    match chars.next() {
        Some(c @ ('*' | '?' | '\\' | '[' | ']' | '{' | '}')) => Ok(vec![c as u8]),
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            let is_hex = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            match u8::from_str_radix(&digits, 16) {
                Ok(byte) if is_hex && byte != 0 && byte != b'/' => Ok(vec![byte]),
                Ok(_) if is_hex => Err(TextError::new(format!(
                    "a name cannot hold the byte {digits} (NUL or slash)"
                ))),
                _ => Err(TextError::new("`\\x` needs two hexadecimal digits").with_help(HELP)),
            }
        }
        Some(c) => Err(
            TextError::new(format!("{} is not an escape", quote(&format!("\\{c}"))))
                .with_help(HELP),
        ),
        None => Err(TextError::new("the name ends with a backslash").with_help(HELP)),
    }
}
