//! Lines in good and in bad times.

use std::time::{Duration, Instant};

use crate::harness::jobs;
use crate::harness::readings::Dice;
use crate::serial::rig::{Rig, by_key};

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
fn unplugged_and_plugged_in_again() {
    let mut rig = Rig::start(1, "");
    rig.cables[0].send(b"before\n");
    assert_eq!(rig.readings(1).len(), 1);
    rig.cables[0].unplug();
    rig.gateway.wait_for_line("the line is gone");
    rig.wait_open(0);
    let cpu = cpu_ms(rig.gateway.pid());
    std::thread::sleep(Duration::from_secs(2));
    let spent = cpu_ms(rig.gateway.pid()) - cpu;
    assert!(spent < 1_000, "{spent} ms of CPU in two seconds without a port");
    rig.cables[0].replug();
    let plugged = Instant::now();
    rig.wait_open(1);
    eprintln!("open again after {:?}", plugged.elapsed());
    rig.cables[0].send(b"after\n");
    let records = rig.readings(2);
    assert_eq!(by_key(&records)["line0"], ["before", "after"]);
    rig.gateway.stop();
    let log = rig.gateway.log();
    assert_eq!(log.matches("the line is gone").count(), 1, "told once: {log}");
    assert_eq!(log.matches("the line is open").count(), 2, "{log}");
    assert_eq!((rig.told("line-lost"), rig.told("line-open")), (1, 2));
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
