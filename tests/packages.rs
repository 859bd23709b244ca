//! The packages' parts, without building one (`packaging/build.sh` and `packaging/try.sh` do): what `Cargo.toml` names is there,
//! the scripts are scripts, and the packaged configuration takes readings in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::gateway::Gateway;
use crate::harness::jobs;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn deb() -> toml::Table {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    manifest["package"]["metadata"]["deb"].as_table().unwrap().clone()
}

/// Source and place of each file, but for what a build makes.
fn assets() -> Vec<(String, String)> {
    let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
    let assets = deb()["assets"].as_array().unwrap().iter().map(|a| (text(&a[0]), text(&a[1]))).collect::<Vec<_>>();
    assets.into_iter().filter(|(from, _)| !from.starts_with("target/")).collect()
}

#[test]
fn everything_that_the_package_names_is_there() {
    for (from, _) in assets() {
        let folder = from.split('*').next().unwrap();
        assert!(root().join(folder).exists(), "{from} does not exist");
    }
    for script in ["postinst", "postrm", "copyright", "changelog"] {
        assert!(root().join("packaging/debian").join(script).is_file(), "{script} is missing");
    }
}

/// A conffile that is not an asset would never be installed, and one that is no conffile would lose an administrator's work.
#[test]
fn what_goes_to_etc_is_a_conffile() {
    let conffiles: Vec<String> =
        deb()["conf-files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap().to_owned()).collect();
    let etc: Vec<String> =
        assets().into_iter().map(|(_, to)| format!("/{to}")).filter(|to| to.starts_with("/etc/")).collect();
    assert_eq!(etc, conffiles);
}

#[test]
fn the_changelog_of_the_package_has_this_version() {
    let text = fs::read_to_string(root().join("packaging/debian/changelog")).unwrap();
    assert!(
        text.starts_with(&format!("forebay ({}-1) ", env!("CARGO_PKG_VERSION"))),
        "{}",
        text.lines().next().unwrap()
    );
}

fn scripts() -> Vec<PathBuf> {
    let folders = ["cross", "packaging", "packaging/debian", ".ci"];
    let files = folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap().map(|e| e.unwrap().path()));
    files
        .filter(|file| {
            fs::read_to_string(file).is_ok_and(|text| text.starts_with("#!/") && !text.contains("python3\n"))
        })
        .collect()
}

#[test]
fn every_script_is_one() {
    assert!(scripts().len() >= 8, "{:?}", scripts());
    for script in scripts() {
        let said = Command::new("bash").arg("-n").arg(&script).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
}

/// On a fresh box, before anybody has said where Kafka is.
#[test]
fn the_packaged_configuration_collects_without_a_kafka() {
    let packaged = fs::read_to_string(root().join("config/minimal.toml")).unwrap();
    let (port, nobody) = (jobs::free_port(), jobs::free_port());
    let packaged = packaged.replace("localhost:9092", &format!("127.0.0.1:{nobody}"));
    let mut gateway = Gateway::builder().build();
    let mut config = fs::read_to_string(gateway.config()).unwrap();
    config += &packaged.replace("127.0.0.1:1883", &format!("127.0.0.1:{port}"));
    fs::write(gateway.config(), config).unwrap();
    gateway.start();
    let port = port.to_string();
    let publish = Command::new(jobs::tool("mosquitto_pub", "mosquitto-clients"))
        .args(["-p", &port, "-q", "1", "-t", "hall/1", "-m", "21.5"])
        .output()
        .unwrap();
    assert!(publish.status.success(), "no PUBACK: {}", String::from_utf8_lossy(&publish.stderr));
    gateway.stop();
    let kept = gateway.command(&["spool", "export", "--lane", "default"]).text();
    assert!(kept.contains("21.5") && kept.contains("hall/1"), "{kept}");
}
