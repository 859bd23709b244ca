//! A port's whole life, on real pseudo terminals.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::SerialPort;
use super::decode::Decoder;
use crate::cli::simulate::pty::Pty;
use crate::config::{self, SerialSource};
use crate::intake::feed::Outlet;
use crate::intake::line::{LineCounters, LineEvent};
use crate::intake::mqtt::SourceCounters;
use crate::intake::{AckTicket, Change, Deliver, Delivery, Fate, Route, Routed, SourceEvent};
use crate::record::{Arrival, Reading, RecordView};

/// Far beyond what a busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

struct Plain;
impl Route for Plain {
    fn route(&self, reading: &Reading<'_>, scratch: &mut Vec<u8>) -> Routed {
        let key = Some(reading.topic.as_bytes());
        let record = RecordView { topic: "t", key, ..RecordView::plain(reading) };
        Routed::Deliver { lane: 0, body: record.encode(scratch), fate: Fate::Forward }
    }
}

struct Hub(mpsc::Sender<Delivery>);
impl Deliver for Hub {
    fn deliver(&self, batch: &mut Vec<Delivery>) {
        for delivery in batch.drain(..) {
            self.0.try_send(delivery).unwrap();
        }
    }
    fn keep(&self, _: Vec<Change>, ack: AckTicket) {
        ack.fire();
    }
}

/// A running source and what it does.
pub struct World {
    deliveries: mpsc::Receiver<Delivery>,
    events: mpsc::Receiver<(String, SourceEvent)>,
    pub counters: Arc<SourceCounters>,
    pub lines: Arc<LineCounters>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What a source on a line is given.
pub struct Given {
    pub outlet: Outlet,
    pub lines: Arc<LineCounters>,
    pub events: mpsc::Sender<(String, SourceEvent)>,
    pub stopped: watch::Receiver<bool>,
}

/// A world for the source that `run` makes of what it is given.
pub fn world<F: Future<Output = ()> + Send + 'static>(run: impl FnOnce(Given) -> F) -> World {
    let (deliver, deliveries) = mpsc::channel(10_000);
    let (tell, events) = mpsc::channel(100);
    let (stop, stopped) = watch::channel(false);
    let (counters, lines) = (Arc::new(SourceCounters::default()), Arc::new(LineCounters::default()));
    let outlet = Outlet { route: Arc::new(Plain), deliver: Arc::new(Hub(deliver)), counters: Arc::clone(&counters) };
    let task = tokio::spawn(run(Given { outlet, lines: Arc::clone(&lines), events: tell, stopped }));
    World { deliveries, events, counters, lines, stop, task }
}

fn source(port: &Path, lines: &str) -> SerialSource {
    let text = format!(
        "[kafka.main]\nbootstrap_servers = \"k:9092\"\n[[route]]\nfilter = \"#\"\nkafka_topic = \"t\"\n\
         [[source.serial]]\nname = \"scale\"\nbackoff_min = \"10ms\"\nbackoff_max = \"50ms\"\nport = {port:?}\n{lines}"
    );
    let loaded = config::parse_str("gateway.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.config.serial_sources[0].clone()
}

fn start(config: SerialSource) -> World {
    world(|given| {
        let port = SerialPort {
            config,
            outlet: given.outlet,
            lines: given.lines,
            events: given.events,
            clock: Arc::new(|| Arrival { wall_ms: 1, boot_ms: 2 }),
            random: Arc::new(|| 0),
            stop_timeout: PATIENCE,
        };
        port.run(given.stopped)
    })
}

impl World {
    pub async fn delivery(&mut self) -> Delivery {
        tokio::time::timeout(PATIENCE, self.deliveries.recv()).await.unwrap().unwrap()
    }

    /// Topic and payload of the next reading, which is accepted at once.
    pub async fn reading(&mut self) -> (String, Vec<u8>) {
        let mut delivery = self.delivery().await;
        delivery.ack.take().unwrap().fire();
        let view = delivery.body.view().unwrap();
        (String::from_utf8(view.key.unwrap().to_vec()).unwrap(), view.payload.to_vec())
    }

    pub async fn json(&mut self) -> Value {
        serde_json::from_slice(&self.reading().await.1).unwrap()
    }

    pub async fn event(&mut self) -> LineEvent {
        let (_, event) = tokio::time::timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap();
        let SourceEvent::Line(event) = event else { panic!("{event:?}") };
        event
    }

    pub async fn opened(&mut self) {
        let event = self.event().await;
        assert!(matches!(event, LineEvent::Opened { .. }), "{event:?}");
    }

    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

pub fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(std::sync::atomic::Ordering::Relaxed)
}

#[tokio::test]
async fn frames_become_readings_and_what_cannot_be_decoded_keeps_its_bytes() {
    let pty = Pty::open().unwrap();
    let decode = "topic = \"hall/{source}\"\n[source.serial.decode]\nkind = \"csv\"\n\
        fields = [{ name = \"state\" }, { name = \"weight\", kind = \"float\", unit = \"kg\" }]\n";
    let mut world = start(source(pty.port(), decode));
    world.opened().await;
    pty.send(b"ST,12.5\r\nUS,1").await.unwrap();
    pty.send(b"3\nbroken\xff\nST,7\n").await.unwrap();
    let (topic, payload) = world.reading().await;
    let first: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(
        (topic.as_str(), first),
        ("hall/scale", json!({"state": "ST", "weight": 12.5, "units": {"weight": "kg"}}))
    );
    assert_eq!(world.json().await["weight"], 13.0);
    let letter = world.delivery().await;
    assert_eq!(letter.fate, Fate::DeadLetter("decode the frame: it is not UTF-8".to_owned()));
    assert_eq!(letter.body.view().unwrap().payload, b"broken\xff");
    letter.ack.unwrap().fire();
    assert_eq!(world.json().await["weight"], 7.0);
    assert_eq!((count(&world.counters.readings), count(&world.lines.undecoded)), (4, 1));
    world.stop().await;
}

#[tokio::test]
async fn an_unplugged_port_is_told_once_and_resumed_under_another_name() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("usb-maker_scale_A5-if00-port0");
    let mut first = Pty::open().unwrap();
    first.link(&name).unwrap();
    let mut world = start(source(&name, ""));
    world.opened().await;
    first.send(b"one\nhalf a li").await.unwrap();
    assert_eq!(world.reading().await.1, b"one");
    let old = first.port().to_owned();
    // Taken before the first goes, so that its number is not given again.
    let mut second = Pty::open().unwrap();
    drop(first);
    let lost = world.event().await;
    assert!(matches!(&lost, LineEvent::Lost { .. }), "{lost:?}");
    // Many attempts fail meanwhile; none of them is news.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(world.events.try_recv().is_err());
    second.link(&name).unwrap();
    assert_ne!(second.port(), old);
    world.opened().await;
    second.send(b"ne\ntwo\n").await.unwrap();
    assert_eq!(world.reading().await.1, b"ne", "the half line of the old device is not glued to it");
    assert_eq!(world.reading().await.1, b"two");
    assert_eq!((count(&world.lines.noise_bytes), count(&world.counters.reconnects)), (9, 1));
    world.stop().await;
}

#[tokio::test]
async fn a_hung_up_port_does_not_spin() {
    let pty = Pty::open().unwrap();
    let mut config = source(pty.port(), "");
    config.backoff_max = Duration::from_millis(500);
    let mut world = start(config);
    world.opened().await;
    drop(pty);
    assert!(matches!(world.event().await, LineEvent::Lost { .. }));
    let ticks = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let before = ticks();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = ticks();
    let busy =
        Duration::new((after.tv_sec - before.tv_sec) as u64, 0).as_nanos() as i64 + after.tv_nsec - before.tv_nsec;
    assert!(busy < 200_000_000, "{busy} ns of CPU in a second of waiting");
    world.stop().await;
}

#[tokio::test]
async fn a_closed_gate_leaves_the_port_unread_and_nothing_in_it_is_lost() {
    let pty = Pty::open().unwrap();
    let mut world = start(source(pty.port(), "unacked_bytes_max = \"16KiB\"\n"));
    world.opened().await;
    // More than the gate holds, and little enough for the kernel to hold the rest.
    let line = |n: usize| format!("{n:0>60}\n");
    for n in 0..120 {
        pty.send(line(n).as_bytes()).await.unwrap();
    }
    let mut waiting = Vec::new();
    while count(&world.counters.gate_closed) == 0 {
        waiting.push(world.delivery().await);
    }
    assert!(count(&world.counters.unacked_bytes) < (16 + 12) << 10);
    for n in 0..120 {
        let mut delivery = if waiting.is_empty() { world.delivery().await } else { waiting.remove(0) };
        assert_eq!(delivery.body.view().unwrap().payload, line(n).trim_end().as_bytes());
        delivery.ack.take().unwrap().fire();
    }
    assert_eq!(count(&world.lines.overruns), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_kernel_buffer_found_full_is_told() {
    let pty = Pty::open().unwrap();
    let mut world = start(source(pty.port(), "unacked_bytes_max = \"10KiB\"\n"));
    world.opened().await;
    let mut waiting = Vec::new();
    let noise = [b'\n', b'x'].repeat(20_000);
    // The device does not wait for us: what finds no room is gone, as on a line.
    while count(&world.counters.gate_closed) == 0 {
        pty.send(&noise[..512]).await.unwrap();
        while let Ok(delivery) = world.deliveries.try_recv() {
            waiting.push(delivery);
        }
        tokio::task::yield_now().await;
    }
    let _ = tokio::time::timeout(Duration::from_millis(500), pty.send(&noise)).await;
    while let Ok(delivery) = world.deliveries.try_recv() {
        waiting.push(delivery);
    }
    waiting.drain(..).for_each(|mut delivery| delivery.ack.take().unwrap().fire());
    assert_eq!(world.event().await, LineEvent::Overrun);
    assert_eq!(count(&world.lines.overruns), 1);
    world.stop.send(true).unwrap();
}

const WATCHED: &str =
    "[source.serial.decode]\nkind = \"csv\"\nfields = [{ name = \"t\", kind = \"float\" }, { name = \"n\" }]\n";

#[tokio::test]
async fn what_says_nothing_new_is_not_sent_and_counted() {
    let pty = Pty::open().unwrap();
    let report = "[source.serial.report]\ndeadband = 0.5\nignore = \"n\"\nmax_interval = \"1h\"\n";
    let mut world = start(source(pty.port(), &format!("{WATCHED}{report}")));
    world.opened().await;
    pty.send(b"20.0,1\n20.4,2\nbroken\n20.4,3\n20.6,4\n20.6,5\n").await.unwrap();
    assert_eq!(world.json().await["n"], "1");
    let letter = world.delivery().await;
    assert!(matches!(letter.fate, Fate::DeadLetter(_)), "what cannot be decoded is never left out: {letter:?}");
    letter.ack.unwrap().fire();
    assert_eq!(world.json().await["n"], "4");
    while count(&world.lines.suppressed) < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(count(&world.counters.readings), 3, "what was left out was never taken in");
    world.stop().await;
}

#[tokio::test]
async fn a_change_that_came_too_early_is_sent_when_its_interval_ends() {
    let pty = Pty::open().unwrap();
    let report = "[source.serial.report]\nmin_interval = \"500ms\"\n";
    let mut world = start(source(pty.port(), &format!("{WATCHED}{report}")));
    world.opened().await;
    pty.send(b"1,a\n2,a\n3,a\n").await.unwrap();
    assert_eq!(world.json().await["t"], 1.0);
    // Nothing more is said: the timer alone sends it.
    assert_eq!(world.json().await["t"], 3.0);
    assert_eq!(count(&world.lines.suppressed), 1);
    world.stop().await;
}

#[tokio::test]
async fn what_waits_is_sent_when_the_line_or_the_gateway_ends() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("port");
    let mut first = Pty::open().unwrap();
    first.link(&name).unwrap();
    let mut world = start(source(&name, &format!("{WATCHED}[source.serial.report]\nmin_interval = \"5m\"\n")));
    world.opened().await;
    first.send(b"1,a\n2,a\n3,a\n").await.unwrap();
    assert_eq!(world.json().await["t"], 1.0);
    // The second has made room for the third, so that the third has been heard.
    while count(&world.lines.suppressed) < 1 {
        tokio::task::yield_now().await;
    }
    let mut second = Pty::open().unwrap();
    drop(first);
    assert_eq!(world.json().await["t"], 3.0);
    assert!(matches!(world.event().await, LineEvent::Lost { .. }));
    second.link(&name).unwrap();
    world.opened().await;
    second.send(b"3,a\n4,a\n5,a\n").await.unwrap();
    while count(&world.lines.suppressed) < 3 {
        tokio::task::yield_now().await;
    }
    world.stop.send(true).unwrap();
    assert_eq!(world.json().await["t"], 5.0, "the first of the new device was not news");
    world.stop().await;
}

#[tokio::test]
async fn a_driver_that_cannot_switch_is_told_and_the_port_is_not_used() {
    let pty = Pty::open().unwrap();
    let mut world = start(source(pty.port(), "rs485 = { delay_before_send = \"1ms\" }\n"));
    let lost = world.event().await;
    let wanted = format!("switch {} to RS-485", pty.port().display());
    let is_told = |reason: &str| reason.starts_with(&wanted) && reason.contains("remove `rs485`");
    assert!(matches!(&lost, LineEvent::Lost { reason } if is_told(reason)), "{lost:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_break_and_a_wrong_parity_bit_read_as_a_zero_byte() {
    use rustix::termios::{InputModes, tcgetattr};
    let pty = Pty::open().unwrap();
    for (parity, lines) in [(false, ""), (true, "parity = \"even\"\n")] {
        let config = source(pty.port(), &format!("exclusive = false\n{lines}"));
        let port = super::port::open(&config.port, config.settings).await.unwrap();
        let side = std::fs::File::open(pty.port()).unwrap();
        let modes = tcgetattr(&side).unwrap().input_modes;
        // termios(3): with neither of the first two, a break is a zero; with the fourth alone, so is a wrong byte.
        let of_interest = InputModes::IGNBRK | InputModes::BRKINT | InputModes::PARMRK | InputModes::INPCK;
        let wanted = if parity { InputModes::INPCK } else { InputModes::empty() };
        assert_eq!(modes & of_interest, wanted);
        assert_eq!(
            modes.contains(InputModes::IGNPAR),
            !parity,
            "without parity a byte with a broken frame is left out"
        );
        drop(port);
    }
}

const POLLED: &str = "topic = \"{source}/{poll}\"\n[[source.serial.poll]]\nname = \"weight\"\nquery = \"W?\\r\"\n\
    interval = \"20ms\"\ntimeout = \"300ms\"\nretries = 1\n";

/// Answers each query until told to be silent.
async fn play_scale(pty: Arc<Pty>, answers: Arc<Mutex<bool>>, heard: mpsc::Sender<()>) {
    let mut query = Vec::new();
    let mut bytes = [0; 64];
    loop {
        let count = pty.receive(&mut bytes).await;
        query.extend_from_slice(&bytes[..count]);
        while let Some(end) = query.iter().position(|byte| *byte == b'\r') {
            assert_eq!(query.drain(..=end).collect::<Vec<u8>>(), b"W?\r");
            let _ = heard.try_send(());
            if *answers.lock().unwrap() {
                pty.send(b"17.3\r\n").await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_device_is_asked_and_its_silence_is_told_once() {
    let pty = Arc::new(Pty::open().unwrap());
    let answers = Arc::new(Mutex::new(true));
    let (heard, mut queries) = mpsc::channel(1_000);
    tokio::spawn(play_scale(Arc::clone(&pty), Arc::clone(&answers), heard));
    let mut world = start(source(pty.port(), POLLED));
    world.opened().await;
    for _ in 0..3 {
        assert_eq!(world.reading().await, ("scale/weight".to_owned(), b"17.3".to_vec()));
    }
    *answers.lock().unwrap() = false;
    let mute = world.event().await;
    while let Ok(mut delivery) = world.deliveries.try_recv() {
        delivery.ack.take().unwrap().fire();
    }
    let reason = "no answer within 300 ms, 2 times".to_owned();
    assert_eq!(mute, LineEvent::Mute { device: "weight".to_owned(), reason });
    while queries.try_recv().is_ok() {}
    tokio::time::timeout(PATIENCE, queries.recv()).await.unwrap().unwrap();
    assert!(world.events.try_recv().is_err(), "asked again, and told nothing new");
    *answers.lock().unwrap() = true;
    assert_eq!(world.event().await, LineEvent::Answers { device: "weight".to_owned() });
    assert_eq!(world.reading().await.0, "scale/weight");
    assert!(count(&world.lines.timeouts) >= 2 && count(&world.lines.requests) >= 5);
    world.stop().await;
}

#[tokio::test]
async fn noise_is_told_once_and_so_is_its_end() {
    let pty = Pty::open().unwrap();
    let mut world = start(source(pty.port(), "[source.serial.frame]\nkind = \"nmea\"\n"));
    world.opened().await;
    for _ in 0..20 {
        pty.send(&[0xfe; 100]).await.unwrap();
    }
    assert!(matches!(world.event().await, LineEvent::Noisy { .. }));
    pty.send(b"$GPGLL,4916.45,N,12311.12,W,225444,A*31\r\n").await.unwrap();
    assert_eq!(world.event().await, LineEvent::Clear);
    assert_eq!(world.reading().await.1, b"$GPGLL,4916.45,N,12311.12,W,225444,A*31");
    assert_eq!(count(&world.lines.noise_bytes), 2_000);
    world.stop().await;
}

#[tokio::test]
async fn a_port_that_somebody_holds_is_waited_for() {
    let pty = Pty::open().unwrap();
    let held = super::port::open(&source(pty.port(), "").port, source(pty.port(), "").settings).await.unwrap();
    let mut world = start(source(pty.port(), ""));
    let lost = world.event().await;
    assert!(matches!(&lost, LineEvent::Lost { reason } if reason.contains("open /dev/pts/")), "{lost:?}");
    drop(held);
    world.opened().await;
    world.stop().await;
}

#[tokio::test]
async fn a_silence_between_frames_ends_them_and_an_unusual_baud_is_taken() {
    let pty = Pty::open().unwrap();
    let lines = "baud = 31250\n[source.serial.frame]\nkind = \"gap\"\ngap = \"50ms\"\n";
    let config = source(pty.port(), lines);
    assert!(matches!(config.decoder, Decoder::Raw));
    let mut world = start(config);
    world.opened().await;
    pty.send(&[1, 2, 3]).await.unwrap();
    assert_eq!(world.reading().await.1, [1, 2, 3]);
    pty.send(&[4]).await.unwrap();
    assert_eq!(world.reading().await.1, [4]);
    world.stop().await;
}
