//! Paths as text: any bytes, and readable where they are.

use serde::{Deserialize as _, Deserializer, Serializer};

use crate::mounts::Names;

/// The path with these names.
pub(super) fn path_of(names: &Names) -> Vec<u8> {
    let mut path = Vec::new();
    for name in names {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

/// Text for bytes: a backslash and what is not UTF-8 become `\xHH`.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\x5c"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The bytes of a text that [`encode`] made.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let hex = part.strip_prefix('x')?;
        let digits = hex.get(..2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(hex.get(2..)?.as_bytes());
    }
    Some(bytes)
}

/// For `#[serde(serialize_with)]`.
pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&encode(bytes))
}

/// For `#[serde(deserialize_with)]`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    decode(&text).ok_or_else(|| serde::de::Error::custom("a backslash is not followed by xHH"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn readable_paths_stay_as_they_are() {
        assert_eq!(encode("/srv/ä b".as_bytes()), "/srv/ä b");
        assert_eq!(encode(b"/a\xff\\"), "/a\\xff\\x5c");
        assert_eq!(decode("/a\\"), None);
        assert_eq!(decode("/a\\x4"), None);
        assert_eq!(decode("/a\\x+4"), None);
    }

    proptest! {
        #[test]
        fn every_path_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
