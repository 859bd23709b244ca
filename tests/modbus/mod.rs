//! Modbus, end to end: devices of another hand (pymodbus) by TCP and on socat's pseudo terminals, the real gateway, a real
//! Kafka.

mod commands;
mod devices;
mod kills;
mod rig;
