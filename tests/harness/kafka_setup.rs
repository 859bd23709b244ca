//! What a broker is started with: its properties, its jars, its Java. Never starts anything but Maven, once.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::jobs;

/// What a broker has beyond its plain listener.
#[derive(Default)]
pub struct Extras {
    /// Name, protocol, port.
    pub listeners: Vec<(&'static str, &'static str, u16)>,
    /// Listeners that clients reach on another port, behind something that passes on: name, that port.
    pub behind: Vec<(&'static str, u16)>,
    /// Of `server.properties`.
    pub lines: Vec<String>,
    /// SCRAM credentials, as the storage tool wants them.
    pub scrams: Vec<String>,
}

/// What a node is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Broker and controller: a cluster of its own.
    First,
    /// A broker beside the first.
    Second,
}

/// A node's place in its cluster.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    pub role: Role,
    /// Where the cluster's one controller listens.
    pub controller_port: u16,
}

/// The broker's `server.properties`.
pub fn properties(node: Node, port: u16, dir: &Path, extras: &Extras) -> String {
    let controller_port = node.controller_port;
    let (roles, id, mut listeners) = match node.role {
        Role::First => {
            let controller = format!("CONTROLLER://127.0.0.1:{controller_port}");
            ("broker,controller", 1, format!("PLAINTEXT://127.0.0.1:{port},{controller}"))
        }
        Role::Second => ("broker", 2, format!("PLAINTEXT://127.0.0.1:{port}")),
    };
    let mut advertised = listeners.clone();
    let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
    for (name, protocol, port) in &extras.listeners {
        listeners += &format!(",{name}://127.0.0.1:{port}");
        let behind = extras.behind.iter().find(|(known, _)| known == name).map_or(port, |(_, port)| port);
        advertised += &format!(",{name}://127.0.0.1:{behind}");
        protocols += &format!(",{name}:{protocol}");
    }
    let mut lines = vec![
        format!("process.roles={roles}"),
        format!("node.id={id}"),
        format!("controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}"),
        format!("listeners={listeners}"),
        format!("advertised.listeners={advertised}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        format!("listener.security.protocol.map={protocols}"),
        format!("log.dirs={}", dir.join("data").display()),
        "auto.create.topics.enable=false".to_owned(),
        "num.partitions=1".to_owned(),
        "offsets.topic.replication.factor=1".to_owned(),
        "offsets.topic.num.partitions=1".to_owned(),
        "transaction.state.log.replication.factor=1".to_owned(),
        "transaction.state.log.num.partitions=1".to_owned(),
        "transaction.state.log.min.isr=1".to_owned(),
        "group.initial.rebalance.delay.ms=0".to_owned(),
        // The index files are preallocated: the default of 10 MB each makes every topic slow to create on a small disk.
        "log.index.size.max.bytes=1048576".to_owned(),
    ];
    lines.extend_from_slice(&extras.lines);
    lines.join("\n") + "\n"
}

/// One of Kafka's programs, which ends with the test process.
pub fn java(class: &str) -> Command {
    let mut command = jobs::leashed(&jobs::tool("java", "default-jre"));
    // The quick compiler and the simple collector: a broker that lives for a minute is ready in half the time.
    command.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]);
    command.arg(format!("-Dlog4j2.configurationFile={}", fixture("kafka/log4j2.properties").display()));
    command.arg("-cp").arg(jars().join("*")).arg(class);
    command
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// The folder of the broker's jars. Maven fills it once; the lock keeps other tests and other test processes waiting.
fn jars() -> PathBuf {
    let jars = jobs::target_dir().join("kafka-libs");
    let complete = jars.join("complete");
    let lock = File::create(jobs::target_dir().join("kafka-libs.lock")).unwrap();
    lock.lock().unwrap();
    if complete.exists() {
        return jars;
    }
    let mut maven = Command::new(jobs::tool("mvn", "maven"));
    maven.args(["-q", "-B", "dependency:copy-dependencies", "-f"]).arg(fixture("kafka/pom.xml"));
    maven.arg(format!("-DoutputDirectory={}", jars.display()));
    let output = maven.output().unwrap();
    assert!(output.status.success(), "fetch Kafka's jars: {}", String::from_utf8_lossy(&output.stdout));
    File::create(complete).unwrap();
    jars
}
