//! Keep-alive and PINGREQ (3.1.2.10, 3.12).

use super::*;

cases! {
    a_ping_is_answered: ["3.12.4-1"], ["3.12.4-1"];
    a_silent_client_is_disconnected: ["3.1.2-24"], ["3.1.2-22", "3.2.2-22"];
    keep_alive_0_and_the_longest_are_taken: [], [];
    any_packet_counts: ["3.1.2-24"], ["3.1.2-22"];
    half_a_packet_does_not_keep_a_connection: ["3.1.2-24"], ["3.1.2-22"];
}

fn kept_alive(server: &Server, level: u8, seconds: u16) -> Line {
    Line::connect(server, &Connect { keep_alive: seconds, ..Connect::new(level, &server.name()) })
}

fn a_ping_is_answered(server: &Server) {
    for level in BOTH {
        let mut line = Line::quick(server, level);
        for _ in 0..3 {
            line.ping();
        }
        line.send(&packets::PINGREQ.repeat(500));
        (0..500).for_each(|_| assert_eq!(line.next(), Packet::PingResp));
    }
}

fn a_silent_client_is_disconnected(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 1);
        let will = Connect::new(level, &server.name()).will(Will::new(&topic, "gone"));
        let line = Line::connect(server, &Connect { keep_alive: 1, ..will });
        line.refused(server, &[0x8d]);
        assert_eq!(watcher.take().text(), "gone");
    }
}

fn keep_alive_0_and_the_longest_are_taken(server: &Server) {
    for level in BOTH {
        let mut lines = [0, 65_535].map(|seconds| kept_alive(server, level, seconds));
        // Long enough for another to be cut off.
        kept_alive(server, level, 1).refused(server, &[0x8d]);
        lines.iter_mut().for_each(Line::ping);
        if level == V5 && server.is_ours() {
            // An hour is the longest that it grants, and it says so.
            let connect = Connect { keep_alive: 65_535, ..Connect::new(V5, &server.name()) };
            assert_eq!(Line::accepted(server, &connect).props.number(id::SERVER_KEEP_ALIVE), Some(3_600));
        }
    }
}

/// Each publish comes when the one before has been answered, until a silent connection that began later has ended.
fn any_packet_counts(server: &Server) {
    for level in BOTH {
        let mut busy = kept_alive(server, level, 3);
        let silent = kept_alive(server, level, 3);
        let (tell, ended) = std::sync::mpsc::sync_channel(1);
        let reader = std::thread::spawn(move || tell.send(silent.closed()));
        while ended.try_recv().is_err() {
            busy.publish("busy", 1, "x");
        }
        reader.join().unwrap().unwrap();
        busy.ping();
    }
}

fn half_a_packet_does_not_keep_a_connection(server: &Server) {
    for level in BOTH {
        let mut line = kept_alive(server, level, 1);
        line.send(&Publish::new("half", 0, 0, "x").bytes(level)[..3]);
        line.refused(server, &[0x8d]);
    }
}
