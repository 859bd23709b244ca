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

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Qos2, Kind::Session, Kind::Retained];

    /// As it stands in the file.
    pub fn number(self) -> i64 {
        self as i64
    }

    /// `None`: a kind that this version does not know.
    pub fn from_number(number: i64) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Its place in a list of all kinds.
    pub fn index(self) -> usize {
        self as usize - 1
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Qos2 => "qos2",
            Kind::Session => "session",
            Kind::Retained => "retained",
        }
    }
}

/// Rows of each kind, in the order of [`Kind::ALL`].
pub type KeptRows = [u64; Kind::ALL.len()];

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

impl Change {
    /// Whether it can only make room.
    pub fn deletes(&self) -> bool {
        !matches!(self, Change::Put { .. })
    }

    /// What it brings into the file, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Change::Put { key, value, .. } => key.len() + value.len(),
            Change::Delete { .. } | Change::DeletePrefix { .. } => 0,
        }
    }
}

/// A fact as it was found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub kind: Kind,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

impl Fact {
    /// Whether the source of this name has kept it.
    pub fn belongs_to(&self, source: &str) -> bool {
        self.key.strip_prefix(source.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Names a message whatever its packet id: two with the same `id` and `payload` are the same message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// A hash over source, client, topic and the device's own id of the message, each with its length.
    pub id: u128,
    /// A hash of the payload: another payload under a known id is another message.
    pub payload: u64,
}
