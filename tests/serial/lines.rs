//! Lines in good and in bad times.

use std::time::{Duration, Instant};

use crate::harness::gateway::metric;
use crate::harness::jobs;
use crate::harness::readings::Dice;
use crate::serial::rig::{Cable, Rig, by_key};

#[test]
fn sixteen_ports_at_115200_at_once() {
    const PORTS: usize = 16;
    const LINES: usize = 600;
    // 115,200 baud are 11,520 bytes a second: 576 in 50 ms.
    const TICK: Duration = Duration::from_millis(50);
    let mut rig = Rig::start(PORTS, "");
    let line = |n: usize| format!("{n:0>62}\r\n");
    let cpu = || cpu_ms(rig.gateway.pid());
    let (before, started) = (cpu(), Instant::now());
    std::thread::scope(|scope| {
        for cable in &rig.cables {
            scope.spawn(move || {
                use std::io::Write;
                let mut device = cable.device();
                for nine in (0..LINES).collect::<Vec<_>>().chunks(9) {
                    let text: String = nine.iter().map(|n| line(*n)).collect();
                    device.write_all(text.as_bytes()).unwrap();
                    std::thread::sleep(TICK);
                }
            });
        }
    });
    let records = rig.readings(PORTS * LINES);
    let cost = cpu() - before;
    eprintln!(
        "{} frames in {:?}: {cost} ms of CPU, {} KiB resident",
        records.len(),
        started.elapsed(),
        rig.gateway.memory_kib().peak
    );
    assert_eq!(records.len(), PORTS * LINES, "each arrives once");
    let lists = by_key(&records);
    let wanted: Vec<String> = (0..LINES).map(|n| line(n).trim_end().to_owned()).collect();
    assert_eq!(lists.len(), PORTS);
    assert!(lists.values().all(|list| *list == wanted), "in order");
    assert_eq!(rig.gateway.metric("forebay_line_overruns_total"), 0.0);
    rig.gateway.stop();
}

/// User and system time of a process.
pub fn cpu_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split(' ').collect();
    // Fields 14 and 15 of proc(5), in ticks of 10 ms.
    (fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()) * 10
}

#[test]
fn unplugged_and_plugged_in_again_under_another_device_name() {
    let mut rig = Rig::start(1, "");
    rig.cables[0].send(b"before\n");
    assert_eq!(rig.readings(1).len(), 1);
    let before = rig.cables[0].number();
    rig.cables[0].unplug();
    // Whatever is plugged in next gets the number that has become free, as an adapter would.
    let spare = tempfile::tempdir().unwrap();
    let spare = Cable::plug(spare.path(), "spare");
    rig.gateway.wait_for_line("the line is gone");
    rig.wait_open(0);
    let cpu = cpu_ms(rig.gateway.pid());
    std::thread::sleep(Duration::from_secs(2));
    let spent = cpu_ms(rig.gateway.pid()) - cpu;
    assert!(spent < 1_000, "{spent} ms of CPU in two seconds without a port");
    rig.cables[0].replug();
    let plugged = Instant::now();
    rig.wait_open(1);
    assert!(plugged.elapsed() < RESUMED, "open again after {:?}", plugged.elapsed());
    let after = rig.cables[0].number();
    assert_ne!(before, after, "the same device, while {} is taken", spare.number().display());
    rig.cables[0].send(b"after\n");
    let records = rig.readings(2);
    assert_eq!(by_key(&records)["line0"], ["before", "after"]);
    rig.gateway.stop();
    let log = rig.gateway.log();
    assert_eq!(log.matches("the line is gone").count(), 1, "told once: {log}");
    assert_eq!(log.matches("the line is open").count(), 2, "{log}");
    let opened = rig.told("line-open");
    assert_eq!((rig.told_times("line-lost"), opened.len()), (1, 2));
    assert!(opened[0].contains(before.to_str().unwrap()) && opened[1].contains(after.to_str().unwrap()), "{opened:?}");
}

/// A line that is back is read again within this time: 2 s, and what a machine may lose that is busy with other tests.
pub const RESUMED: Duration = Duration::from_secs(20);

/// What a receiver at another baud rate makes of bytes that are sent without a pause, eight data bits and no parity.
/// `rate`: bits of the sender for each bit of the receiver. As the kernel hands it on: a byte whose stop bit is missing
/// is left out, and one of zeros alone is a break, which reads as a zero.
fn at_another_baud_rate(bytes: &[u8], rate: f64) -> Vec<u8> {
    let bits: Vec<bool> = bytes
        .iter()
        .flat_map(|byte| [false].into_iter().chain((0..8).map(move |bit| byte >> bit & 1 == 1)).chain([true]))
        .collect();
    let level = |at: f64| bits.get(at as usize).copied().unwrap_or(true);
    let (mut heard, mut at) = (Vec::new(), 0);
    while at < bits.len() {
        if bits[at] {
            at += 1;
            continue;
        }
        // In the middle of each bit of its own, from the falling edge on.
        let sample = |bit: usize| level(at as f64 + (bit as f64 + 0.5) * rate);
        let byte = (0..8).fold(0, |byte, bit| byte | u8::from(sample(bit + 1)) << bit);
        if sample(9) || byte == 0 {
            heard.push(byte);
        }
        at += (9.5 * rate) as usize;
    }
    heard
}

#[test]
fn a_wrong_baud_rate_is_told_once_and_so_is_its_end() {
    let decode = "[source.serial.decode]\nkind = \"regex\"\npattern = '^T=(?<t>[0-9.]+)$'\n\
        fields = [{ name = \"t\", kind = \"float\" }]\n";
    let mut rig = Rig::start(1, decode);
    let line = |n: u32| format!("T={n}.5\r\n").into_bytes();
    rig.cables[0].send(&line(1));
    for rate in [2.0, 0.5, 1.2] {
        let lines: Vec<u8> = (0..200).flat_map(line).collect();
        let heard = at_another_baud_rate(&lines, rate);
        assert!(heard.len() > 256, "{rate}: {} bytes", heard.len());
        rig.cables[0].send(&heard);
    }
    rig.gateway.wait_for_line("the line makes no sense");
    // What ends the noise is the end of the line that it stands in.
    rig.cables[0].send(b"\r\n");
    let right = Instant::now();
    rig.cables[0].send(&line(2));
    rig.gateway.wait_for_line("good frames come again");
    assert!(right.elapsed() < RESUMED, "{:?}", right.elapsed());
    assert_eq!(by_key(&rig.readings(2))["line0"], [r#"{"t":1.5}"#, r#"{"t":2.5}"#]);
    rig.gateway.stop();
    assert_eq!((rig.told_times("line-noisy"), rig.told_times("line-clear")), (1, 1));
}

#[test]
fn what_says_nothing_new_stays_behind_and_the_last_word_is_never_lost() {
    let watched = "[source.serial.decode]\nkind = \"csv\"\nseparator = \";\"\n\
        fields = [{ name = \"t\", kind = \"float\" }, { name = \"door\" }]\n\
        [source.serial.report]\ndeadband = 0.5\nmin_interval = \"1h\"\nmax_interval = \"2h\"\n\
        [source.serial.report.fields.door]\nmin_interval = \"0s\"\n";
    let mut rig = Rig::start(1, watched);
    let suppressed = |rig: &Rig, n: f64| {
        jobs::wait_until("so many are left out", || {
            (rig.gateway.metric("forebay_line_suppressed_total") >= n).then_some(())
        });
    };
    rig.cables[0].send(b"20.0;shut\n20.4;shut\n20.1;shut\n20.2;open\n21.0;open\n22.0;open\n");
    suppressed(&rig, 3.0);
    assert_eq!(rig.gateway.metric("forebay_source_readings_total"), 2.0, "the first, and the door");
    // The value that waits goes with the stop; the next run knows nothing of this one.
    rig.gateway.stop();
    rig.gateway.start();
    rig.wait_open(1);
    rig.cables[0].send(b"22.0;open\n22.1;open\n");
    suppressed(&rig, 1.0);
    let wanted = ["20.0|shut", "20.2|open", "22.0|open", "22.0|open"].map(|text| {
        let (t, door) = text.split_once('|').unwrap();
        format!(r#"{{"door":"{door}","t":{t}}}"#)
    });
    jobs::wait_until("the last one is delivered", || (rig.gateway.metric(metric::BACKLOG) == 0.0).then_some(()));
    rig.gateway.stop();
    let records = rig.kafka.consume_all(&rig.topic("readings"));
    let arrived: Vec<_> = records.iter().map(|record| String::from_utf8_lossy(&record.payload).into_owned()).collect();
    assert_eq!(arrived, wanted);
}

#[test]
fn a_megabyte_of_noise_costs_no_good_frame_behind_it() {
    let frame = "[source.serial.frame]\nkind = \"start-stop\"\nstart = \"hex:02\"\nstop = \"hex:03\"\nmax = \"256B\"\n\
        [source.serial.frame.checksum]\nkind = \"lrc\"\nafter_stop = true\n";
    let mut rig = Rig::start(1, frame);
    let before = rig.gateway.memory_kib().peak;
    let good = |text: &str| {
        let body = [text.as_bytes(), &[3]].concat();
        let lrc = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
        [&[2], body.as_slice(), &[lrc]].concat()
    };
    // Every byte there is, starts and stops among them, and frames that nearly are some.
    let mut dice = Dice::new(5);
    let mut noise: Vec<u8> = (0..1 << 20).map(|_| dice.roll() as u8).collect();
    let mut wrong = good("wrong checksum");
    *wrong.last_mut().unwrap() ^= 1;
    noise.extend(wrong);
    noise.extend(good("right checksum, wrong length").into_iter().take(20));
    rig.cables[0].send(&[noise, good("first"), good("second")].concat());
    let wanted = [b"first".to_vec(), b"second".to_vec()];
    let list: Vec<Vec<u8>> = jobs::wait_until("both good frames", || {
        let records = rig.kafka.consume_all(&rig.topic("readings"));
        let list: Vec<Vec<u8>> = records.into_iter().map(|record| record.payload).collect();
        wanted.iter().all(|text| list.contains(text)).then_some(list)
    });
    // One in 256 candidates has a right checksum by chance; what was sent as good is last, and in order.
    assert_eq!(list[list.len() - 2..], wanted);
    let log = rig.gateway.wait_for_line("the line makes no sense");
    assert!(log.contains("line0"), "{log}");
    assert!(rig.gateway.metric("forebay_line_noise_bytes_total") > f64::from(1 << 19));
    let grown = rig.gateway.memory_kib().peak.saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
    rig.gateway.stop();
}

#[test]
fn a_wrong_value_becomes_a_dead_letter_with_its_bytes() {
    let decode = "topic = \"{source}/weight\"\n[source.serial.decode]\nkind = \"regex\"\n\
        pattern = '^ST,(?<weight>[-+0-9.]+)kg$'\nfields = [{ name = \"weight\", kind = \"float\", unit = \"kg\" }]\n";
    let mut rig = Rig::start(1, decode);
    rig.cables[0].send(b"ST,+012.50kg\r\nOVERLOAD\r\nST,1.2.3kg\r\nST,7kg\r\n");
    let lists = by_key(&rig.readings(2));
    let wanted = [r#"{"units":{"weight":"kg"},"weight":12.5}"#, r#"{"units":{"weight":"kg"},"weight":7.0}"#];
    assert_eq!(lists["line0/weight"], wanted);
    let letters = jobs::wait_until("two dead letters", || {
        let letters = rig.gateway.command(&["dlq", "list", "--json"]).lines();
        (letters.len() == 2).then_some(letters)
    });
    let causes: Vec<&str> = letters.iter().map(|letter| letter["cause"].as_str().unwrap()).collect();
    assert!(causes.contains(&"decode the frame: the pattern does not match"), "{causes:?}");
    assert!(causes.contains(&"decode the field weight: it is no number"), "{causes:?}");
    rig.gateway.stop();
}
