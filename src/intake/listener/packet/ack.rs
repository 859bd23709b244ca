//! PUBACK, PUBREC, PUBREL, PUBCOMP (3.4 to 3.7) and DISCONNECT (3.14).

use super::properties::{self, Allowed, REASONED, Value, id};
use super::read::Reader;
use super::{Refused, Version, reason};

/// An ack of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    pub packet_id: u16,
    /// 0x80 and above: the client did not take the message.
    pub code: u8,
}

pub(super) fn read(version: Version, body: &[u8]) -> Result<Acked, Refused> {
    let mut from = Reader::new(body);
    let packet_id = from.packet_id()?;
    let mut code = reason::SUCCESS;
    if version.is_v5() && !from.is_empty() {
        code = from.u8()?;
        // Without properties their length may be left out (3.4.2.2.1).
        if !from.is_empty() {
            properties::read(&mut from, REASONED, |_, _| Ok(()))?;
        }
    }
    from.end()?;
    Ok(Acked { packet_id, code })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    pub code: u8,
    /// A new session expiry interval in seconds (v5).
    pub session_expiry_s: Option<u32>,
}

/// Codes of a client's DISCONNECT (3.14.2.1).
const CLIENT_CODES: [u8; 14] = [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];

const DISCONNECT: Allowed = Allowed::of(&[id::SESSION_EXPIRY, id::REASON, id::USER]);

pub(super) fn read_disconnect(version: Version, body: &[u8]) -> Result<Disconnect, Refused> {
    let mut from = Reader::new(body);
    let mut disconnect = Disconnect { code: reason::SUCCESS, session_expiry_s: None };
    if version.is_v5() && !from.is_empty() {
        disconnect.code = from.u8()?;
        if !CLIENT_CODES.contains(&disconnect.code) {
            // [MQTT-3.14.2-1]
            return Err(Refused::protocol("a DISCONNECT with a reason that no client has"));
        }
        if !from.is_empty() {
            properties::read(&mut from, DISCONNECT, |_, value| {
                if let Value::U32(seconds) = value {
                    disconnect.session_expiry_s = Some(seconds);
                }
                Ok(())
            })?;
        }
    }
    from.end()?;
    Ok(disconnect)
}
