//! The boards: what `boards/` says of each, part of the program.

use serde::Deserialize;

/// One folder below `boards/`.
pub struct Board {
    pub name: &'static str,
    profile: &'static str,
    /// The keys of the configuration that the hardware decides.
    pub overlay: &'static str,
}

macro_rules! board {
    ($name:literal) => {
        Board {
            name: $name,
            profile: include_str!(concat!("../../../boards/", $name, "/profile.toml")),
            overlay: include_str!(concat!("../../../boards/", $name, "/overlay.toml")),
        }
    };
}

pub const BOARDS: [Board; 9] = [
    board!("beaglebone-black"),
    board!("generic-arm64"),
    board!("generic-x86-64"),
    board!("raspberry-pi-3b-plus"),
    board!("raspberry-pi-4"),
    board!("raspberry-pi-5"),
    board!("raspberry-pi-cm4"),
    board!("raspberry-pi-zero-2w"),
    board!("revolution-pi"),
];

/// What the hardware is, as `profile.toml` says it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub title: String,
    pub target: String,
    /// Of the smallest one that is sold.
    pub memory: String,
    pub storage: Storage,
    pub rtc: Rtc,
    /// The file that tells boxes of one image apart.
    pub identity: String,
    pub read_only_root: bool,
    #[serde(default)]
    pub serial: Vec<SerialPort>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    Sd,
    Emmc,
    Ssd,
}

/// Whether a clock goes on without power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rtc {
    None,
    Battery,
    BatteryOptional,
    Carrier,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialPort {
    pub port: String,
    pub what: String,
}

impl Board {
    pub fn find(name: &str) -> Option<&'static Board> {
        BOARDS.iter().find(|board| board.name == name)
    }

    /// # Errors
    /// What the parser says: a mistake in `boards/`, which a test finds.
    pub fn profile(&self) -> Result<Profile, String> {
        toml::from_str(self.profile).map_err(|error| format!("read the profile of {}: {error}", self.name))
    }
}

impl Storage {
    pub fn words(self) -> &'static str {
        match self {
            Storage::Sd => "an SD card",
            Storage::Emmc => "eMMC",
            Storage::Ssd => "an SSD",
        }
    }
}

impl Rtc {
    pub fn words(self) -> &'static str {
        match self {
            Rtc::None => "no clock goes on without power: timestamps are corrected once the time is set",
            Rtc::Battery => "a clock goes on without power",
            Rtc::BatteryOptional => "with a battery, a clock goes on without power",
            Rtc::Carrier => "the carrier board decides whether a clock goes on without power",
        }
    }
}
