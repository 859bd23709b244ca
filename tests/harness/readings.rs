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

    /// An alarm of a device that sends nothing else, on `plant/d<device>/alarm`.
    pub fn alarm(device: usize, number: usize) -> Reading {
        let reading = Self::new(device, number);
        Reading { topic: format!("plant/d{device}/alarm"), ..reading }
    }

    /// The same with `padding` bytes more, which do not compress below three quarters.
    pub fn padded(device: usize, number: usize, padding: usize) -> Reading {
        let id = format!("d{device}-{number}");
        let noise = noise((device << 32 | number) as u64, padding);
        let payload = format!(r#"{{"id":"{id}","unit":"C","value":{}.5,"noise":"{noise}"}}"#, number % 90);
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

/// `per_device` readings of each of `devices`, in turn, numbered from `first`.
pub fn plant(devices: usize, first: usize, per_device: usize) -> Vec<Reading> {
    let numbers = first..first + per_device;
    numbers.flat_map(|number| (0..devices).map(move |device| Reading::new(device, number))).collect()
}

/// A small seeded generator (SplitMix64): a failure is repeated with its seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` up to, not including, `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high - low)
    }
}

fn noise(seed: u64, length: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut dice = Dice::new(seed);
    (0..length).map(|_| char::from(LETTERS[(dice.roll() % 64) as usize])).collect()
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

    #[test]
    fn the_plant_speaks_in_turn_and_never_twice() {
        let ids: Vec<String> = plant(2, 5, 2).into_iter().map(|reading| reading.id).collect();
        assert_eq!(ids, ["d0-5", "d1-5", "d0-6", "d1-6"]);
    }

    #[test]
    fn noise_does_not_compress_much_and_is_the_same_each_time() {
        let reading = Reading::padded(1, 1, 8000);
        assert_eq!(reading, Reading::padded(1, 1, 8000));
        assert!(zstd::bulk::compress(&reading.payload, 1).unwrap().len() > 5900);
    }
}
