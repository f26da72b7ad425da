//! stub
/// stub
pub struct Compiled;
