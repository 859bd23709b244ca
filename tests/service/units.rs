//! The units, as systemd's own tools see them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::jobs;

/// Tenths: the exposure that `systemd-analyze security` may find, alone and with serial ports.
const EXPOSURE_MAX: u32 = 12;
const EXPOSURE_MAX_SERIAL: u32 = 16;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn unit(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap()
}

/// `None`: this machine has no systemd, and says so.
fn analyze(args: &[&str], file: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(args).arg(file).output() {
        Ok(output) => Some(output),
        Err(_) => {
            jobs::skipped("the units' check, as systemd-analyze is missing: apt-get install systemd");
            None
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// Both units, each in a folder of its own with these drop-ins, as text is changed by `change`.
fn each(drop_ins: &[&str], change: fn(String) -> String, look: impl Fn(&Path)) {
    for (file, name) in [("forebay.service", "forebay.service"), ("forebay@.service", "forebay@press.service")] {
        let dir = jobs::scratch("units");
        let path = dir.path().join(name);
        fs::write(&path, change(unit(file))).unwrap();
        let beside = dir.path().join(format!("{name}.d"));
        fs::create_dir(&beside).unwrap();
        for drop_in in drop_ins {
            fs::copy(folder().join(drop_in), beside.join(drop_in)).unwrap();
        }
        look(&path);
    }
}

#[test]
fn the_sandbox_leaves_little_open() {
    for (drop_ins, limit) in [(&[][..], EXPOSURE_MAX), (&["serial.conf"][..], EXPOSURE_MAX_SERIAL)] {
        each(
            drop_ins,
            |text| text,
            |path| {
                let threshold = format!("--threshold={limit}");
                let Some(output) = analyze(&["security", "--offline=true", &threshold], path) else { return };
                assert!(output.status.success(), "above {limit} tenths with {drop_ins:?}:\n{}", said(&output));
            },
        );
    }
}

#[test]
fn systemd_finds_nothing_wrong() {
    // It wants to find the program, which is not installed here.
    let change = |text: String| text.replace("/usr/bin/forebay", "/bin/true");
    each(&["serial.conf"], change, |path| {
        let Some(output) = analyze(&["verify", "--man=no", "--recursive-errors=no"], path) else { return };
        // Other units of this machine may have something wrong with them.
        let said = said(&output);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("forebay")).collect();
        assert!(output.status.success() && ours.is_empty(), "{said}");
    });
    each(
        &[],
        |text| text.replace("Restart=always", "Restart=perhaps"),
        |path| {
            let Some(output) = analyze(&["verify", "--man=no", "--recursive-errors=no"], path) else { return };
            assert!(said(&output).contains("restart specifier"), "a mistake is found: {}", said(&output));
        },
    );
}

/// What a gateway must start without stands in no line of the order.
#[test]
fn the_start_waits_for_neither_network_nor_clock_nor_check() {
    for name in ["forebay.service", "forebay@.service"] {
        let text = unit(name);
        let orders = text.lines().filter(|line| {
            ["After=", "Wants=", "Requires=", "BindsTo=", "ExecStartPre=", "ExecCondition="]
                .iter()
                .any(|key| line.starts_with(key))
        });
        assert_eq!(orders.collect::<Vec<_>>(), ["After=network.target"], "{name}");
    }
}

#[test]
fn the_template_differs_in_its_names_alone() {
    let settings = |text: &str| {
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let one = unit("forebay.service")
        .replace("to Kafka\n", "to Kafka (%i)\n")
        .replace("/gateway.toml", "/%i.toml")
        .replace("Directory=forebay\n", "Directory=forebay-%i\n");
    assert_eq!(settings(&one), settings(&unit("forebay@.service")));
}
