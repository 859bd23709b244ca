//! SUBSCRIBE and UNSUBSCRIBE (3.8, 3.10). Whether a filter is one is seen by the router.

use super::properties::{self, Allowed, Value, id};
use super::read::Reader;
use super::{Refused, Version};

/// One wish of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter<'a> {
    pub filter: &'a str,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// 0: retained messages are sent, 1: only for a new subscription, 2: never.
    pub retain_handling: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe<'a> {
    pub packet_id: u16,
    /// 0: none.
    pub id: u32,
    /// At least one.
    pub filters: Vec<Filter<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    pub packet_id: u16,
    /// At least one.
    pub filters: Vec<&'a str>,
}

const SUBSCRIBE: Allowed = Allowed::of(&[id::SUBSCRIPTION_ID, id::USER]);
const UNSUBSCRIBE: Allowed = Allowed::of(&[id::USER]);

pub(super) fn read(version: Version, body: &[u8]) -> Result<Subscribe<'_>, Refused> {
    let mut from = Reader::new(body);
    let packet_id = from.packet_id()?;
    let mut id = 0;
    if version.is_v5() {
        properties::read(&mut from, SUBSCRIBE, |_, value| {
            match value {
                Value::Varint(0) => return Err(Refused::protocol("subscription identifier 0")),
                Value::Varint(number) => id = number,
                _ => {}
            }
            Ok(())
        })?;
    }
    let mut filters = Vec::new();
    while !from.is_empty() {
        let filter = from.text()?;
        filters.push(read_options(version, filter, from.u8()?)?);
    }
    if filters.is_empty() {
        return Err(Refused::protocol("a SUBSCRIBE without a filter")); // [MQTT-3.8.3-2]
    }
    Ok(Subscribe { packet_id, id, filters })
}

fn read_options(version: Version, filter: &str, options: u8) -> Result<Filter<'_>, Refused> {
    let reserved = if version.is_v5() { 0xc0 } else { 0xfc };
    if options & reserved != 0 || options & 3 == 3 || options & 0x30 == 0x30 {
        return Err(Refused::malformed("reserved subscription options")); // [MQTT-3.8.3-5]
    }
    let no_local = options & 4 != 0;
    if no_local && filter.starts_with("$share/") {
        return Err(Refused::protocol("a shared subscription without local messages")); // [MQTT-3.8.3-4]
    }
    Ok(Filter {
        filter,
        qos: options & 3,
        no_local,
        retain_as_published: options & 8 != 0,
        retain_handling: (options >> 4) & 3,
    })
}

pub(super) fn read_unsubscribe(version: Version, body: &[u8]) -> Result<Unsubscribe<'_>, Refused> {
    let mut from = Reader::new(body);
    let packet_id = from.packet_id()?;
    if version.is_v5() {
        properties::read(&mut from, UNSUBSCRIBE, |_, _| Ok(()))?;
    }
    let mut filters = Vec::new();
    while !from.is_empty() {
        filters.push(from.text()?);
    }
    if filters.is_empty() {
        return Err(Refused::protocol("an UNSUBSCRIBE without a filter")); // [MQTT-3.10.3-2]
    }
    Ok(Unsubscribe { packet_id, filters })
}
