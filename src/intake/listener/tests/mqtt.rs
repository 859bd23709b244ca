//! A client of others against the listener: rumqttc, both versions, every QoS in both directions.

use std::time::Duration;

use tokio::time::timeout;

use super::bench::Hub;
use super::wire::Server;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn rumqttc_speaks_3_1_1_with_it() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let server = Server::start(Hub::prompt()).await;
    let mut options = MqttOptions::new("d", "127.0.0.1", server.address.port());
    options.set_clean_session(false);
    let (client, mut events) = AsyncClient::new(options, 20);
    client.subscribe("a/#", QoS::ExactlyOnce).await.unwrap();
    for (payload, qos) in [("0", QoS::AtMostOnce), ("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce)] {
        client.publish("a/b", qos, false, payload).await.unwrap();
    }
    let (mut got, mut completed) = (Vec::new(), 0);
    let all = async {
        while got.len() < 3 || completed < 2 {
            match events.poll().await.unwrap() {
                Event::Incoming(Packet::Publish(publish)) => {
                    got.push((publish.qos as u8, String::from_utf8(publish.payload.to_vec()).unwrap()));
                }
                Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => completed += 1,
                _ => {}
            }
        }
    };
    timeout(LIMIT, all).await.unwrap();
    assert_eq!(got, [(0, "0".to_owned()), (1, "1".to_owned()), (2, "2".to_owned())]);
    assert_eq!(server.hub.payloads(), ["0", "1", "2"]);
    drop(events);
    server.finish().await;
}

#[tokio::test]
async fn rumqttc_speaks_v5_with_it() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};
    let server = Server::start(Hub::prompt()).await;
    let mut options = MqttOptions::new("d", "127.0.0.1", server.address.port());
    options.set_session_expiry_interval(Some(60));
    options.set_clean_start(false);
    let (client, mut events) = AsyncClient::new(options, 20);
    client.subscribe("a/#", QoS::ExactlyOnce).await.unwrap();
    let properties = PublishProperties {
        user_properties: vec![("traceparent".to_owned(), "00-1".to_owned())],
        content_type: Some("text/plain".to_owned()),
        ..Default::default()
    };
    for (payload, qos) in [("0", QoS::AtMostOnce), ("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce)] {
        client.publish_with_properties("a/b", qos, false, payload, properties.clone()).await.unwrap();
    }
    let (mut got, mut completed, mut receive_maximum) = (Vec::new(), 0, None);
    let all = async {
        while got.len() < 3 || completed < 2 {
            match events.poll().await.unwrap() {
                Event::Incoming(Packet::ConnAck(connack)) => {
                    receive_maximum = connack.properties.and_then(|properties| properties.receive_max);
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    let back = publish.properties.unwrap();
                    assert_eq!(back.user_properties, properties.user_properties);
                    assert_eq!(back.content_type, properties.content_type);
                    got.push((publish.qos as u8, String::from_utf8(publish.payload.to_vec()).unwrap()));
                }
                Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => completed += 1,
                _ => {}
            }
        }
    };
    timeout(LIMIT, all).await.unwrap();
    assert_eq!(receive_maximum, Some(100));
    assert_eq!(got, [(0, "0".to_owned()), (1, "1".to_owned()), (2, "2".to_owned())]);
    assert_eq!(server.hub.payloads(), ["0", "1", "2"]);
    drop(events);
    server.finish().await;
}
