//! The topic template of the simulator: `plant/{line}/{equipment}/status`. Pure.

use std::str::FromStr;

/// Devices on one production line: plants have lines of about this many machines.
const DEVICES_PER_LINE: u32 = 10;

/// What is wrong with a `--topic` value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TopicError {
    #[error("there is no placeholder {{{0}}}, only {{device}}, {{equipment}}, {{line}} and {{instance}}")]
    UnknownPlaceholder(String),
    #[error("a placeholder lacks its closing brace")]
    Unclosed,
    #[error("a topic has at least one character and neither +, # nor NUL (MQTT-3.3.2-2, MQTT-4.7.3)")]
    NotATopic,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Device,
    Equipment,
    Line,
    Instance,
}

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate {
    pieces: Vec<Piece>,
}

impl FromStr for TopicTemplate {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        if text.is_empty() || text.contains(['+', '#', '\0']) {
            return Err(TopicError::NotATopic);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, tail) = after.split_once('}').ok_or(TopicError::Unclosed)?;
            pieces.push(Piece::Text(before.into()));
            pieces.push(read_placeholder(name)?);
            rest = tail;
        }
        pieces.push(Piece::Text(rest.into()));
        Ok(Self { pieces })
    }
}

impl Default for TopicTemplate {
    /// `plant/{line}/{equipment}/status`.
    fn default() -> Self {
        let text = |text: &str| Piece::Text(text.into());
        Self { pieces: vec![text("plant/"), Piece::Line, text("/"), Piece::Equipment, text("/status")] }
    }
}

fn read_placeholder(name: &str) -> Result<Piece, TopicError> {
    Ok(match name {
        "device" => Piece::Device,
        "equipment" => Piece::Equipment,
        "line" => Piece::Line,
        "instance" => Piece::Instance,
        _ => return Err(TopicError::UnknownPlaceholder(name.into())),
    })
}

impl TopicTemplate {
    /// The topic of one equipment.
    pub fn fill(&self, instance: &str, device: u32, equipment: u32) -> String {
        let mut topic = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => topic.push_str(text),
                Piece::Device => topic.push_str(&device_name(device)),
                Piece::Equipment => topic.push_str(&equipment_name(device, equipment)),
                Piece::Line => topic.push_str(&line_name(device)),
                Piece::Instance => topic.push_str(instance),
            }
        }
        topic
    }
}

/// `device-0001` for device 0.
pub fn device_name(device: u32) -> String {
    format!("device-{:04}", device + 1)
}

/// `equipment-0001-01` for the first equipment of device 0: unique in the plant, as it is the key of its records.
pub fn equipment_name(device: u32, equipment: u32) -> String {
    format!("equipment-{:04}-{:02}", device + 1, equipment + 1)
}

fn line_name(device: u32) -> String {
    format!("line-{}", device / DEVICES_PER_LINE + 1)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn fills_every_placeholder() {
        let check = |template: &str, topic: &str| {
            assert_eq!(template.parse::<TopicTemplate>().unwrap().fill("4f1c", 11, 2), topic);
        };
        check("plant/{line}/{equipment}/status", "plant/line-2/equipment-0012-03/status");
        check("{device}", "device-0012");
        check("load/{instance}/x", "load/4f1c/x");
        check("plain", "plain");
    }

    #[test]
    fn refuses_what_no_broker_takes() {
        let error = |template: &str| template.parse::<TopicTemplate>().unwrap_err();
        assert_eq!(error("a/{plant}"), TopicError::UnknownPlaceholder("plant".into()));
        assert_eq!(error("a/{device"), TopicError::Unclosed);
        for bad in ["", "a/+/b", "a/#", "a\0b"] {
            assert_eq!(error(bad), TopicError::NotATopic, "{bad:?}");
        }
    }
}
