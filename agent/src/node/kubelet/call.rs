//! One call of gRPC over a Unix socket: HTTP/2 by `h2`, and the frame around a message by hand
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>). A call has a connection of its own, so that nothing has to be found out
//! about a kubelet that was started anew.

use std::path::Path;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, Request, StatusCode};
use tokio::net::UnixStream;

/// The longest answer, as kubelet's own client has it.
const LONGEST: usize = 16 << 20;
/// How much of an answer may be on its way.
const WINDOW: u32 = 1 << 20;
const METHOD: &str = "http://localhost/v1.PodResourcesLister/List";

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers there.
    #[error("{0}; is its folder mounted, and may this user open it (it is root's)?")]
    Connect(std::io::Error),
    /// HTTP/2 broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] h2::Error),
    /// It says no.
    #[error("it answers {0}")]
    Refused(String),
    /// The answer is no message.
    #[error("its answer is no message of gRPC: {0}")]
    Malformed(&'static str),
}

/// The message with which a kubelet answers which container has what.
pub async fn list(socket: &Path) -> Result<Vec<u8>, CallError> {
    let stream = UnixStream::connect(socket).await.map_err(CallError::Connect)?;
    let mut builder = Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
    let (send, connection) = builder.handshake::<_, Bytes>(stream).await?;
    tokio::select! {
        answer = call(send) => answer,
        // It ends with its call, or breaks before.
        ended = connection => {
            ended?;
            Err(CallError::Malformed("it ended the connection"))
        }
    }
}

async fn call(send: SendRequest<Bytes>) -> Result<Vec<u8>, CallError> {
    let mut send = send.ready().await?;
    let head = Request::post(METHOD).header("content-type", "application/grpc").header("te", "trailers").body(());
    let head = head.map_err(|_| CallError::Malformed("its own request"))?;
    let (answer, mut body) = send.send_request(head, false)?;
    // An empty message.
    body.send_data(Bytes::from_static(&[0; HEADER]), true)?;
    let (head, mut data) = answer.await?.into_parts();
    if head.status != StatusCode::OK {
        return Err(CallError::Refused(format!("HTTP {}", head.status)));
    }
    let mut bytes = vec![];
    while let Some(piece) = data.data().await {
        let piece = piece?;
        if bytes.len() + piece.len() > LONGEST + HEADER {
            return Err(CallError::Malformed("it is longer than 16 MiB"));
        }
        bytes.extend_from_slice(&piece);
        data.flow_control().release_capacity(piece.len())?;
    }
    let trailers = data.trailers().await?.unwrap_or_default();
    // An answer that is an error alone has its status in the head.
    status(if trailers.contains_key(STATUS) { &trailers } else { &head.headers })?;
    message(bytes)
}

/// Bytes before a message: whether it is compressed, and its length.
const HEADER: usize = 5;
const STATUS: &str = "grpc-status";

fn status(headers: &HeaderMap) -> Result<(), CallError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text(STATUS) {
        "0" => Ok(()),
        "" => Err(CallError::Malformed("it has no status")),
        code => Err(CallError::Refused(format!("with gRPC's status {code}: {:.300}", text("grpc-message")))),
    }
}

/// The one message in these bytes.
fn message(mut bytes: Vec<u8>) -> Result<Vec<u8>, CallError> {
    let Some((&[compressed, length @ ..], message)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(CallError::Malformed("it is cut short"));
    };
    if compressed != 0 {
        return Err(CallError::Malformed("it is compressed, which was not asked for"));
    }
    if u32::from_be_bytes(length) as usize != message.len() {
        return Err(CallError::Malformed("its length is wrong"));
    }
    bytes.drain(..HEADER);
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::{HeaderValue, Response};
    use tokio::net::UnixListener;

    use super::*;

    /// What a call gets from a server that answers with this body, in pieces, and these trailers.
    async fn answered(pieces: &[&[u8]], trailers: &[(&'static str, &'static str)]) -> Result<Vec<u8>, CallError> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("kubelet.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (request, mut answer) = connection.accept().await.unwrap().unwrap();
            assert_eq!(request.uri().path(), "/v1.PodResourcesLister/List");
            assert_eq!(
                (request.method().as_str(), &request.headers()["te"]),
                ("POST", &HeaderValue::from_static("trailers"))
            );
            let mut body = answer.send_response(Response::new(()), false).unwrap();
            for piece in pieces {
                body.send_data(Bytes::copy_from_slice(piece), false).unwrap();
            }
            let mut map = HeaderMap::new();
            trailers.iter().for_each(|(name, value)| drop(map.insert(*name, HeaderValue::from_static(value))));
            body.send_trailers(map).unwrap();
            let _ = connection.accept().await;
        };
        let (answer, ()) = tokio::join!(list(&socket), async {
            tokio::select! {
                () = server => {}
                () = tokio::time::sleep(std::time::Duration::from_secs(10)) => panic!("the call did not end"),
            }
        });
        answer
    }

    #[tokio::test]
    async fn an_answer_comes_whole_however_it_was_cut() {
        let answer = answered(&[&[0, 0], &[0, 0, 3, 7], &[8, 9]], &[(STATUS, "0")]).await.unwrap();
        assert_eq!(answer, [7, 8, 9]);
        let large = vec![5; 3 << 20];
        let header = [&[0][..], &(large.len() as u32).to_be_bytes()].concat();
        assert_eq!(answered(&[&header, &large], &[(STATUS, "0")]).await.unwrap(), large, "more than a window");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told() {
        let told = |answer: Result<Vec<u8>, CallError>| answer.unwrap_err().to_string();
        let refused = answered(&[], &[(STATUS, "8"), ("grpc-message", "rejected by rate limit")]).await;
        assert!(told(refused).contains("status 8: rejected by rate limit"));
        assert!(told(answered(&[&[0, 0, 0, 0, 9, 1]], &[(STATUS, "0")]).await).contains("length is wrong"));
        assert!(told(answered(&[&[1, 0, 0, 0, 1, 1]], &[(STATUS, "0")]).await).contains("compressed"));
        assert!(told(answered(&[&[0, 0]], &[(STATUS, "0")]).await).contains("cut short"));
        assert!(told(answered(&[&[0; 5]], &[("other", "0")]).await).contains("no status"));
        assert!(told(list(Path::new("/nowhere/kubelet.sock")).await).contains("is its folder mounted"));
    }
}
