//! The client library that the gateway itself is built on, as a client of the listener.

mod rumqttc;
