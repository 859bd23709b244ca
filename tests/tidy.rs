//! The rules of the repository as a test: who may name which crate, sizes, and what every file must or must not hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SRC_LINES_MAX: usize = 450;
const TEST_LINES_MAX: usize = 600;

/// A crate and the files that may name it. Everything else goes through those files' own types, so that the crate can be
/// replaced, and read for its traps, in one place.
struct Fence {
    krate: &'static str,
    allows: fn(&Path) -> bool,
}

const FENCES: [Fence; 5] = [
    Fence { krate: "rusqlite", allows: |path| path.starts_with("src/spool") },
    Fence { krate: "rdkafka", allows: |path| path.ends_with("kafka.rs") },
    Fence { krate: "rumqttc", allows: is_mqtt },
    Fence { krate: "rumqttd", allows: is_mqtt },
    Fence { krate: "tokio_modbus", allows: |path| path == Path::new("src/intake/modbus/wire.rs") },
];

/// Files that a person writes need no address of a package registry: the package managers know theirs.
const REGISTRIES: [&str; 8] = [
    "crates.io",
    "repo.maven.apache.org",
    "repo1.maven.org",
    "pypi.org",
    "pythonhosted.org",
    "npmjs.org",
    "proxy.golang.org",
    "deb.debian.org",
];

const UNFINISHED: [&str; 4] = ["todo!(", "unimplemented!(", "dbg!(", ".unwrap()"];

fn is_mqtt(path: &Path) -> bool {
    path.ends_with("mqtt.rs")
        || path.parent().is_some_and(|folder| folder.components().any(|c| c.as_os_str() == "mqtt"))
}

/// What is wrong with one file. `path` is relative to the repository.
fn findings(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let rust = path.extension().is_some_and(|extension| extension == "rs");
    let in_src = rust && path.starts_with("src");
    // A file of cases may be longer: nobody has to hold it in the head as a whole.
    let lines_max = if is_test_file(path) { TEST_LINES_MAX } else { SRC_LINES_MAX };
    if in_src && text.lines().count() > lines_max {
        found.push(format!("has {} lines, more than {lines_max}", text.lines().count()));
    }
    let tests_from = if is_test_file(path) { 0 } else { tests_from(text) };
    for (index, line) in text.lines().enumerate() {
        let mut wrong = wrong_anywhere(path, line);
        if rust {
            wrong.extend(wrong_in_rust(path, line));
        }
        if in_src && index < tests_from {
            wrong.extend(unfinished(line));
        }
        found.extend(wrong.into_iter().map(|what| format!("line {}: {what}", index + 1)));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        found.push("does not end with a line break".to_owned());
    }
    found
}

fn wrong_anywhere(path: &Path, line: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if line.ends_with(char::is_whitespace) {
        wrong.push("ends with white space".to_owned());
    }
    let lock = path.extension().is_some_and(|extension| extension == "lock");
    if !lock && line.contains("://") {
        let hosts = REGISTRIES.iter().filter(|host| line.contains(*host));
        wrong.extend(hosts.map(|host| format!("names the registry {host}")));
    }
    wrong
}

fn wrong_in_rust(path: &Path, line: &str) -> Vec<String> {
    if is_comment(line) {
        return Vec::new();
    }
    let named = FENCES.iter().filter(|fence| line.contains(&format!("{}::", fence.krate)));
    named.filter(|fence| !(fence.allows)(path)).map(|fence| format!("may not name {}", fence.krate)).collect()
}

fn unfinished(line: &str) -> Vec<String> {
    if is_comment(line) {
        return Vec::new();
    }
    UNFINISHED.iter().filter(|word| line.contains(*word)).map(|word| format!("{word} outside tests")).collect()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn is_test_file(path: &Path) -> bool {
    path.file_stem().and_then(|s| s.to_str()).is_some_and(|stem| stem.ends_with("tests"))
        || path.components().any(|c| c.as_os_str() == "tests")
}

/// The line on which the tests of a module begin.
fn tests_from(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let is_start = |pair: &[&str]| pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ");
    lines.windows(2).position(is_start).unwrap_or(lines.len())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder`, but for what builds and version control leave there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default();
        if path.is_symlink() || name == "target" || name == ".git" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_file_keeps_the_rules() {
    let mut found = Vec::new();
    for path in files(root()) {
        // Pictures and the like have no lines.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let path = path.strip_prefix(root()).unwrap();
        found.extend(findings(path, &text).into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_shipped_configuration_passes_the_check() {
    let is_toml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    // Register maps are no configurations: `config/tests/modbus.rs` reads them.
    let is_map = |path: &PathBuf| path.parent().is_some_and(|folder| folder.ends_with("modbus"));
    let shipped = files(&root().join("config")).into_iter().filter(|path| is_toml(path) && !is_map(path));
    let shipped: Vec<PathBuf> = shipped.collect();
    assert!(!shipped.is_empty(), "config/ holds no configuration");
    for path in shipped {
        let output =
            Command::new(env!("CARGO_BIN_EXE_forebay")).args(["check", "--config"]).arg(&path).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&said));
    }
}

#[test]
fn the_changelog_has_a_place_for_what_is_not_released_yet() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let is_head = |line: &str| line.starts_with("## ") && line.contains("Unreleased");
    assert!(text.lines().any(is_head), "CHANGELOG.md has no section Unreleased");
}

/// Each rule, broken once: a rule that finds nothing is no rule.
mod rules {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        assert_eq!(findings(Path::new(path), text), expected, "{path}: {text:?}");
    }

    #[test]
    fn crates_stay_behind_their_fences() {
        let sql = format!("use {}::Connection;\n", "rusqlite");
        check("src/spool/store.rs", &sql, &[]);
        check("src/forward/lane.rs", &sql, &["line 1: may not name rusqlite"]);
        let kafka = format!("use {}::Offset;\n", "rdkafka");
        check("src/forward/kafka.rs", &kafka, &[]);
        check("src/spool/store.rs", &kafka, &["line 1: may not name rdkafka"]);
        let mqtt = format!("use {}::QoS;\n", "rumqttc");
        check("src/intake/mqtt/codec.rs", &mqtt, &[]);
        check("src/downlink/mqtt.rs", &mqtt, &[]);
        check("src/intake/serial.rs", &mqtt, &["line 1: may not name rumqttc"]);
        check("src/intake/serial.rs", &format!("// {mqtt}"), &[]);
        let modbus = format!("use {}::Slave;\n", "tokio_modbus");
        check("src/intake/modbus/wire.rs", &modbus, &[]);
        check("src/intake/modbus/rounds.rs", &modbus, &["line 1: may not name tokio_modbus"]);
    }

    #[test]
    fn unfinished_code_is_found_before_the_tests_only() {
        let code = format!("fn f() {{ g(){} }}\n", ".unwrap()");
        check("src/a.rs", &code, &["line 1: .unwrap() outside tests"]);
        check("src/a.rs", &format!("#[cfg(test)]\nmod tests {{\n{code}}}\n"), &[]);
        check("src/spool/tests.rs", &code, &[]);
    }

    #[test]
    fn long_files_white_space_and_registries_are_found() {
        check("src/a.rs", &"\n".repeat(SRC_LINES_MAX), &[]);
        check("src/a.rs", &"\n".repeat(SRC_LINES_MAX + 1), &["has 451 lines, more than 450"]);
        check(
            "README.md",
            "a \nb\t\nc",
            &["line 1: ends with white space", "line 2: ends with white space", "does not end with a line break"],
        );
        let link = format!("https:/{}crates.io/crates/x\n", "/");
        check("README.md", &link, &["line 1: names the registry crates.io"]);
        check("Cargo.lock", &link, &[]);
    }
}
