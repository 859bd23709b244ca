//! The standards' statements, one test for a few of them at a time. docs/mqtt.md has the table.

use super::line::{Accepted, Line, ack};
use super::packets::{self, Connect, Message, Packet, Props, Publish, V4, V5, Will, frame, id, text, var};
use super::servers::{self, Server};

/// A test and the statements that it shows, by their numbers in the two standards.
pub struct Case {
    pub name: &'static str,
    pub v4: &'static [&'static str],
    pub v5: &'static [&'static str],
}

const BOTH: [u8; 2] = [V4, V5];

/// Each case is a function that gets a server. It becomes a test of our listener and one of Mosquitto, unless a reason
/// says why Mosquitto cannot stand for the standard there. `own:` are tests that start listeners of their own.
macro_rules! cases {
    (own: $($name:ident: $v4:tt, $v5:tt;)*) => {
        pub const CASES: &[super::Case] = &[$(cases!(@case $name $v4 $v5)),*];

        mod forebay {
            $(#[test] fn $name() { super::$name(); })*
        }
    };
    ($($name:ident: $v4:tt, $v5:tt $(, not mosquitto: $reason:literal)?;)*) => {
        pub const CASES: &[super::Case] = &[$(cases!(@case $name $v4 $v5)),*];

        mod forebay {
            $(#[test] fn $name() { super::$name(super::Server::forebay()); })*
        }

        mod mosquitto {
            $(cases!(@test $name $($reason)?);)*
        }
    };
    (@case $name:ident $v4:tt $v5:tt) => {
        super::Case { name: concat!(module_path!(), "::", stringify!($name)), v4: &$v4, v5: &$v5 }
    };
    (@test $name:ident) => { #[test] fn $name() { super::$name(super::Server::mosquitto()); } };
    (@test $name:ident $reason:literal) => {};
}

mod connect;
mod disconnect;
mod flow;
mod keep_alive;
mod malformed;
mod own;
mod properties;
mod publish;
mod retained;
mod session;
mod subscribe;
mod topics;
mod websocket;
mod will;

/// All of them.
pub const CASES: [&[Case]; 14] = [
    connect::CASES,
    disconnect::CASES,
    flow::CASES,
    keep_alive::CASES,
    malformed::CASES,
    own::CASES,
    properties::CASES,
    publish::CASES,
    retained::CASES,
    session::CASES,
    subscribe::CASES,
    topics::CASES,
    websocket::CASES,
    will::CASES,
];
