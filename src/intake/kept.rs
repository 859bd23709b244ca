//! What a source keeps in the spool beside its readings: small facts that must survive a power cut together with them.
//!
//! A key belongs to one source: it starts with the source's name and a NUL (names have none).

/// The table a fact lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A QoS 2 message that has been stored and not yet released. Key: source NUL client NUL packet id (big endian).
    /// Value: 16 bytes, a hash of topic and payload.
    Qos2 = 1,
    /// A session of the listener. Key: source NUL client id.
    Session = 2,
    /// A retained message. Key: source NUL topic.
    Retained = 3,
}

/// One step of what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put {
        kind: Kind,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        kind: Kind,
        key: Vec<u8>,
    },
    /// Deletes every key that begins so.
    DeletePrefix {
        kind: Kind,
        prefix: Vec<u8>,
    },
}

/// A fact as it was found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub kind: Kind,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// Names a message whatever its packet id: two with the same `id` and `payload` are the same message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId {
    /// A hash over source, client, topic and the device's own id of the message, each with its length.
    pub id: u128,
    /// A hash of the payload: another payload under a known id is another message.
    pub payload: u64,
}
