//! Every profile is loaded, and what is made of it is a configuration without a mistake.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use super::boards::Storage;
use super::*;
use crate::config::{self, Loaded};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("boards")
}

fn load(name: &str, text: &str) -> Loaded {
    config::parse_str(name, text).unwrap_or_else(|problems| panic!("{name}:\n{problems}\n{text}"))
}

#[test]
fn every_folder_is_a_board_and_every_board_a_folder() {
    let folders: BTreeSet<String> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let names: BTreeSet<String> = BOARDS.iter().map(|board| board.name.to_owned()).collect();
    assert_eq!(folders, names);
    for name in names {
        for file in ["README.md", "service.conf", "70-forebay-board.rules"] {
            assert!(folder().join(&name).join(file).is_file(), "boards/{name} has no {file}");
        }
    }
}

#[test]
fn what_init_writes_passes_the_check() {
    for board in &BOARDS {
        let loaded = load(board.name, &text_for(board).unwrap());
        for warning in &loaded.warnings {
            assert!(warning.message.starts_with("acknowledged = in one broker's memory"), "{}: {warning}", board.name);
        }
        assert_eq!(loaded.config.listeners.len(), 1);
    }
    load("minimal", MINIMAL);
}

#[test]
fn the_overlay_goes_beside_the_packaged_configuration() {
    for board in &BOARDS {
        load(board.name, &format!("{}{MINIMAL}", board.overlay));
    }
}

#[test]
fn the_serial_lines_are_right_once_they_are_uncommented() {
    for board in &BOARDS {
        let profile = board.profile().unwrap();
        let lines = serial_lines(&profile);
        let live: String = lines
            .lines()
            .map(|line| {
                line.strip_prefix("# ").filter(|rest| rest.starts_with("[[") || rest.contains(" = ")).unwrap_or(line)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let loaded = load(board.name, &format!("{MINIMAL}{live}"));
        assert_eq!(loaded.config.serial_sources.len(), profile.serial.len(), "{live}");
    }
}

/// The numbers follow from the hardware, whoever edits them.
#[test]
fn the_numbers_fit_the_hardware() {
    for board in &BOARDS {
        let profile = board.profile().unwrap();
        let config = load(board.name, &format!("{}{MINIMAL}", board.overlay)).config;
        let memory = config::units::size(&profile.memory).unwrap();
        let service = fs::read_to_string(folder().join(board.name).join("service.conf")).unwrap();
        let service = service.lines().find_map(|line| line.strip_prefix("MemoryMax=")).unwrap().trim_end_matches('M');
        let service = service.parse::<u64>().unwrap() << 20;
        assert!(service <= memory / 4, "{}: a quarter of the memory is enough for one service", board.name);
        assert!(config.memory.max * 4 <= service, "{}: MemoryMax leaves no room", board.name);
        let delay = config.spool.ack_delay.as_millis();
        match profile.storage {
            Storage::Sd => assert!(delay >= 50, "{}: {delay} ms", board.name),
            Storage::Emmc => assert!(delay >= 20, "{}: {delay} ms", board.name),
            Storage::Ssd => assert!(delay <= 5, "{}: {delay} ms", board.name),
        }
        assert!(config.spool.wear_budget_per_day.is_some(), "{}", board.name);
    }
}

#[test]
fn the_udev_rules_say_something_udev_understands() {
    let keys = ["SUBSYSTEM==", "KERNEL==", "ENV{ID_PATH}==", "GROUP=", "MODE=", "SYMLINK+="];
    for board in &BOARDS {
        let rules = fs::read_to_string(folder().join(board.name).join("70-forebay-board.rules")).unwrap();
        let lines: Vec<&str> = rules.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(!lines.is_empty(), "{}", board.name);
        for part in lines.iter().flat_map(|line| line.split(", ")) {
            let value = keys.iter().find_map(|key| part.strip_prefix(key));
            assert!(value.is_some_and(|v| v.starts_with('"') && v.ends_with('"')), "{}: {part}", board.name);
        }
    }
}

#[test]
fn a_file_that_is_there_stays_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etc/gateway.toml");
    let args = |force| InitArgs { board: Some("raspberry-pi-4".into()), force };
    assert_eq!(run(&path, &args(false)), exit::OK);
    let first = fs::read_to_string(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    assert_eq!(run(&path, &args(false)), exit::CANTCREAT);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(run(&path, &args(true)), exit::OK);
    assert_eq!(fs::read_to_string(&path).unwrap(), first);
}

#[test]
fn what_cannot_be_written_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.toml");
    fs::write(&path, "mine").unwrap();
    // Where the new file would go is a folder: as good as a full partition, for the caller.
    fs::create_dir(dir.path().join("gateway.toml.new")).unwrap();
    let args = InitArgs { board: None, force: true };
    assert_eq!(run(&path, &args), exit::CANTCREAT);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn a_wrong_board_is_answered_with_the_right_ones() {
    let failure = find("raspberry-pi-6").err().unwrap();
    assert_eq!(failure.code, exit::USAGE);
    assert!(BOARDS.iter().all(|board| failure.message.contains(board.name)), "{}", failure.message);
}
