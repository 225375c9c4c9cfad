//! A stand-in for the coordinator: it answers each request with what the test's handler says, and remembers them. It
//! can do what a real server does only on bad days: drop connections, break streams, answer 503.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// The path with its query.
    pub path: String,
    pub body: String,
    /// How many requests of the same method and path came before.
    pub nth: usize,
}

/// What to answer.
pub enum Answer {
    /// A whole answer: status, extra header lines, body.
    Whole(u16, Vec<String>, String),
    /// Pieces of a stream, each after a pause, and whether the stream ends well.
    Stream(Vec<(u64, String)>, End),
    /// The connection becomes a stream of bytes, with these header lines; it is asked something that ends with an empty line, says this
    /// and ends.
    Upgrade(Vec<String>, String),
    /// The connection closes without an answer.
    Drop,
}

/// How a stream ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Well,
    Broken,
}

/// 200 with a JSON body.
pub fn ok(body: impl serde::Serialize) -> Answer {
    Answer::Whole(200, vec![], serde_json::to_string(&body).unwrap())
}

/// A Kubernetes-style refusal.
pub fn refuse(code: u16, reason: &str, message: &str) -> Answer {
    let status = serde_json::json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": message,
        "reason": reason, "code": code});
    Answer::Whole(code, vec![], status.to_string())
}

/// A server on loopback.
pub struct Fake {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Starts a server; it ends with the test's process.
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, handler) = (Arc::new(Mutex::new(vec![])), Arc::new(handler));
        let seen = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, handler) = (seen.clone(), handler.clone());
                std::thread::spawn(move || stream.map(|s| serve(s, &seen, &*handler)));
            }
        });
        Self { url, requests }
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, handler: &dyn Fn(&Request) -> Answer) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = {
        let mut seen = seen.lock().unwrap();
        let nth = seen.iter().filter(|r| r.method == method && r.path == path).count();
        let request = Request { method, path, body: String::from_utf8(body).unwrap(), nth };
        seen.push(request.clone());
        request
    };
    answer(stream, handler(&request)).ok()
}

fn answer(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    match answer {
        Answer::Drop => Ok(()),
        Answer::Upgrade(headers, says) => {
            let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
            write!(stream, "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: tidewater-bytes\r\n{headers}\r\n")?;
            let mut asked = BufReader::new(stream.try_clone()?);
            let mut line = String::new();
            while asked.read_line(&mut line)? > 2 {
                line.clear();
            }
            write!(stream, "{says}")
        }
        Answer::Whole(code, headers, body) => {
            let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
            let length = body.len();
            write!(stream, "HTTP/1.1 {code} x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
        }
        Answer::Stream(pieces, end) => {
            write!(stream, "HTTP/1.1 200 x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")?;
            for (pause_ms, piece) in pieces {
                std::thread::sleep(Duration::from_millis(pause_ms));
                write!(stream, "{:x}\r\n{piece}\r\n", piece.len())?;
                stream.flush()?;
            }
            if end == End::Well { write!(stream, "0\r\n\r\n") } else { Ok(()) }
        }
    }
}
