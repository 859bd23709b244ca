//! What systemd sees of the gateway: its notifications, its watchdog, its reload, and the units themselves.

mod notify;
mod reload;
mod units;
mod watchdog;
