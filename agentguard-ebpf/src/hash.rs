//! A hash of a few words (multiply and fold, as in splitmix64).

const ODD: u64 = 0xbf58_476d_1ce4_e5b9;

/// What a hash begins with.
pub const START: u64 = ODD;

/// The hash with one word more.
#[inline(always)]
pub fn with(sum: u64, word: u64) -> u64 {
    // The upper half is folded in first: a multiplication never brings a difference down.
    let mixed = sum ^ word;
    let product = (mixed ^ mixed >> 32).wrapping_mul(ODD);
    product ^ product >> 29
}
