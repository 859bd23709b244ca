//! From HTTP to WebSocket (RFC 6455, section 4.2), with `mqtt` as the agreed subprotocol.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;

use super::WebSocket;

/// Longest request: browsers send cookies along.
const REQUEST_BYTES_MAX: usize = 8 << 10;
const SUBPROTOCOL: &str = "mqtt";
const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n";

/// Why no WebSocket came about.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("upgrade to WebSocket: {0}")]
    Io(#[from] std::io::Error),
    #[error("upgrade to WebSocket: the request is longer than 8KiB")]
    TooLong,
    #[error("upgrade to WebSocket: {0}")]
    Request(String),
    /// MQTT-6.0.0-3.
    #[error("upgrade to WebSocket: the client does not offer the subprotocol mqtt")]
    Subprotocol,
}

/// Answers the request on `stream`, whatever its path. The caller bounds the time.
///
/// # Errors
/// [`UpgradeError`]; the client has been told where that was possible.
pub async fn upgrade<S>(mut stream: S) -> Result<WebSocket<S>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = read_request(&mut stream).await;
    match request.and_then(|request| response(&request)) {
        Ok(response) => {
            stream.write_all(&response).await?;
            stream.flush().await?;
            Ok(WebSocket::new(stream))
        }
        Err(error @ UpgradeError::Io(_)) => Err(error),
        Err(error) => {
            let body = format!("{REFUSED}Content-Length: {}\r\n\r\n{error}\n", error.to_string().len() + 1);
            stream.write_all(body.as_bytes()).await?;
            stream.shutdown().await?;
            Err(error)
        }
    }
}

/// Nothing may follow the request before it is answered, so nothing read is left over.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Result<Request, UpgradeError> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let n = stream.read(&mut piece).await?;
        if n == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        bytes.extend_from_slice(&piece[..n]);
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(UpgradeError::TooLong);
        }
        // Parsing starts over each time: only once, when the end is there.
        if !bytes.windows(4).rev().take(n + 3).any(|end| end == b"\r\n\r\n") {
            continue;
        }
        let parsed = Request::try_parse(&bytes).map_err(|error| UpgradeError::Request(error.to_string()))?;
        return match parsed {
            Some((size, request)) if size == bytes.len() => Ok(request),
            _ => Err(UpgradeError::Request("more than a request came".to_owned())),
        };
    }
}

fn response(request: &Request) -> Result<Vec<u8>, UpgradeError> {
    let fault = |error: tokio_tungstenite::tungstenite::Error| UpgradeError::Request(error.to_string());
    let mut response = create_response(request).map_err(fault)?;
    let offers = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    if !offers.flat_map(|list| list.split(',')).any(|name| name.trim() == SUBPROTOCOL) {
        return Err(UpgradeError::Subprotocol);
    }
    // MQTT-6.0.0-4.
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response).map_err(fault)?;
    Ok(bytes)
}
