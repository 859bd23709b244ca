//! The readings that tests send: each carries an id of its own, which the checker follows. Pure.

/// One reading of one device. Its id is in the payload, so that it survives every way through the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub topic: String,
    pub payload: Vec<u8>,
    pub id: String,
}

impl Reading {
    /// The `number`th reading of `device`, of about 60 bytes, on `plant/d<device>/temp`.
    pub fn new(device: usize, number: usize) -> Reading {
        Self::padded(device, number, 0)
    }

    /// The same with `padding` bytes more.
    pub fn padded(device: usize, number: usize, padding: usize) -> Reading {
        let id = format!("d{device}-{number}");
        let payload = format!(r#"{{"id":"{id}","unit":"C","value":{}.5,"pad":"{}"}}"#, number % 90, "x".repeat(padding));
        Reading { topic: format!("plant/d{device}/temp"), payload: payload.into_bytes(), id }
    }

    /// On another MQTT topic.
    pub fn on(mut self, topic: &str) -> Reading {
        topic.clone_into(&mut self.topic);
        self
    }
}

/// The id in a payload of [`Reading`]; `None` for anything else.
pub fn id_of(payload: &[u8]) -> Option<String> {
    let fields: serde_json::Value = serde_json::from_slice(payload).ok()?;
    Some(fields.get("id")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_carries_its_id() {
        let reading = Reading::padded(3, 17, 100);
        assert_eq!(id_of(&reading.payload), Some("d3-17".to_owned()));
        assert!(reading.payload.len() > 100);
        assert_eq!(id_of(b"{}"), None);
    }
}
