//! What one client may publish and subscribe to.

/// The rules of a listener as they apply to one client.
#[derive(Debug, Clone)]
pub struct Rights {
    user: Option<String>,
}

impl Rights {
    /// Everything but topics that begin with `$`, for a client without a user.
    pub fn everything() -> Self {
        Rights { user: None }
    }

    /// Topics that begin with `$` are the server's (MQTT-4.7.2-1).
    pub fn may_publish(&self, topic: &str) -> bool {
        !topic.starts_with('$')
    }

    pub fn may_subscribe(&self, _filter: &str) -> bool {
        true
    }

    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}
