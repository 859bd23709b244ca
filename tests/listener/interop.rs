//! The clients of others: tests/interop holds a program for each library. What they run in is prepared once, in
//! `target/interop`; then they are sent through the scenarios of tests/interop/README.md.
//!
//! Nothing is skipped: a missing tool fails the test and names its Debian package.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::servers::Server;
use crate::harness::jobs::{self, Job};
use crate::interop::{self, folder, prepared, succeed};

/// For all scenarios of one program. They take seconds.
const PATIENCE: Duration = Duration::from_secs(150);

const ALL: &str = "qos,resume,will,retained,large";
/// What a way in could spoil.
const FEW: &str = "qos,large";

const TCP: &str = "tcp";
const TLS: &str = "tls";
const WS: &str = "ws";
const WSS: &str = "wss";

/// Each client is a function that makes its command, and the ways in that it has. With Mosquitto as the server the
/// programs themselves are shown to be right.
macro_rules! clients {
    ($($name:ident: $ways:tt;)*) => {
        mod forebay {
            use super::*;

            $(#[test] fn $name() { through_all_ways(Server::forebay(), super::$name, &$ways); })*
        }

        mod mosquitto {
            use super::*;

            $(#[test] fn $name() { through_all_ways(Server::mosquitto(), super::$name, &[TCP]); })*
        }
    };
}

clients! {
    mosquitto_clients: [TCP, TLS];
    paho_python: [TCP, TLS, WS, WSS];
    aiomqtt: [TCP, TLS, WS, WSS];
    mqtt_js: [TCP, TLS, WS, WSS];
    hivemq_java: [TCP, TLS, WS, WSS];
    paho_go: [TCP, TLS, WS, WSS];
}

fn mosquitto_clients() -> Command {
    jobs::tool("mosquitto_pub", "mosquitto-clients");
    let mut command = jobs::leashed(&jobs::tool("bash", "bash"));
    command.arg(folder("shell").join("mosquitto.sh"));
    command
}

fn paho_python() -> Command {
    python("paho_client.py")
}

fn aiomqtt() -> Command {
    python("aio_client.py")
}

fn python(script: &str) -> Command {
    interop::python("python", script)
}

fn mqtt_js() -> Command {
    let runtime = prepared("node", &["package.json", "package-lock.json"], |source, into| {
        fs::create_dir_all(into).unwrap();
        for file in ["package.json", "package-lock.json"] {
            fs::copy(source.join(file), into.join(file)).unwrap();
        }
        let mut npm = Command::new(jobs::tool("npm", "npm"));
        succeed("install MQTT.js", npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(into));
    });
    let mut command = jobs::leashed(&jobs::tool("node", "nodejs"));
    command.env("NODE_PATH", runtime.join("node_modules")).arg(folder("node").join("client.js"));
    command
}

fn hivemq_java() -> Command {
    let sources = ["Main.java", "Line.java", "V3.java", "V5.java"];
    let runtime = prepared("java", &[&["pom.xml"], &sources[..]].concat(), |source, into| {
        let mut maven = Command::new(jobs::tool("mvn", "maven"));
        maven.args(["-q", "-B", "dependency:copy-dependencies", "-f"]).arg(source.join("pom.xml"));
        succeed("fetch the Java client", maven.arg(format!("-DoutputDirectory={}", into.join("libs").display())));
        let mut javac = Command::new(jobs::tool("javac", "default-jdk-headless"));
        javac.arg("-nowarn").arg("-d").arg(into.join("classes")).arg("-cp").arg(into.join("libs/*"));
        succeed("compile the Java client", javac.args(sources.map(|file| source.join(file))));
    });
    let mut command = jobs::leashed(&jobs::tool("java", "default-jdk-headless"));
    command.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp"]);
    command.arg(format!("{0}/libs/*:{0}/classes", runtime.display())).arg("Main");
    command
}

fn paho_go() -> Command {
    let sources = ["go.mod", "go.sum", "main.go", "v4.go", "v5.go"];
    let runtime = prepared("go", &sources, |source, into| {
        fs::create_dir_all(into).unwrap();
        let mut go = Command::new(jobs::tool("go", "golang-go (1.24 or newer)"));
        go.args(["build", "-o"]).arg(into.join("client")).arg(".").current_dir(source).env("GOFLAGS", "-mod=readonly");
        succeed("build the Go client", &mut go);
    });
    jobs::leashed(&runtime.join("client"))
}

/// Both versions through each way in; by TCP all scenarios, by the others those that it could spoil.
fn through_all_ways(server: &Server, client: fn() -> Command, ways: &[&str]) {
    for scheme in ways {
        for version in ["4", "5"] {
            let mut scenarios = if *scheme == TCP { ALL.to_owned() } else { FEW.to_owned() };
            if version == "5" {
                scenarios += ",properties";
            }
            run(server, client(), scheme, version, &scenarios);
        }
    }
}

fn run(server: &Server, mut command: Command, scheme: &str, version: &str, scenarios: &str) {
    let port = match scheme {
        TLS => server.ports.tls,
        WS => server.ports.ws,
        WSS => server.ports.wss,
        _ => server.ports.tcp,
    };
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--scheme", scheme, "--version", version]);
    command.args(["--prefix", &server.name(), "--scenarios", scenarios]).arg("--ca").arg(server.ca());
    let dir = jobs::scratch("interop");
    let log = dir.path().join("log");
    let mut job = Job::start("client", command, &log);
    let status = jobs::wait_long("the client is through", PATIENCE, || job.ended());
    let said = fs::read_to_string(&log).unwrap();
    let done: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
    let expected: Vec<&str> = scenarios.split(',').collect();
    assert!(status.success() && done == expected, "{scheme}, version {version}: {status}\n{said}");
}
