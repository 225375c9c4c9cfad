//! Asks the agent. In a thread of its own, so that no deadline waits for a network.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use super::Settings;
use crate::words::{LONGEST, Question, nonce};

/// How long the agent may take: to be connected, and to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of a question: for how long the attempt may go on from then, or why that is not known.
pub(super) type Heard = (u64, Result<u64, String>);

/// The way to the agent.
pub(super) struct Agent {
    questions: SyncSender<u64>,
    answers: Receiver<Heard>,
    /// Readable when there are answers.
    woken: UnixStream,
}

impl Agent {
    pub(super) fn of(settings: Settings) -> io::Result<Self> {
        let (questions, asked) = mpsc::sync_channel(1);
        let (heard, answers) = mpsc::channel();
        let (woken, mut wakes) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let mut line = Line { settings, nonce: nonce()?, stream: None };
        std::thread::Builder::new().name("agent".into()).spawn(move || {
            while let Ok(asked) = asked.recv() {
                let answer = line.ask(asked).map_err(|cause| cause.to_string());
                if heard.send((asked, answer)).is_err() || wakes.write_all(&[0]).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { questions, answers, woken })
    }

    /// Asks, unless an earlier question is still under way.
    pub(super) fn ask(&self, asked: u64) {
        let _ = self.questions.try_send(asked);
    }

    /// What was heard since.
    pub(super) fn heard(&mut self) -> Vec<Heard> {
        let mut bytes = [0; 64];
        while matches!(self.woken.read(&mut bytes), Ok(1..)) {}
        self.answers.try_iter().collect()
    }
}

impl AsRawFd for Agent {
    fn as_raw_fd(&self) -> RawFd {
        self.woken.as_raw_fd()
    }
}

struct Line {
    settings: Settings,
    nonce: String,
    stream: Option<TcpStream>,
}

impl Line {
    fn ask(&mut self, asked: u64) -> io::Result<u64> {
        if let Some(stream) = self.stream.take()
            && let Ok(ttl_ms) = self.talk(stream, asked)
        {
            return Ok(ttl_ms);
        }
        // A connection that ended, as when the agent was restarted, says nothing of what the next one will.
        let stream = TcpStream::connect_timeout(&self.settings.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        self.talk(stream, asked)
    }

    /// One question and its answer. A connection on which that failed is not used again: what comes later on it is to an older question.
    fn talk(&mut self, mut stream: TcpStream, asked: u64) -> io::Result<u64> {
        let Settings { attempt, key, .. } = &self.settings;
        let question = Question { attempt: attempt.clone(), nonce: self.nonce.clone(), asked };
        stream.write_all(question.line(key).as_bytes())?;
        let line = read_line(&mut stream)?;
        let answer = question.answered(key, &line);
        self.stream = answer.is_some().then_some(stream);
        answer.ok_or_else(|| io::Error::other("what answers there is not this attempt's agent"))
    }
}

fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let (mut line, mut bytes) = (vec![], [0; LONGEST]);
    while !line.ends_with(b"\n") {
        match stream.read(&mut bytes)? {
            0 => return Err(io::Error::other("the agent does not let it go on yet, or this is another replica")),
            n => line.extend_from_slice(&bytes[..n]),
        }
        if line.len() > LONGEST {
            return Err(io::Error::other("the answer is too long for one"));
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}
