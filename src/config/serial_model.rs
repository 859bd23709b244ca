//! The resolved `[[source.serial]]`. See `model.rs` for what that means.

use std::time::Duration;

use crate::intake::exception::Report;
use crate::intake::serial::decode::Decoder;
use crate::intake::serial::device::PortName;
use crate::intake::serial::frame::FrameSpec;

/// A serial line and the devices on it.
#[derive(Debug, Clone)]
pub struct SerialSource {
    pub name: String,
    pub port: PortName,
    pub settings: PortSettings,
    /// A topic as of an MQTT reading: routes match it. `{poll}` stands for the query's name.
    pub topic: String,
    /// Readings need not be committed before they are forwarded: a crash may lose some.
    pub volatile: bool,
    pub frame: FrameSpec,
    pub decoder: Decoder,
    /// `None`: every reading is sent.
    pub report: Option<Report>,
    /// Empty: the device speaks by itself.
    pub polls: Vec<Poll>,
    /// A line that says nothing for so long is told of.
    pub silence: Option<Duration>,
    /// Most bytes of readings that are not accepted yet: this source's share of `Budget::intake`.
    pub unacked_bytes_max: u64,
    /// Pauses between attempts to open the port. Default 100 ms and 1 s.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    None,
    Even,
    Odd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowControl {
    None,
    Hardware,
    Software,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortSettings {
    /// Bits a second; any that the hardware can.
    pub baud: u32,
    /// 5 to 8.
    pub data_bits: u8,
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
    pub flow_control: FlowControl,
    /// Nobody else may open the port.
    pub exclusive: bool,
    /// The level of DTR once the port is open. `None`: as the driver leaves it.
    pub dtr: Option<bool>,
    /// The driver switches the direction of a bus of two wires. `None`: it is left as it is.
    pub rs485: Option<Rs485>,
}

/// How a driver switches an RS-485 transceiver between sending and receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rs485 {
    /// The level of RTS that makes the transceiver send: high (the default) or low.
    pub rts_on_send: bool,
    /// Between the switch and the first bit, and between the last bit and the switch back.
    pub delay_before_send: Duration,
    pub delay_after_send: Duration,
    /// Four wires, or an echo that is wanted.
    pub receive_while_sending: bool,
    /// The transceiver's own resistor at the end of the bus.
    pub termination: bool,
}

/// A question that is asked again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    pub name: String,
    pub query: Vec<u8>,
    pub interval: Duration,
    /// From the query to the whole answer. Default 1 s.
    pub timeout: Duration,
    /// Default 2.
    pub retries: u32,
}

impl SerialSource {
    /// The topic of an answer to a query, or of what comes unasked.
    pub fn topic_of(&self, poll: Option<usize>) -> String {
        let name = poll.and_then(|poll| self.polls.get(poll)).map_or("unasked", |poll| poll.name.as_str());
        self.topic.replace("{poll}", name)
    }
}
