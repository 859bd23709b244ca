//! The path of a reading from a device to Kafka through the listener, in good and in bad times. Each test is a story with
//! the real gateway and a real Kafka; the devices' own witness says what was acknowledged, and `Plant::close_books` judges.

mod device;
mod fleet;
mod packets;
mod plant;
mod script;
mod witness;

mod greedy;
mod kafka_away;
mod kills;
mod message_ids;
mod presence;
mod pressure;
mod qos2;
