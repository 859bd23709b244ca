//! CONNECT and CONNACK, the first two packets of a connection.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::codec::{self, ConnAck, Head, Inbound, Malformed, kind};
use super::{MqttError, MqttSession};

/// Enough for a CONNACK with long properties; a broker that is none could announce any length.
const FIRST_PACKET_MAX: usize = 256 * 1024;

/// Sends CONNECT and waits for CONNACK; what comes behind it stays in `input`. The caller bounds the time.
///
/// # Errors
/// The stream's, or anything but a CONNACK as the first packet (MQTT-3.2.0-1).
pub(super) async fn handshake<S>(
    stream: &mut S,
    session: &MqttSession,
    input: &mut BytesMut,
) -> Result<ConnAck, MqttError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut out = BytesMut::new();
    codec::write_connect(&session.config, &mut out)?;
    stream.write_all_buf(&mut out).await?;
    stream.flush().await?;
    loop {
        if let Some(packet) = first_packet(session, input)? {
            return match packet {
                Inbound::ConnAck(connack) => Ok(connack),
                Inbound::Disconnect { code } => Err(MqttError::Disconnected { code }),
                _ => Err(not_connack().into()),
            };
        }
        if stream.read_buf(input).await? == 0 {
            return Err(MqttError::Closed);
        }
    }
}

/// `None`: it is not complete yet.
fn first_packet(session: &MqttSession, input: &mut BytesMut) -> Result<Option<Inbound>, Malformed> {
    let Some(head) = Head::peek(input)? else { return Ok(None) };
    if !matches!(head.kind(), kind::CONNACK | kind::DISCONNECT) || head.total() > FIRST_PACKET_MAX {
        return Err(not_connack());
    }
    if input.len() < head.total() {
        return Ok(None);
    }
    let frame = input.split_to(head.total()).freeze();
    codec::decode(session.config.version, head, frame).map(Some)
}

fn not_connack() -> Malformed {
    Malformed("its first packet is no CONNACK".to_owned())
}
