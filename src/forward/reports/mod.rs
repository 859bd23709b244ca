//! What a producer tells.

pub mod kafka;
