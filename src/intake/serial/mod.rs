//! `[[source.serial]]`: readings from serial lines.

pub mod decode;
pub mod frame;
