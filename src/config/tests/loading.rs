//! Files as they lie on the disk: missing, too large, not UTF-8, several of them; and the last good one.

use super::*;
use crate::config::{Config, LastGoodError, load, load_last_good, save_last_good};
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The report with the folder's name taken out, which differs in every run.
fn report_of(folder: &Path, problems: &Problems) -> String {
    problems.to_string().replace(folder.to_str().unwrap(), "FOLDER")
}

#[test]
fn a_missing_file_is_told_apart_from_a_wrong_one() {
    let folder = folder();
    let problems = load(&folder.path().join("gateway.toml")).unwrap_err();
    assert_eq!(problems.cause, Cause::Missing);
    insta::assert_snapshot!(report_of(folder.path(), &problems));
}

#[test]
fn a_huge_file_is_refused_by_its_size() {
    let folder = folder();
    let path = folder.path().join("gateway.toml");
    // Sparse: 100 MiB of zeros that take no space.
    fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let problems = load(&path).unwrap_err();
    assert_eq!(problems.cause, Cause::Content);
    insta::assert_snapshot!(report_of(folder.path(), &problems));
}

#[test]
fn bytes_that_are_not_utf8_have_a_place() {
    let folder = folder();
    let path = folder.path().join("gateway.toml");
    fs::write(&path, b"[log]\nlevel = \"caf\xe9\"\n").unwrap();
    insta::assert_snapshot!(report_of(folder.path(), &load(&path).unwrap_err()));
}

#[test]
fn parts_are_read_in_the_order_of_their_names() {
    let folder = folder();
    fs::write(folder.path().join("gateway.toml"), LEAST).unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    let route = |topic: &str| format!("[[route]]\nfilter = \"{topic}/#\"\nkafka_topic = \"telemetry\"\n");
    fs::write(folder.path().join("conf.d/20-b.toml"), route("b")).unwrap();
    fs::write(folder.path().join("conf.d/10-a.toml"), route("a")).unwrap();
    fs::write(folder.path().join("conf.d/30-c.toml.off"), "nonsense").unwrap();
    let config = load(&folder.path().join("gateway.toml")).unwrap().config;
    let filters: Vec<&str> = config.routes[1..].iter().map(|route| route.filter.as_str()).collect();
    assert_eq!(filters, ["a/#", "b/#"]);
}

fn routes(config: &Config) -> Vec<&str> {
    config.routes.iter().map(|route| route.filter.as_str()).collect()
}

#[test]
fn the_last_good_configuration_comes_back() {
    let folder = folder();
    let main = folder.path().join("gateway.toml");
    fs::write(&main, LEAST).unwrap();
    let loaded = load(&main).unwrap();
    save_last_good(folder.path(), &loaded).unwrap();
    fs::write(&main, "broken").unwrap();
    assert!(load(&main).is_err());

    let again = load_last_good(folder.path()).unwrap();
    assert_eq!(routes(&again.config), routes(&loaded.config));
    assert_eq!(again.config.hash, loaded.config.hash);
    let mode = fs::metadata(folder.path().join("last-good-config.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn saved_secrets_stay_references() {
    let folder = folder();
    fs::write(folder.path().join("pw"), "hunter2\n").unwrap();
    let text = LEAST.replace("host = \"localhost\"", "host = \"localhost\"\nuser = \"u\"\npassword_file = \"pw\"");
    let main = folder.path().join("gateway.toml");
    fs::write(&main, text).unwrap();
    let loaded = load(&main).unwrap();
    assert_eq!(loaded.config.mqtt_sources[0].password.as_ref().unwrap().expose(), "hunter2");
    save_last_good(folder.path(), &loaded).unwrap();
    let saved = fs::read_to_string(folder.path().join("last-good-config.json")).unwrap();
    assert!(saved.contains("password_file") && !saved.contains("hunter2"), "{saved}");

    fs::remove_file(folder.path().join("pw")).unwrap();
    let error = load_last_good(folder.path()).unwrap_err();
    assert!(matches!(error, LastGoodError::Problems { .. }), "{error}");
}

#[test]
fn a_damaged_last_good_configuration_is_said_to_be_damaged() {
    let folder = folder();
    assert!(matches!(load_last_good(folder.path()), Err(LastGoodError::Io { .. })));
    for text in ["", "{}", r#"{"format":2,"files":[]}"#] {
        fs::write(folder.path().join("last-good-config.json"), text).unwrap();
        assert!(matches!(load_last_good(folder.path()), Err(LastGoodError::Damaged { .. })), "{text}");
    }
}

#[test]
fn an_interrupted_write_does_not_stop_the_next_one() {
    let folder = folder();
    fs::write(folder.path().join("last-good-config.json.new"), "half").unwrap();
    save_last_good(folder.path(), &parse(LEAST).unwrap()).unwrap();
    assert!(load_last_good(folder.path()).is_ok());
    assert!(!folder.path().join("last-good-config.json.new").exists());
}

#[test]
fn a_broken_configuration_still_tells_its_state_directory() {
    let problems = parse("[gateway]\nstate_dir = \"/data/forebay\"\n[log]\nlevel = 5\n").unwrap_err();
    assert_eq!(problems.state_dir, PathBuf::from("/data/forebay"));
}
