//! The listener from outside: is it an MQTT server?
//!
//! `conformance` says every byte itself, `interop` has the clients of others say them. Both run against our listener and,
//! as a yardstick for the tests themselves, against Mosquitto. `table` holds docs/mqtt.md to what the tests show.

mod line;
mod packets;
mod servers;

mod conformance;
mod interop;
mod kills;
mod mqtt;
mod table;
