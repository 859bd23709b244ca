//! A line's whole life: scripted devices on real pseudo terminals and TCP connections.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::ModbusLine;
use super::counters::ModbusCounters;
use crate::cli::simulate::modbus::slave::{Memory, rtu_answer, rtu_request, tcp_answer, tcp_request};
use crate::cli::simulate::pty::Pty;
use crate::config;
use crate::intake::line::LineEvent;
use crate::intake::serial::tests::{World, count, world};
use crate::record::Arrival;

const WORDS: &str =
    "[[source.modbus.device]]\nname = \"a\"\nregister = [{ name = \"x\", table = \"holding\", address = 7 }]\n";

fn start(way: &str, lines: &str) -> (World, Arc<ModbusCounters>) {
    // So long that a busy machine does not make a device silent that is not.
    let timeout = if way.contains("timeout") { "" } else { "timeout = \"500ms\"\n" };
    let text = format!(
        "[kafka.main]\nbootstrap_servers = \"k:9092\"\n[[route]]\nfilter = \"#\"\nkafka_topic = \"t\"\n\
         [[source.modbus]]\nname = \"hall\"\nbackoff_min = \"10ms\"\nbackoff_max = \"50ms\"\ninterval = \"20ms\"\n\
         {timeout}{way}\n{lines}"
    );
    let loaded = config::parse_str("gateway.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    let config = loaded.config.modbus_sources[0].clone();
    let counters = Arc::new(ModbusCounters::default());
    let counted = Arc::clone(&counters);
    let world = world(|given| {
        let line = ModbusLine {
            config,
            outlet: given.outlet,
            lines: given.lines,
            counters: counted,
            events: given.events,
            clock: Arc::new(|| Arrival { wall_ms: 1, boot_ms: 2 }),
            random: Arc::new(|| 0),
            // Readings that a test did not wait for are never accepted.
            stop_timeout: Duration::from_millis(50),
        };
        line.run(given.stopped)
    });
    (world, counters)
}

fn on_line(port: &Path, lines: &str) -> (World, Arc<ModbusCounters>) {
    start(&format!("port = {port:?}\nbaud = 115200"), lines)
}

fn by_tcp(listener: &TcpListener, lines: &str) -> (World, Arc<ModbusCounters>) {
    start(&format!("tcp = \"{}\"", listener.local_addr().unwrap()), lines)
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// 2 s, and what a busy machine may lose.
const RESUMED: Duration = Duration::from_secs(20);

/// What a device does with a request: unit and request in, answers out.
trait Script: FnMut(u8, &[u8]) -> Vec<Vec<u8>> + Send + 'static {}
impl<T: FnMut(u8, &[u8]) -> Vec<Vec<u8>> + Send + 'static> Script for T {}

/// Plays devices on a line: what a script says is sent as it is.
async fn play(pty: &Pty, mut script: impl Script) {
    let (mut heard, mut bytes) = (Vec::new(), [0; 256]);
    loop {
        let count = pty.receive(&mut bytes).await;
        heard.extend_from_slice(&bytes[..count]);
        while let Some((unit, request)) = rtu_request(&mut heard) {
            for frame in script(unit, &request) {
                pty.send(&frame).await.unwrap();
            }
        }
    }
}

fn plain(unit: u8, request: &[u8]) -> Vec<u8> {
    rtu_answer(unit, &Memory::Plain.at(unit, Duration::ZERO).answer(request))
}

/// One client's connection; answers are made by `script` of header, unit and request.
async fn serve(mut stream: TcpStream, mut script: impl FnMut([u8; 4], u8, &[u8]) -> Vec<u8>) {
    let (mut heard, mut bytes) = (Vec::new(), [0; 256]);
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        heard.extend_from_slice(&bytes[..count]);
        while let Some((head, unit, request)) = tcp_request(&mut heard) {
            stream.write_all(&script(head, unit, &request)).await.unwrap();
        }
    }
}

fn numbered(head: [u8; 4], unit: u8, request: &[u8]) -> Vec<u8> {
    tcp_answer(head, unit, &Memory::Plain.at(unit, Duration::ZERO).answer(request))
}

/// The next reading that is good.
async fn good(world: &mut World) -> Value {
    loop {
        let said = world.json().await;
        if said["quality"] == "good" {
            return said;
        }
    }
}

#[tokio::test]
async fn all_tables_are_read_in_few_requests_and_make_one_reading() {
    let listener = bind().await;
    let lines = "[[source.modbus.device]]\nname = \"plc\"\nunit = 9\nregister = [\n\
        { name = \"run\", table = \"coil\", address = 1 }, { name = \"door\", table = \"discrete\", address = 2 },\n\
        { name = \"speed\", table = \"input\", address = 100, scale = 0.1, unit = \"rpm\" },\n\
        { name = \"torque\", table = \"input\", address = 101, kind = \"i16\" },\n\
        { name = \"total\", table = \"holding\", address = 3, kind = \"u32\" },\n\
        { name = \"fault\", table = \"holding\", address = 5, kind = \"bits\", bit = 2 }]\n\
        group = [{ name = \"slow\", interval = \"10s\", values = [\"total\"] }]\n";
    let (mut world, _) = by_tcp(&listener, lines);
    let (stream, _) = listener.accept().await.unwrap();
    tokio::spawn(serve(stream, numbered));
    world.opened().await;
    let (mut fast, mut slow) = (None, None);
    while fast.is_none() || slow.is_none() {
        let (topic, payload) = world.reading().await;
        assert_eq!(topic, "modbus/hall/plc");
        let said: Value = serde_json::from_slice(&payload).unwrap();
        if said.get("group").is_some() { slow = Some(said) } else { fast = Some(said) }
    }
    let values = json!({"run": true, "door": false, "speed": 10.0, "torque": 101, "fault": true});
    let wanted = json!({"device": "plc", "quality": "good", "values": values, "units": {"speed": "rpm"}});
    assert_eq!(fast.unwrap(), wanted);
    let wanted = json!({"device": "plc", "group": "slow", "quality": "good", "values": {"total": 196_612}});
    assert_eq!(slow.unwrap(), wanted);
    let (requests, readings) = (count(&world.lines.requests), count(&world.counters.readings));
    assert!(requests <= 4 * (readings + 1), "{requests} requests for {readings} readings");
    world.stop().await;
}

#[tokio::test]
async fn noise_echoes_and_frames_of_others_cost_nothing() {
    let pty = Pty::open().unwrap();
    let (mut world, _) = on_line(pty.port(), WORDS);
    let device = async {
        let other = |unit, request: &[u8]| {
            let good = plain(unit, request);
            // An echo of the request, a glitch, a late frame of another device, the end of one.
            vec![rtu_answer(unit, request), vec![0], rtu_answer(9, &[3, 2, 9, 9]), vec![1, 3], good, vec![0xff]]
        };
        play(&pty, other).await;
    };
    let readings = async {
        world.opened().await;
        for _ in 0..20 {
            let said = world.json().await;
            assert_eq!((&said["quality"], &said["values"]["x"]), (&json!("good"), &json!(7)));
        }
    };
    tokio::select! { () = device => {}, () = readings => {} }
    assert_eq!(count(&world.lines.timeouts), 0);
    assert!(count(&world.lines.noise_bytes) > 100);
    world.stop().await;
}

#[tokio::test]
async fn a_dead_device_is_told_once_and_holds_nobody_up() {
    let pty = Pty::open().unwrap();
    let lines = format!("{WORDS}{}", WORDS.replace("name = \"a\"", "name = \"b\"\nunit = 2"));
    let (mut world, counters) = on_line(pty.port(), &lines);
    let alive = Arc::new(AtomicU16::new(0));
    let wakes = Arc::clone(&alive);
    let device = play(&pty, move |unit, request: &[u8]| match unit {
        2 if wakes.load(Ordering::Relaxed) == 0 => vec![],
        _ => vec![plain(unit, request)],
    });
    let story = async {
        world.opened().await;
        let (mut of_a, mut of_b, begun) = (0, Vec::new(), Instant::now());
        while of_a < 100 {
            let said = world.json().await;
            if said["device"] == "a" {
                assert_eq!(said["quality"], "good");
                of_a += 1;
            } else {
                assert_eq!((&said["quality"], &said["values"]), (&json!("bad"), &json!({})));
                assert!(said["failed"][0]["cause"].as_str().unwrap().starts_with("no answer within 500 ms"), "{said}");
                of_b.push(begun.elapsed());
            }
        }
        // Tries go by time: the slower the machine, the more of them. In turn there would be a hundred.
        assert!((1..50).contains(&of_b.len()), "{of_b:?}");
        let mute = world.event().await;
        assert!(matches!(&mute, LineEvent::Mute { device, .. } if device == "b"), "{mute:?}");
        alive.store(1, Ordering::Relaxed);
        while world.json().await["device"] != "b" {}
        assert_eq!(world.event().await, LineEvent::Answers { device: "b".to_owned() });
    };
    tokio::select! { () = device => {}, () = story => {} }
    assert!(count(&counters.skipped) > 0 && count(&counters.bad) > 0);
    world.stop().await;
}

/// The danger of RTU: nothing in an answer says which request it answers, and these two look the same. A slow device keeps
/// answering tries that were given up.
#[tokio::test]
async fn a_late_answer_is_never_taken_for_another_requests() {
    const DELAYS: [u64; 5] = [60, 60, 150, 150, 60];
    let pty = Arc::new(Pty::open().unwrap());
    let lines = "[[source.modbus.device]]\nregister = [{ name = \"x\", table = \"holding\", address = 7 }, \
        { name = \"y\", table = \"holding\", address = 50 }]\n";
    let way = format!("port = {:?}\nbaud = 115200\ntimeout = \"100ms\"", pty.port());
    let (mut world, _) = start(&way, lines);
    let device = async {
        let (mut heard, mut bytes) = (Vec::new(), [0; 256]);
        for delay in DELAYS.into_iter().cycle() {
            let (unit, request) = loop {
                if let Some(request) = rtu_request(&mut heard) {
                    break request;
                }
                let count = pty.receive(&mut bytes).await;
                heard.extend_from_slice(&bytes[..count]);
            };
            let line = Arc::clone(&pty);
            tokio::spawn(async move {
                sleep(Duration::from_millis(delay)).await;
                line.send(&plain(unit, &request)).await.unwrap();
            });
        }
    };
    let story = async {
        world.opened().await;
        for _ in 0..20 {
            let said = world.json().await;
            let right = |name: &str, value: u64| said["values"].get(name).is_none_or(|found| *found == value);
            assert!(right("x", 7) && right("y", 50), "{said}");
        }
    };
    tokio::select! { () = device => {}, () = story => {} }
    assert!(count(&world.lines.timeouts) >= 5);
    world.stop().await;
}

#[tokio::test]
async fn what_a_device_refuses_is_found_told_once_and_costs_the_others_nothing() {
    let listener = bind().await;
    // Plain devices hold 10,000 cells.
    let lines = "[[source.modbus.device]]\nname = \"plc\"\ngap_max = 10\nregister = [\n\
        { name = \"a\", table = \"input\", address = 9990 }, { name = \"b\", table = \"input\", address = 9999 },\n\
        { name = \"c\", table = \"input\", address = 10000 }]\n";
    let (mut world, counters) = by_tcp(&listener, lines);
    let (stream, _) = listener.accept().await.unwrap();
    tokio::spawn(serve(stream, numbered));
    world.opened().await;
    for _ in 0..20 {
        let said = world.json().await;
        assert_eq!((&said["values"], &said["quality"]), (&json!({"a": 9990, "b": 9999}), &json!("bad")));
        assert_eq!(said["failed"], json!([{"values": ["c"], "quality": "bad", "cause": "illegal data address"}]));
    }
    let told = world.event().await;
    let LineEvent::Refuses { device, reason } = &told else { panic!("{told:?}") };
    assert_eq!((device.as_str(), reason.as_str()), ("plc", "illegal data address: input 10000"));
    let exceptions = count(&world.lines.exceptions);
    assert!((2..=3).contains(&exceptions), "asked for again and again: {exceptions}");
    assert_eq!(count(counters.exception(2)), exceptions);
    world.stop().await;
}

#[tokio::test]
async fn a_gateway_that_answers_for_a_dead_device_is_believed() {
    let listener = bind().await;
    let (mut world, counters) = by_tcp(&listener, WORDS);
    let (stream, _) = listener.accept().await.unwrap();
    tokio::spawn(serve(stream, |head, unit, request: &[u8]| tcp_answer(head, unit, &[request[0] | 0x80, 11])));
    world.opened().await;
    let told = world.event().await;
    let LineEvent::Mute { reason, .. } = &told else { panic!("{told:?}") };
    assert_eq!(reason, "gateway target device failed to respond");
    assert_eq!(count(counters.exception(11)), 1, "it is not asked again and again");
    world.stop().await;
}

#[tokio::test]
async fn a_late_answer_by_tcp_is_passed_over() {
    let listener = bind().await;
    let (mut world, _) = by_tcp(&listener, WORDS);
    let (stream, _) = listener.accept().await.unwrap();
    let mut owed: Option<[u8; 4]> = None;
    tokio::spawn(serve(stream, move |head, unit, request: &[u8]| {
        // The first answer never comes in time; it would say 1, which is wrong.
        match owed.replace(head) {
            None => Vec::new(),
            Some(before) => [tcp_answer(before, unit, &[3, 2, 0, 1]), numbered(head, unit, request)].concat(),
        }
    }));
    world.opened().await;
    for _ in 0..5 {
        assert_eq!(good(&mut world).await["values"]["x"], 7);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_line_that_hangs_up_is_opened_again_under_another_device() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("usb-meter");
    let mut pty = Pty::open().unwrap();
    pty.link(&port).unwrap();
    let (mut world, _) = on_line(&port, WORDS);
    let answer = |unit, request: &[u8]| vec![plain(unit, request)];
    tokio::select! { () = play(&pty, answer) => {}, _ = good(&mut world) => {} }
    world.opened().await;
    drop(pty);
    let lost = world.event().await;
    assert!(matches!(&lost, LineEvent::Lost { .. }), "{lost:?}");
    let said = world.json().await;
    assert_eq!((&said["quality"], &said["values"]["x"]), (&json!("stale"), &json!(7)), "{said}");
    let mut other = Pty::open().unwrap();
    other.link(&port).unwrap();
    let back = Instant::now();
    tokio::select! { () = play(&other, answer) => {}, _ = good(&mut world) => {} }
    assert!(back.elapsed() < RESUMED, "{:?}", back.elapsed());
    world.opened().await;
    world.stop().await;
}

#[tokio::test]
async fn a_refused_connection_is_told_once_and_tried_again() {
    let listener = bind().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (mut world, _) = start(&format!("tcp = \"{address}\""), WORDS);
    let lost = world.event().await;
    assert!(matches!(&lost, LineEvent::Lost { reason } if reason.contains("refused")), "{lost:?}");
    sleep(Duration::from_millis(300)).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    tokio::spawn(serve(stream, numbered));
    world.opened().await;
    assert_eq!(good(&mut world).await["values"]["x"], 7);
    world.stop().await;
}

#[tokio::test]
async fn a_peer_that_hangs_is_told_once_and_found_when_it_is_back() {
    let listener = bind().await;
    let (mut world, _) = by_tcp(&listener, WORDS);
    let (first, _) = listener.accept().await.unwrap();
    world.opened().await;
    let mute = world.event().await;
    assert!(matches!(&mute, LineEvent::Mute { .. }), "{mute:?}");
    // A dead connection is given up for a new one.
    let (second, _) = listener.accept().await.unwrap();
    drop(first);
    let back = Instant::now();
    tokio::spawn(serve(second, numbered));
    assert_eq!(good(&mut world).await["values"]["x"], 7);
    assert!(back.elapsed() < RESUMED, "{:?}", back.elapsed());
    let answers = world.event().await;
    assert!(matches!(&answers, LineEvent::Answers { .. }), "neither lost nor opened: {answers:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_is_left() {
    let listener = bind().await;
    let (mut world, _) = by_tcp(&listener, WORDS);
    let (mut stream, _) = listener.accept().await.unwrap();
    world.opened().await;
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let lost = world.event().await;
    assert!(matches!(&lost, LineEvent::Lost { reason } if reason.contains("no Modbus TCP")), "{lost:?}");
    world.stop().await;
}

#[tokio::test]
async fn behind_a_closed_gate_nobody_is_asked() {
    let listener = bind().await;
    let (mut world, _) =
        start(&format!("tcp = \"{}\"\nunacked_bytes_max = \"4KiB\"", listener.local_addr().unwrap()), WORDS);
    let (stream, _) = listener.accept().await.unwrap();
    tokio::spawn(serve(stream, numbered));
    world.opened().await;
    let mut held = Vec::new();
    while count(&world.counters.gate_closed) == 0 {
        held.push(world.delivery().await);
    }
    let asked = count(&world.lines.requests);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(count(&world.lines.requests), asked);
    held.drain(..).for_each(|delivery| delivery.ack.unwrap().fire());
    world.json().await;
    world.stop().await;
}
