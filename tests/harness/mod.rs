//! The rig: real Kafka, real Mosquitto, the real gateway, a tap between the last two, and a judge.

pub mod jobs;
pub mod readings;
pub mod wire;

pub mod kafka;
pub mod kafka_setup;
pub mod mosquitto;
pub mod mqtt;
pub mod secured;
pub mod tap;

pub mod checker;
pub mod gateway;
pub mod rig;
pub mod small_disk;
