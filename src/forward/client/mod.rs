//! What every connection to a cluster has in common.

pub mod kafka;
mod oauth;
