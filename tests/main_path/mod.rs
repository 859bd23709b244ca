//! The path of a reading, end to end, in good and in bad times. Each test is a story; `Rig::close_books` is its judge.

mod bad_input;
mod broker_away;
pub mod bursts;
mod commands;
mod damage;
mod disk_full;
mod drains;
mod forget;
mod happy;
mod kafka_away;
mod kills;
mod leader;
mod limits;
mod own_events;
mod security;
mod sessions;
mod step_times;
mod topics;
