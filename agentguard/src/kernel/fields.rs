//! Where the running kernel has the fields that the programs read, written into the
//! programs' instructions (see [`agentguard_common::field`]).

use agentguard_common::field::{FIELDS, LOAD, VALUE};
use object::{Object as _, ObjectSection as _, SectionKind};

use super::btf::{Btf, BtfError};

/// Bytes of an instruction (RFC 9669, section 3).
const INSTRUCTION: usize = 8;
/// `LDX | MEM`, whatever the size: a load from a register and an offset.
const LOAD_CODE: u8 = 0x61;
/// The bits of an opcode that tell such a load: all but its size.
const LOAD_MASK: u8 = 0xe7;
/// `ALU64 | MOV | K`: a constant to a register.
const MOVE_CODE: u8 = 0xb7;
/// `LD | IMM | DW`: a constant of 64 bits, in two instructions.
const WIDE_CODE: u8 = 0x18;

/// Why an object cannot be fitted to the running kernel.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// A structure or field that this kernel does not have.
    #[error(transparent)]
    Missing(#[from] BtfError),
    /// Not an object of this build.
    #[error("the kernel object is damaged: {0}")]
    Damaged(String),
}

/// The object with this kernel's offsets.
///
/// # Errors
/// See [`FieldError`].
pub fn resolve(object: &[u8], types: &Btf) -> Result<Vec<u8>, FieldError> {
    let offsets = FIELDS
        .iter()
        .map(|field| types.member(field.structure, field.member))
        .collect::<Result<Vec<_>, _>>()?;
    let damaged = |what: &dyn std::fmt::Display| FieldError::Damaged(what.to_string());
    let file = object::File::parse(object).map_err(|error| damaged(&error))?;
    let mut resolved = object.to_vec();
    for section in file.sections() {
        if section.kind() != SectionKind::Text {
            continue;
        }
        let Some((start, len)) = section.file_range() else {
            continue;
        };
        let range = usize::try_from(start).ok().zip(usize::try_from(len).ok());
        let code = range
            .and_then(|(start, len)| resolved.get_mut(start..start.checked_add(len)?))
            .ok_or_else(|| damaged(&"a section is cut off"))?;
        fit(code, &offsets).map_err(|what| damaged(&what))?;
    }
    Ok(resolved)
}

/// Writes the offsets into the instructions of one section.
fn fit(code: &mut [u8], offsets: &[u64]) -> Result<(), String> {
    let mut instructions = code.chunks_exact_mut(INSTRUCTION);
    while let Some(bytes) = instructions.next() {
        if bytes[0] == WIDE_CODE {
            instructions.next();
        } else if bytes[0] & LOAD_MASK == LOAD_CODE {
            let offset = i16::from_le_bytes([bytes[2], bytes[3]]);
            if offset >= LOAD {
                let real = found(offsets, i32::from(offset - LOAD))?;
                let real =
                    i16::try_from(real).map_err(|_| format!("offset {real} is too large"))?;
                bytes[2..4].copy_from_slice(&real.to_le_bytes());
            }
        } else if bytes[0] == MOVE_CODE {
            let value = i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            if (VALUE..VALUE + 0x100).contains(&value) {
                let real = found(offsets, value - VALUE)?;
                let real =
                    i32::try_from(real).map_err(|_| format!("offset {real} is too large"))?;
                bytes[4..].copy_from_slice(&real.to_le_bytes());
            }
        }
    }
    Ok(())
}

fn found(offsets: &[u64], number: i32) -> Result<u64, String> {
    usize::try_from(number)
        .ok()
        .and_then(|number| offsets.get(number))
        .copied()
        .ok_or_else(|| format!("an instruction names field {number}, and there is none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSETS: [u64; 3] = [8, 64, 1_288];

    fn load(code: u8, offset: i16) -> [u8; 8] {
        let [low, high] = offset.to_le_bytes();
        [code, 0x21, low, high, 0, 0, 0, 0]
    }

    fn moved(code: u8, value: i32) -> [u8; 8] {
        let mut bytes = [code, 1, 0, 0, 0, 0, 0, 0];
        bytes[4..].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    #[test]
    fn marked_loads_and_moves_get_the_offsets() {
        let mut code = [
            load(0x79, LOAD + 2),
            load(0x69, LOAD),
            moved(MOVE_CODE, VALUE + 1),
        ]
        .concat();
        fit(&mut code, &OFFSETS).unwrap();
        let expected = [load(0x79, 1_288), load(0x69, 8), moved(MOVE_CODE, 64)].concat();
        assert_eq!(code, expected);
    }

    #[test]
    fn everything_else_stays() {
        let plain = [
            load(0x79, 16),
            load(0x63, LOAD + 1),
            moved(MOVE_CODE, 7),
            moved(WIDE_CODE, VALUE),
            moved(MOVE_CODE, VALUE + 1),
        ]
        .concat();
        let mut code = plain.clone();
        fit(&mut code, &OFFSETS).unwrap();
        assert_eq!(code, plain);
    }

    #[test]
    fn a_field_that_is_not_in_the_table_is_an_error() {
        let mut code = load(0x61, LOAD + 3).to_vec();
        let error = fit(&mut code, &OFFSETS).unwrap_err();
        assert_eq!(error, "an instruction names field 3, and there is none");
        let mut code = load(0x61, LOAD).to_vec();
        assert!(fit(&mut code, &[1 << 20]).is_err());
    }
}
