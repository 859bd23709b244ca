//! Sending once more what has been delivered.

pub mod kafka;
