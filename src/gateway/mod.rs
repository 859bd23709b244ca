//! The gateway: the only place that knows every stage. Configure, build, announce, wait for a signal, drain.

pub mod events;
mod hub;
pub mod inbox;
mod tell;
mod wear;
