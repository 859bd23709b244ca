//! Programs of others, in languages of others: what they run in is prepared once, in `target/interop`.
//!
//! Nothing is skipped: a missing tool fails the test and names its Debian package.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::jobs;

/// A script of `tests/interop/<name>`, with what the `requirements.txt` beside it asks for.
pub fn python(name: &str, script: &str) -> Command {
    let runtime = prepared(name, &["requirements.txt"], |source, into| {
        let mut venv = Command::new(jobs::tool("python3", "python3"));
        succeed("make a Python environment (apt-get install python3-venv)", venv.args(["-m", "venv"]).arg(into));
        let mut pip = Command::new(into.join("bin/pip"));
        succeed("install Python's packages", pip.args(["install", "-q", "-r"]).arg(source.join("requirements.txt")));
    });
    let mut command = jobs::leashed(&runtime.join("bin/python"));
    command.arg("-B").arg(folder(name).join(script));
    command
}

/// The folder of a runtime, made by `make` if it is not there for exactly these sources. The lock keeps other tests and
/// other test processes waiting.
pub fn prepared(name: &str, sources: &[&str], make: impl FnOnce(&Path, &Path)) -> PathBuf {
    let root = jobs::target_dir().join("interop");
    fs::create_dir_all(&root).unwrap();
    let (source, into, complete) = (folder(name), root.join(name), root.join(format!("{name}.complete")));
    let lock = File::create(root.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let texts: Vec<u8> = sources.iter().flat_map(|file| fs::read(source.join(file)).unwrap()).collect();
    if fs::read(&complete).is_ok_and(|have| have == texts) {
        return into;
    }
    if into.exists() {
        fs::remove_dir_all(&into).unwrap();
    }
    make(&source, &into);
    fs::write(complete, texts).unwrap();
    into
}

pub fn succeed(what: &str, command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("failed to {what}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "failed to {what}: {}", String::from_utf8_lossy(&said));
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}
