//! Route: which lane, Kafka topic, key and headers a reading gets (step 2 to 3). Pure: no I/O, no clock.
#[derive(Debug, Clone)]
pub struct Router;
