//! What a connection publishes, and when. A feed is pure: it is asked with the time and answers with a message, a time
//! to be asked again, or the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::clock::Moment;

/// Where messages of one equipment go.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The MQTT topic.
    pub topic: String,
    /// The equipment's id: the key of its Kafka records.
    pub equipment: String,
}

#[derive(Debug, Clone)]
pub struct Message {
    /// Dense from 0 in each feed.
    pub number: u64,
    pub place: Arc<Place>,
    pub payload: Bytes,
}

/// A feed's answer.
#[derive(Debug)]
pub enum Next {
    Message(Message),
    /// Nothing before this time since the start.
    At(Duration),
    /// The device goes silent for this long, without a word to anybody.
    Die {
        silent: Duration,
    },
    Finished,
}

pub trait Feed: Send + 'static {
    /// Not asked again before the time it named, except when the connection woke up for something else.
    fn next(&mut self, now: Moment) -> Next;

    /// A name for message `number` that a consumer can find again.
    fn id(&self, number: u64) -> String;
}
