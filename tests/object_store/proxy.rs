//! A proxy between a client and a server on the loopback that spoils requests of one kind.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::store::{Request, Times};

/// What happens to a request, or to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// The connection breaks before the server has seen the request.
    Reset,
    /// The server acts; the connection breaks instead of the answer.
    AnswerLost,
    /// The connection breaks in the middle of the answer's head.
    AnswerCut,
    /// The server gets the request twice; the client, the second answer.
    Repeated,
    /// The server acts, and the answer comes late.
    Delayed,
    /// The server does not see the request.
    Status(u16),
}

type Rule = Arc<Mutex<Option<(Request, Spoil, Times)>>>;

pub struct Proxy {
    pub endpoint: String,
    rule: Rule,
}

impl Proxy {
    pub fn start(server: &str) -> Self {
        let server: SocketAddr = server.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let rule = Rule::default();
        let rules = rule.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let rule = rules.clone();
                // A broken connection is what the client is to see.
                thread::spawn(move || serve(client, server, &rule).ok());
            }
        });
        Proxy { endpoint, rule }
    }

    pub fn spoil(&self, request: Request, spoil: Spoil, times: Times) {
        *self.rule.lock().unwrap() = Some((request, spoil, times));
    }

    pub fn heal(&self) {
        *self.rule.lock().unwrap() = None;
    }
}

/// One request a connection, so that each can be spoilt by itself.
fn serve(mut client: TcpStream, server: SocketAddr, rule: &Rule) -> io::Result<()> {
    let request = read_request(&mut client)?;
    match due(rule, kind(&request)) {
        None => client.write_all(&forward(&request, server)?)?,
        Some(Spoil::Reset) => {}
        Some(Spoil::AnswerLost) => drop(forward(&request, server)?),
        Some(Spoil::AnswerCut) => client.write_all(&forward(&request, server)?[..20])?,
        Some(Spoil::Repeated) => {
            forward(&request, server)?;
            client.write_all(&forward(&request, server)?)?;
        }
        Some(Spoil::Delayed) => {
            let answer = forward(&request, server)?;
            thread::sleep(Duration::from_millis(300));
            client.write_all(&answer)?;
        }
        Some(Spoil::Status(status)) => {
            let body = "<Error><Code>Spoilt</Code><Message>by the test</Message></Error>";
            let length = body.len();
            write!(
                client,
                "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            )?;
        }
    }
    client.shutdown(Shutdown::Both)
}

fn due(rule: &Rule, kind: Option<Request>) -> Option<Spoil> {
    let mut rule = rule.lock().unwrap();
    let (request, spoil, times) = (*rule)?;
    if kind != Some(request) {
        return None;
    }
    if times == Times::Once {
        *rule = None;
    }
    Some(spoil)
}

/// Of a request of S3.
fn kind(request: &[u8]) -> Option<Request> {
    let line = request.split(|byte| *byte == b'\r').next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let query = target.split_once('?').map_or("", |(_, query)| query);
    // Trials of conditions are no part of the write.
    if target.contains("-trial") {
        return None;
    }
    Some(match method {
        "GET" | "HEAD" => Request::Get,
        "POST" if query.contains("uploadId") => Request::Complete,
        "POST" => Request::Begin,
        "PUT" if query.contains("partNumber") => Request::Part,
        "PUT" => Request::Put,
        "DELETE" => Request::Abort,
        _ => return None,
    })
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|start| start + 4)
}

fn header(head: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let line =
        head.lines().find_map(|line| line.strip_prefix(&format!("{name}:")).map(str::to_owned))?;
    Some(line.trim().to_owned())
}

fn read_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let mut whole = None;
    loop {
        if whole.is_some_and(|length| bytes.len() >= length) {
            return Ok(bytes);
        }
        let length = client.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..length]);
        if whole.is_none() {
            whole = head_end(&bytes[..bytes.len().min(64 << 10)]).map(|end| {
                end + header(&bytes[..end], "content-length").map_or(0, |n| n.parse().unwrap())
            });
        }
    }
}

/// The server's whole answer, which tells the client that the connection ends with it.
fn forward(request: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut upstream = TcpStream::connect(server)?;
    let end = head_end(request).expect("it was read");
    upstream.write_all(&request[..end - 2])?;
    upstream.write_all(b"Connection: close\r\n\r\n")?;
    upstream.write_all(&request[end..])?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    if header(&answer[..head_end(&answer).unwrap_or(0)], "connection").is_none() {
        let line = answer.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        answer.splice(line..line, *b"Connection: close\r\n");
    }
    Ok(answer)
}
