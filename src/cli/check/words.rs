//! The words of the configuration, as `check` says them.

use crate::config::{Order, When, WhenFull};

pub fn when(when: When) -> &'static str {
    match when {
        When::Offline => "offline",
        When::Always => "always",
    }
}

pub fn order(order: Order) -> &'static str {
    match order {
        Order::InOrder => "in-order",
        Order::LiveFirst => "live-first",
    }
}

pub fn when_full(when_full: WhenFull) -> &'static str {
    match when_full {
        WhenFull::Refuse => "refuse",
        WhenFull::DropOldest => "drop-oldest",
        WhenFull::DropNewest => "drop-newest",
    }
}
