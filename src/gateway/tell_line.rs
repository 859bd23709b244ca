//! What the hub says of serial and Modbus lines.

use serde_json::json;

use super::hub::Hub;
use crate::intake::line::LineEvent;

impl Hub {
    pub(super) fn tell_line(&mut self, name: &str, event: &LineEvent) {
        match event {
            LineEvent::Opened { device } => {
                tracing::info!(source = name, device, "the line is open");
                self.tell("line-open", json!({ "source": name, "device": device }));
            }
            LineEvent::Lost { reason } => {
                tracing::warn!(source = name, reason, "the line is gone; it is opened again as soon as it is back");
                self.tell("line-lost", json!({ "source": name, "reason": reason }));
            }
            LineEvent::Noisy { reason } => {
                tracing::warn!(source = name, reason, "the line makes no sense");
                self.tell("line-noisy", json!({ "source": name, "reason": reason }));
            }
            LineEvent::Clear => {
                tracing::info!(source = name, "good frames come again");
                self.tell("line-clear", json!({ "source": name }));
            }
            LineEvent::Silent => {
                tracing::warn!(source = name, "the line is silent");
                self.tell("line-silent", json!({ "source": name }));
            }
            LineEvent::Mute { device, reason } => {
                tracing::warn!(source = name, device, reason, "a device does not answer");
                self.tell("device-mute", json!({ "source": name, "device": device, "reason": reason }));
            }
            LineEvent::Answers { device } => {
                tracing::info!(source = name, device, "the device answers again");
                self.tell("device-answers", json!({ "source": name, "device": device }));
            }
            LineEvent::Refuses { device, reason } => {
                tracing::warn!(source = name, device, reason, "the device refuses some of what it is asked for");
                self.tell("device-refuses", json!({ "source": name, "device": device, "reason": reason }));
            }
            LineEvent::Overrun => {
                tracing::error!(source = name, "the kernel's buffer was full: what the device sent then may be lost");
                self.tell("line-overrun", json!({ "source": name }));
            }
        }
    }
}
