//! A body that is cut off, between a real client and a real server.

use std::convert::Infallible;
use std::net::SocketAddr;

use ::tokio::io::AsyncWriteExt;
use ::tokio::net::{TcpListener, TcpStream};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::TokioIo;
use rstest::rstest;
use write_atomically::tokio::{write_atomically, write_if_missing};

use super::runtime;
use crate::support::{Directory, assert_state, prepare, read};

const LENGTH: usize = 3 << 20;

fn body() -> Vec<u8> {
    (0..LENGTH).map(|n| b'a' + (n % 26) as u8).collect()
}

/// Serves the body whole, with hyper.
async fn serve_whole(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let service = service_fn(async |_: Request<Incoming>| {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body()))))
        });
        ::tokio::spawn(async move {
            server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
        });
    }
}

/// Promises the body, and hangs up in the middle.
async fn serve_half(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body()[..LENGTH / 2]).await.unwrap();
        stream.shutdown().await.unwrap();
    }
}

async fn download(
    w: &mut write_atomically::tokio::Writer,
    from: SocketAddr,
) -> anyhow::Result<usize> {
    let stream = TokioIo::new(TcpStream::connect(from).await?);
    let (mut sender, connection) = client::conn::http1::handshake(stream).await?;
    ::tokio::spawn(connection);
    let request = Request::get("/").header("host", "localhost").body(Empty::<Bytes>::new())?;
    let mut response = sender.send_request(request).await?;
    let mut length = 0;
    while let Some(frame) = response.frame().await {
        if let Some(chunk) = frame?.data_ref() {
            w.write_all(chunk).await?;
            length += chunk.len();
        }
    }
    Ok(length)
}

#[rstest]
fn a_body_is_a_file_whole_or_not_at_all(
    #[values("one thread", "threads")] flavour: &str,
    #[values(true, false)] is_whole: bool,
) {
    let directory = prepare("here", Some("old"));
    let path = directory.join("file");
    runtime(flavour, 2).block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        match is_whole {
            true => drop(::tokio::spawn(serve_whole(listener))),
            false => drop(::tokio::spawn(serve_half(listener))),
        }
        let length = write_atomically(&path, async |w| download(w, address).await).await;
        match is_whole {
            true => assert_eq!(length.unwrap(), LENGTH),
            false => assert!(length.unwrap_err().is::<hyper::Error>(), "the closure's error"),
        }
    });
    match is_whole {
        true => assert!(fs_err::read(&path).unwrap() == body()),
        false => assert_state(&directory, Some("old")),
    }
}

#[test]
fn of_many_who_download_one_does() {
    let directory = Directory::new();
    let path = directory.join("cached");
    let ran = runtime("threads", 2).block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        ::tokio::spawn(serve_whole(listener));
        let mut tasks = ::tokio::task::JoinSet::new();
        for _ in 0..50 {
            let path = path.clone();
            tasks.spawn(async move {
                write_if_missing(&path, async |w| download(w, address).await).await.unwrap()
            });
        }
        tasks.join_all().await.into_iter().flatten().count()
    });
    assert_eq!(ran, 1);
    assert_eq!(read(&path).len(), LENGTH);
    assert_eq!(directory.listing(), ["cached"]);
}
