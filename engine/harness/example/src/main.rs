//! A tiny protocol over UDP: stop and wait (RFC 3366). The sender repeats each numbered datagram
//! until it is acknowledged; the receiver acknowledges each and counts those in order.
//!
//! `stop-and-wait receive PORT COUNT` or `stop-and-wait send ADDRESS:PORT COUNT`.

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::process::ExitCode;
use std::time::Duration;

/// How long the sender waits for an acknowledgement.
const TIMEOUT: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["receive", port, count] => number(count).and_then(|count| receive(port, count)),
        ["send", to, count] => number(count).and_then(|count| send(to, count)),
        _ => Err(io::Error::other(
            "usage: stop-and-wait receive PORT COUNT | send ADDRESS:PORT COUNT",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stop-and-wait: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> io::Result<u32> {
    text.parse().map_err(|error| io::Error::other(format!("{text}: {error}")))
}

/// Acknowledges what comes until it is ended: the last acknowledgement may be lost.
fn receive(port: &str, count: u32) -> io::Result<()> {
    let socket = UdpSocket::bind(format!("0.0.0.0:{port}"))?;
    println!("listening");
    let (mut next, mut buffer) = (0_u32, [0; 4]);
    loop {
        let (_, from) = socket.recv_from(&mut buffer)?;
        if u32::from_be_bytes(buffer) == next {
            next += 1;
            if next == count {
                println!("received {next} in order");
            }
        }
        socket.send_to(&buffer, from)?;
    }
}

fn send(to: &str, count: u32) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let (mut repeated, mut buffer) = (0, [0; 4]);
    for number in 0..count {
        socket.send(&number.to_be_bytes())?;
        loop {
            match socket.recv(&mut buffer) {
                Ok(4) if u32::from_be_bytes(buffer) == number => break,
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    repeated += 1;
                    socket.send(&number.to_be_bytes())?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    println!("acknowledged {count}, repeated {repeated}");
    Ok(())
}
