//! DISCONNECT (3.14).

use super::*;

cases! {
    the_connection_ends_without_a_word: ["3.14.4-3"], ["3.14.4-3"];
    its_flags_are_checked: ["3.14.1-1"], ["3.14.1-1"];
    what_follows_it_is_not_read: [], ["3.14.4-1"];
    reasons_and_properties_are_read: [], ["3.14.2-1"];
    wrong_ones_are_refused: [], ["3.14.2-1", "3.14.4-2"], not mosquitto: "2.0.11 takes undefined reasons";
    a_refused_client_hears_no_disconnect: ["3.2.2-5"], ["3.14.0-1"];
}

fn the_connection_ends_without_a_word(server: &Server) {
    for level in BOTH {
        Line::quick(server, level).leave();
    }
}

fn its_flags_are_checked(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 1);
        let mut line = Line::connect(server, &Connect::new(level, &server.name()).will(Will::new(&topic, "gone")));
        line.send(&[0xe1, 0]);
        line.refused(server, &[0x81, 0x82]);
        // It was no DISCONNECT: the will stands.
        assert_eq!(watcher.take().text(), "gone");
    }
}

fn what_follows_it_is_not_read(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 0);
        let mut line = Line::quick(server, level);
        let publish = Publish::new(&topic, 0, 0, "too late").bytes(level);
        line.send(&[&packets::DISCONNECT[..], &publish].concat());
        assert_eq!(line.closed(), None);
        Line::quick(server, level).publish(&topic, 1, "marker");
        assert_eq!(watcher.take().text(), "marker");
    }
}

fn reasons_and_properties_are_read(server: &Server) {
    let props = [&[id::REASON_STRING][..], &text("over")].concat();
    let long = [&[0x00][..], &var(props.len() as u32), &props].concat();
    for body in [&[][..], &[0x00], &[0x04], &[0x80, 0], &[0x98, 0], &long] {
        let mut line = Line::quick(server, V5);
        line.send(&frame(0xe0, body));
        assert_eq!(line.closed(), None);
    }
}

fn wrong_ones_are_refused(server: &Server) {
    for body in [&[0x03, 0][..], &[0x8d], &[0, 2, id::TOPIC_ALIAS, 1], &[0, 0, 0], &[0, 9]] {
        let mut line = Line::quick(server, V5);
        line.send(&frame(0xe0, body));
        line.refused(server, &[0x81, 0x82]);
    }
}

/// It gets a CONNACK or nothing.
fn a_refused_client_hears_no_disconnect(server: &Server) {
    for level in BOTH {
        let mut line = Line::open(server, level);
        line.send(&Connect { level: 77, ..Connect::new(level, &server.name()) }.bytes());
        line.not_accepted(&[0x01, 0x84]);
        let mut line = Line::open(server, level);
        line.send(&Connect { twist: 1, ..Connect::new(level, &server.name()) }.bytes());
        line.not_accepted(&[0x80, 0x81, 0x82]);
    }
}
