//! Forebay: a dependable bridge from machines to Kafka. The modules stand in the order of a reading's path.

#![forbid(unsafe_code)]

pub mod record;

pub mod intake;

pub mod route;

pub mod spool;

pub mod forward;

pub mod gateway;

pub mod ops;

pub mod config;

pub mod cli;

pub mod fuzz;

pub mod clock;
pub mod faults;
