//! MQTT over WebSocket (MQTT 5, section 6).

mod frames;
mod stream;
mod upgrade;

pub use stream::WebSocket;
pub use upgrade::upgrade;
