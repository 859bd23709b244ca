//! Devices on pseudo terminals, the gateway's serial lines, Kafka; and `cat` in the gateway's place.
//!
//! A pseudo terminal has no baud rate: a device that is to be as slow as its line waits itself. What it writes arrives at
//! once, as the last byte of a frame does on a line, so that a latency is counted from there.

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use forebay::cli::simulate::pty::Pty;
use tokio::runtime::Runtime;
use tokio::time::sleep_until;

use crate::harness::gateway::Gateway;
use crate::harness::jobs;
use crate::harness::kafka::KafkaServer;

use super::core::TOPIC;
use super::{Used, memory, quantile, scaled, used, wait_delivered};

const PORTS: usize = 16;
/// CR and LF included.
const FRAME_BYTES: usize = 64;
/// 115,200 baud are 11,520 bytes a second.
const BYTES_PER_SECOND: u64 = 11_520;
/// What a device hands to its line in one piece.
const PIECE_FRAMES: u64 = 16;

/// How the gateway reads a port: name, keys of the source, keys of the lane.
const READERS: [(&str, &str, &str); 3] = [
    ("Forebay, raw", "", ""),
    (
        "Forebay, csv to JSON",
        "[source.serial.decode]\nkind = \"csv\"\nfields = [{ name = \"sentNs\", kind = \"int\" }, { name = \"n\", kind = \"int\" }, \
         { name = \"t\", kind = \"float\", unit = \"C\" }, { name = \"state\" }]\n",
        "",
    ),
    ("Forebay, raw, `volatile`", "volatile = true\n", "when = \"offline\""),
];

/// Sixteen devices and what reads them.
struct Plant {
    runtime: Runtime,
    lines: Vec<Pty>,
}

impl Plant {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let lines = runtime.block_on(async { (0..PORTS).map(|_| Pty::open().unwrap()).collect() });
        Plant { runtime, lines }
    }

    /// So many frames over all lines, as fast as they are read, each device at its own pace.
    fn flood(&self, first: u64, frames: u64) {
        let device = async |line: &Pty| {
            let numbers: Vec<u64> = (first..first + frames / PORTS as u64).collect();
            for piece in numbers.chunks(PIECE_FRAMES as usize) {
                line.send(&piece.iter().flat_map(|n| frame(*n)).collect::<Vec<u8>>()).await.unwrap();
            }
        };
        self.runtime.block_on(async { join(self.lines.iter().map(device)).await });
    }

    /// The same at 115,200 baud: on each line a frame as soon as the one before it would be over, the lines evenly out of
    /// step.
    fn pace(&self, first: u64, frames: u64) {
        let each = Duration::from_nanos(1_000_000_000 * FRAME_BYTES as u64 / BYTES_PER_SECOND / PORTS as u64);
        self.runtime.block_on(async {
            let began = tokio::time::Instant::now();
            for turn in 0..frames {
                sleep_until(began + each * turn as u32).await;
                let line = &self.lines[turn as usize % PORTS];
                line.send(&frame(first + turn / PORTS as u64)).await.unwrap();
            }
        });
    }

    fn gateway(&self, kafka: &KafkaServer, lines: &str, lane: &str) -> Gateway {
        kafka.create_topic(TOPIC, 2, &[]);
        kafka.create_topic("forebay.events", 1, &[]);
        let mut builder =
            Gateway::builder().kafka(&kafka.bootstrap_servers()).lane("telemetry", lane).route("#", TOPIC, "telemetry");
        for (n, line) in self.lines.iter().enumerate() {
            let table = format!("name = \"line{n}\"\nport = {:?}\nbaud = 115200\n{lines}", line.port());
            builder = builder.table("[[source.serial]]", &table);
        }
        let mut gateway = builder.build();
        gateway.start();
        jobs::wait_until("the ports are open", || {
            (sum(&gateway, "forebay_source_connected") as usize == PORTS).then_some(())
        });
        gateway
    }

    /// `cat` on each port, into nothing.
    fn cats(&self) -> Cats {
        let cat = |line: &Pty| {
            let raw = Command::new("stty").args(["raw", "-echo", "-F"]).arg(line.port()).status().unwrap();
            assert!(raw.success());
            Command::new("cat").arg(line.port()).stdout(Stdio::null()).spawn().unwrap()
        };
        Cats(self.lines.iter().map(cat).collect())
    }
}

/// Ended when dropped.
struct Cats(Vec<Child>);

impl Cats {
    fn wait_read(&self, bytes: u64) {
        let read = |cat: &Child| {
            let io = fs::read_to_string(format!("/proc/{}/io", cat.id())).unwrap();
            io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok()).unwrap()
        };
        jobs::wait_long("everything is read", Duration::from_secs(600), || {
            (self.0.iter().map(read).sum::<u64>() >= bytes).then_some(())
        });
    }

    /// By the scheduler's own clock: each takes less than the ticks of /proc/PID/stat can show. They have one thread each.
    fn used(&self) -> Used {
        let on_cpu_ns = |cat: &Child| {
            let text = fs::read_to_string(format!("/proc/{}/schedstat", cat.id())).unwrap();
            text.split(' ').next().unwrap().parse::<f64>().unwrap()
        };
        Used { cpu_s: self.0.iter().map(on_cpu_ns).sum::<f64>() / 1e9, device_bytes: 0 }
    }

    fn peak(&self) -> f64 {
        self.0.iter().map(|cat| memory(cat.id()).1).sum()
    }
}

impl Drop for Cats {
    fn drop(&mut self) {
        for cat in &mut self.0 {
            let _ = cat.kill();
            let _ = cat.wait();
        }
    }
}

async fn join(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut waiting: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        waiting.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if waiting.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn sum(gateway: &Gateway, name: &str) -> f64 {
    let metrics = gateway.metrics();
    metrics.iter().filter(|(full, _)| full.split('{').next() == Some(name)).map(|(_, value)| value).sum()
}

#[expect(clippy::disallowed_methods, reason = "the consumer's clock is this machine's too")]
fn now_ns() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64
}

/// `1790000000000000000,42,21.5,....`: four columns and 64 bytes, whatever the numbers.
fn frame(n: u64) -> Vec<u8> {
    let text = format!("{},{n},{}.{},", now_ns(), 20 + n % 10, n % 7);
    format!("{text:.<width$}\r\n", width = FRAME_BYTES - 2).into_bytes()
}

/// As fast as it goes, after a tenth of it as warm-up.
pub fn throughput() {
    println!(
        "| reader of 16 ports | frames | frames/s | CPU s per million | device bytes per payload byte | RSS, peak MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let count = whole(scaled(1_000_000));
    let warm = whole(count / 10);
    for (name, lines, lane) in READERS {
        let (kafka, plant) = (KafkaServer::start(), Plant::new());
        let gateway = plant.gateway(&kafka, lines, lane);
        plant.flood(0, warm);
        wait_delivered(&gateway, warm);
        let (before, began) = (used(gateway.pid()), Instant::now());
        plant.flood(warm, count);
        wait_delivered(&gateway, warm + count);
        let (took, usage) = (began.elapsed(), used(gateway.pid()).since(before));
        assert_eq!(sum(&gateway, "forebay_line_noise_bytes_total"), 0.0, "{name}: frames were damaged");
        throughput_row(name, count, took, usage, memory(gateway.pid()).1);
    }
    let plant = Plant::new();
    let cats = plant.cats();
    plant.flood(0, warm);
    cats.wait_read(warm * FRAME_BYTES as u64);
    let (before, began) = (cats.used(), Instant::now());
    plant.flood(warm, count);
    cats.wait_read((warm + count) * FRAME_BYTES as u64);
    throughput_row("16 × `cat` into nothing", count, began.elapsed(), cats.used().since(before), cats.peak());
}

/// The same number for each port.
fn whole(count: u64) -> u64 {
    (count / PORTS as u64).max(1) * PORTS as u64
}

fn throughput_row(name: &str, count: u64, took: Duration, usage: Used, peak: f64) {
    println!(
        "| {name} | {count} | {:.0} | {:.2} | {:.2} | {peak:.1} |",
        count as f64 / took.as_secs_f64(),
        usage.cpu_s * 1e6 / count as f64,
        usage.device_bytes as f64 / (count * FRAME_BYTES as u64) as f64,
    );
}

/// 2,880 frames a second: all that 16 lines carry at 115,200 baud. After a tenth of it as warm-up.
pub fn line_rate() {
    println!(
        "| reader of 16 ports at 115,200 baud | frames | frames/s | missing | overruns | CPU s per million | share of a core \
         | frame to consumer p50 | p99 | p99.9 | max | RSS, peak MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let count = whole(scaled(172_800));
    let warm = whole(count / 10);
    for (name, lines, lane) in READERS {
        let (kafka, plant) = (KafkaServer::start(), Plant::new());
        let gateway = plant.gateway(&kafka, lines, lane);
        plant.pace(0, warm);
        wait_delivered(&gateway, warm);
        let (before, began) = (used(gateway.pid()), Instant::now());
        let (mut sorted, took) = std::thread::scope(|scope| {
            let consumer = scope.spawn(|| consume(&kafka, warm, count));
            plant.pace(warm / PORTS as u64, count);
            let took = began.elapsed();
            (consumer.join().unwrap(), took)
        });
        sorted.sort_unstable();
        let usage = used(gateway.pid()).since(before);
        let overruns = sum(&gateway, "forebay_line_overruns_total");
        let missing = count - sorted.len() as u64;
        let row = Row { name, count, took, usage, peak: memory(gateway.pid()).1 };
        row.print(Some((missing, overruns)), Some(&sorted));
    }
    let plant = Plant::new();
    let cats = plant.cats();
    let (before, began) = (cats.used(), Instant::now());
    plant.pace(0, count);
    let took = began.elapsed();
    cats.wait_read(count * FRAME_BYTES as u64);
    Row { name: "16 × `cat` into nothing", count, took, usage: cats.used().since(before), peak: cats.peak() }
        .print(None, None);
}

struct Row<'a> {
    name: &'a str,
    count: u64,
    took: Duration,
    usage: Used,
    /// MiB.
    peak: f64,
}

impl Row<'_> {
    fn print(&self, lost: Option<(u64, f64)>, sorted: Option<&[i64]>) {
        let (missing, overruns) = lost.map_or(("-".to_owned(), "-".to_owned()), |(missing, overruns)| {
            (missing.to_string(), overruns.to_string())
        });
        let latencies = [0.5, 0.99, 0.999, 1.0].map(|q| match sorted {
            Some(sorted) => format!("{:.1} ms", quantile(sorted, q) as f64 / 1e6),
            None => "-".to_owned(),
        });
        println!(
            "| {} | {} | {:.0} | {missing} | {overruns} | {:.1} | {:.3} | {} | {:.1} |",
            self.name,
            self.count,
            self.count as f64 / self.took.as_secs_f64(),
            self.usage.cpu_s * 1e6 / self.count as f64,
            self.usage.cpu_s / self.took.as_secs_f64(),
            latencies.join(" | "),
            self.peak,
        );
    }
}

/// Nanoseconds from frame to consumer of the `count` records behind the first `skipped`. Each line's frames must come each
/// once and in order; a run with a gap ends when nothing comes any more.
fn consume(kafka: &KafkaServer, skipped: u64, count: u64) -> Vec<i64> {
    let (mut seen, mut latencies) = (0, Vec::with_capacity(count as usize));
    let mut next: HashMap<Vec<u8>, u64> = HashMap::new();
    kafka.consume_until(&[TOPIC], |record| {
        let (sent_ns, n) = read(&record.payload);
        let next = next.entry(record.key.clone().unwrap()).or_default();
        assert_eq!(n, *next, "in order, and each once");
        *next += 1;
        seen += 1;
        if seen > skipped {
            latencies.push(now_ns() - sent_ns);
        }
        seen == skipped + count
    });
    latencies
}

/// Of a frame, or of the JSON that has been made of it.
fn read(payload: &[u8]) -> (i64, u64) {
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(payload)
        && json.is_object()
    {
        return (json["sentNs"].as_i64().unwrap(), json["n"].as_u64().unwrap());
    }
    let text = std::str::from_utf8(payload).unwrap();
    let mut columns = text.split(',');
    let mut number = || columns.next().unwrap().parse::<u64>().unwrap();
    (number() as i64, number())
}
