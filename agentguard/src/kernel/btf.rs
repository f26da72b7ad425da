//! The running kernel's type information (BTF), as far as AgentGuard asks it:
//! the offset of a member of a structure, and whether a function exists.
//!
//! Format: Documentation/bpf/btf.rst of the kernel. Everything is bounds-checked;
//! a malformed file is an error, never a panic.

use std::collections::HashMap;
use std::path::Path;

/// Where the kernel shows its own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why BTF did not answer.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}; the kernel must be built with CONFIG_DEBUG_INFO_BTF=y")]
    Read {
        /// File.
        path: String,
        /// Reason.
        cause: std::io::Error,
    },
    /// The bytes are not BTF.
    #[error("malformed BTF: {0}")]
    Malformed(&'static str),
    /// The kernel has no such structure or member.
    #[error(
        "this kernel's BTF has no `{structure}.{member}`; AgentGuard does not know this kernel"
    )]
    NoMember {
        /// Structure.
        structure: &'static str,
        /// Member path.
        member: &'static str,
    },
}

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Parsed BTF: positions of types, and names of structures and functions.
pub struct Btf {
    data: Vec<u8>,
    /// Offset in `data` of each type, by type id minus one.
    types: Vec<u32>,
    strings: usize,
    structures: HashMap<Vec<u8>, u32>,
    functions: HashMap<Vec<u8>, u32>,
}

impl Btf {
    /// Reads and indexes the kernel's BTF.
    ///
    /// # Errors
    /// The file is missing or malformed.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let data = std::fs::read(path).map_err(|cause| BtfError::Read {
            path: path.display().to_string(),
            cause,
        })?;
        Self::parse(data)
    }

    /// Indexes BTF bytes.
    ///
    /// # Errors
    /// The bytes are not well-formed.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let malformed = BtfError::Malformed;
        if word(&data, 0).ok_or(malformed("short header"))? & 0xffff != 0xeb9f {
            return Err(malformed("wrong magic number (or foreign byte order)"));
        }
        let field = |at| {
            word(&data, at)
                .map(|value| value as usize)
                .ok_or(malformed("short header"))
        };
        let header = field(4)?;
        let (types_at, types_len) = (header + field(8)?, field(12)?);
        let strings = header + field(16)?;
        let end = types_at
            .checked_add(types_len)
            .ok_or(malformed("type section overflows"))?;
        if end > data.len() || strings > data.len() {
            return Err(malformed("sections reach past the end"));
        }
        let mut btf = Self {
            data,
            types: Vec::new(),
            strings,
            structures: HashMap::new(),
            functions: HashMap::new(),
        };
        let mut at = types_at;
        while at < end {
            let info = word(&btf.data, at + 4).ok_or(malformed("short type"))?;
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let extra = extra_bytes(kind, count).ok_or(malformed("unknown type kind"))?;
            btf.types
                .push(u32::try_from(at).map_err(|_| malformed("too large"))?);
            let id = u32::try_from(btf.types.len()).map_err(|_| malformed("too many types"))?;
            let name = btf.name(at).unwrap_or_default().to_vec();
            match kind {
                KIND_STRUCT if !name.is_empty() => {
                    btf.structures.entry(name).or_insert(id);
                }
                KIND_FUNC => {
                    btf.functions.insert(name, id);
                }
                _ => {}
            }
            at += 12 + extra;
        }
        Ok(btf)
    }

    /// Byte offset of a member, through nested structures and unions:
    /// `member("file", "f_path.dentry")`. Members of anonymous ones are found too.
    ///
    /// # Errors
    /// There is no such member, or it is a bit field.
    pub fn member(&self, structure: &'static str, member: &'static str) -> Result<u64, BtfError> {
        let missing = BtfError::NoMember { structure, member };
        let Some(mut id) = self.structures.get(structure.as_bytes()).copied() else {
            return Err(missing);
        };
        let mut offset = 0;
        for part in member.split('.') {
            let Some((bits, next)) = self.find(id, part.as_bytes(), 0) else {
                return Err(missing);
            };
            if bits % 8 != 0 {
                return Err(missing);
            }
            offset += u64::from(bits / 8);
            id = next;
        }
        Ok(offset)
    }

    /// Whether the kernel has a structure member.
    #[must_use]
    pub fn has_member(&self, structure: &'static str, member: &'static str) -> bool {
        self.member(structure, member).is_ok()
    }

    /// Whether the kernel has a function of this name.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(name.as_bytes())
    }

    /// Number of parameters of a function.
    #[must_use]
    pub fn parameters(&self, function: &str) -> Option<usize> {
        let id = *self.functions.get(function.as_bytes())?;
        let proto = word(&self.data, self.at(id)? + 8)?;
        Some((word(&self.data, self.at(proto)? + 4)? & 0xffff) as usize)
    }

    /// Bit offset and type of a member; looks into anonymous members.
    fn find(&self, id: u32, member: &[u8], depth: u32) -> Option<(u32, u32)> {
        // Deeper nesting than this is a loop in a malformed file.
        if depth > 16 {
            return None;
        }
        let at = self.at(self.strip(id)?)?;
        let info = word(&self.data, at + 4)?;
        let kind = info >> 24 & 0x1f;
        if kind != KIND_STRUCT && kind != KIND_UNION {
            return None;
        }
        let has_bit_fields = info >> 31 != 0;
        for index in 0..(info & 0xffff) as usize {
            let entry = at + 12 + index * 12;
            let kind_of = word(&self.data, entry + 4)?;
            let raw = word(&self.data, entry + 8)?;
            let bits = if has_bit_fields {
                raw & 0x00ff_ffff
            } else {
                raw
            };
            let name = self.name(entry)?;
            if name == member {
                return Some((bits, kind_of));
            }
            if name.is_empty()
                && let Some((inner, found)) = self.find(kind_of, member, depth + 1)
            {
                return Some((bits + inner, found));
            }
        }
        None
    }

    /// Follows typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> Option<u32> {
        for _ in 0..16 {
            let at = self.at(id)?;
            match word(&self.data, at + 4)? >> 24 & 0x1f {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_TYPE_TAG => {
                    id = word(&self.data, at + 8)?;
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn at(&self, id: u32) -> Option<usize> {
        self.types
            .get(id.checked_sub(1)? as usize)
            .map(|at| *at as usize)
    }

    fn name(&self, at: usize) -> Option<&[u8]> {
        let start = self.strings + word(&self.data, at)? as usize;
        let rest = self.data.get(start..)?;
        let len = rest.iter().position(|byte| *byte == 0)?;
        rest.get(..len)
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// Bytes behind the common 12 of a type.
fn extra_bytes(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => count * 12,
        KIND_ENUM | KIND_FUNC_PROTO => count * 8,
        // Pointers, qualifiers, typedefs, forwards, functions, floats.
        2 | 7 | 8 | 9 | 10 | 11 | 12 | 16 | 18 => 0,
        _ => return None,
    })
}
