//! `forebay passwd` as it is typed, and what `check` makes of its file.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn forebay(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that needs no password may be gone before it has been written.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn passwd(file: &Path, args: &[&str], stdin: &str) -> (i32, String) {
    let output = forebay(&[&["passwd", file.to_str().unwrap()], args].concat(), stdin);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn users_are_set_listed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    assert_eq!(passwd(&file, &["anna"], "secret-7\n"), (0, String::new()));
    assert_eq!(passwd(&file, &["bob"], "secret-8"), (0, String::new()));
    assert_eq!(passwd(&file, &["--list"], ""), (0, "anna\nbob\n".to_owned()));
    assert_eq!(passwd(&file, &["anna", "--delete"], ""), (0, String::new()));
    assert_eq!(passwd(&file, &["--list"], ""), (0, "bob\n".to_owned()));
    let (code, said) = passwd(&file, &["carl"], "\n");
    assert!(code == 65 && said.contains("empty"), "{code} {said}");
    assert_eq!(passwd(&file, &[], "").0, 64);
}

#[test]
fn check_names_what_is_wrong_with_the_files_of_a_listener() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    std::fs::write(
        &config,
        r#"
[kafka.main]
bootstrap_servers = "localhost:9092"
[[route]]
filter = "plant/#"
kafka_topic = "telemetry"
[[source.listener]]
listen_tls = "0.0.0.0:8883"
password_file = "users"
[source.listener.tls]
cert_file = "server.pem"
key_file = "server.pem"
[[source.listener.acl]]
publish = "plant/%u/#"
"#,
    )
    .unwrap();
    std::fs::write(folder.path().join("users"), "anna:secret-7\n").unwrap();
    std::fs::write(folder.path().join("server.pem"), "secret-8").unwrap();
    let output = forebay(&["check", "--config", config.to_str().unwrap()], "");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("cannot use its certificate files") && said.contains("server.pem"), "{said}");
    assert!(said.contains("users, line 1:") && said.contains("holds no user"), "{said}");
    assert!(!said.contains("secret"), "{said}");

    let key = rcgen::generate_simple_self_signed(vec!["gateway.plant".to_owned()]).unwrap();
    let both = key.cert.pem() + &key.signing_key.serialize_pem();
    std::fs::write(folder.path().join("server.pem"), both).unwrap();
    assert_eq!(passwd(&folder.path().join("users"), &["bob"], "secret-9\n").0, 0);
    let output = forebay(&["check", "--config", config.to_str().unwrap()], "");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("listener listener: mqtts 0.0.0.0:8883 (password); 1 rule\n"), "{said}");
    assert!(said.contains("at most 2000 connections, 200 of one address"), "{said}");
    let output = forebay(&["check", "--json", "--config", config.to_str().unwrap()], "");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let listener = &document["config"]["listeners"][0];
    assert_eq!(listener["endpoints"][0]["enters"], "password", "{document}");
    assert_eq!(listener["limits"]["connections"], 2_000);
    assert_eq!(document["config"]["memory"]["fan_out"], 2 << 20);
}
