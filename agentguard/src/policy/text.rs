//! Text from files in messages, and errors about it.

/// Text from a file that is repeated in a message is cut after this many characters.
const MAX_QUOTED: usize = 80;

/// Why a piece of text is not what it should be: a rule, a duration, a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TextError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl TextError {
    /// An error without advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    /// The same with advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Text from a file as YAML in quotes, to be copied; `None` where it is too
/// long for a message or holds what cannot be shown.
#[must_use]
pub fn yaml_quoted(text: &str) -> Option<String> {
    let is_plain = |c| !is_unprintable(c) && c != '"' && c != '\\';
    (text.len() <= MAX_QUOTED && text.chars().all(is_plain)).then(|| format!("\"{text}\""))
}

/// Text from a file, fit for a message: in backticks, without control
/// characters (a policy file must not be able to drive a terminal), not too long.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_QUOTED).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("`{}`", escape_unprintable(&shown))
}

/// The text with control characters, and those that reorder or hide what is
/// around them, written as escapes.
pub(crate) fn escape_unprintable(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

pub(super) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The valid word that is nearest to a wrong one, if any is near enough to be meant.
#[must_use]
pub fn nearest<'a>(wrong: &str, valid: &[&'a str]) -> Option<&'a str> {
    if wrong.len() > MAX_QUOTED {
        return None;
    }
    let wrong = wrong.to_ascii_lowercase().replace('_', "-");
    let begins_alike =
        |word: &str| wrong.len() >= 3 && (word.starts_with(&wrong) || wrong.starts_with(word));
    valid
        .iter()
        .filter_map(|&word| {
            let spelt = word.replace('_', "-").to_ascii_lowercase();
            let distance = strsim::osa_distance(&wrong, &spelt);
            let is_near = distance <= (word.len() / 3).max(1) && distance < wrong.len();
            (is_near || begins_alike(&spelt)).then_some((distance, word))
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}

/// Advice for a wrong word: the nearest valid one, or all of them.
#[must_use]
pub fn suggestion(wrong: &str, valid: &[&str]) -> String {
    match nearest(wrong, valid) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("valid here: {}", valid.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_cannot_drive_a_terminal() {
        assert_eq!(quote("a\u{1b}[31mb\u{202e}"), "`a\\u{1b}[31mb\\u{202e}`");
        assert_eq!(quote(&"x".repeat(100)).chars().count(), MAX_QUOTED + 3);
    }

    #[test]
    fn suggestions_are_near_or_complete() {
        let verbs = ["connect", "listen", "read"];
        assert_eq!(nearest("conect", &verbs), Some("connect"));
        assert_eq!(nearest("conn", &verbs), Some("connect"));
        assert_eq!(nearest("reading", &verbs), Some("read"));
        assert_eq!(nearest("Read", &verbs), Some("read"));
        assert_eq!(nearest("banana", &verbs), None);
        assert_eq!(nearest("", &verbs), None);
        assert_eq!(suggestion("x", &verbs), "valid here: connect, listen, read");
    }
}
