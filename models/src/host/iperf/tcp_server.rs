//! The server's side of TCP tests.

use std::net::SocketAddr;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use tapestry_core::SimTime;

use super::Stream;
use super::options::Options;
use super::report::{HEAD, Line, RULE, buffer};
use crate::host::{Cx, Program, Progress};

#[derive(Debug)]
pub(super) struct TcpServer {
    options: Options,
    listening: Vec<SocketHandle>,
    receivers: Vec<Receiver>,
    streams: usize,
    headed: bool,
}

#[derive(Debug)]
struct Receiver {
    stream: Stream,
    socket: SocketHandle,
    last: SimTime,
}

/// Receiver's buffer, which bounds the bytes under way, unless `-w` says otherwise: the
/// bandwidth-delay product of 100 Mbit/s and 30 ms. Not more, since smoltcp, which retransmits
/// without selective acknowledgement, recovers slowly when a queue overflows.
const RECEIVE_BUFFER: usize = 384 << 10;
/// A server sends nothing that matters.
const SEND_BUFFER: usize = 4_096;
/// Connections that may arrive within one microsecond.
const BACKLOG: usize = 8;

impl TcpServer {
    pub(super) fn start(options: Options, cx: &mut Cx<'_, '_>) -> Self {
        cx.print(format!(
            "{RULE}Server listening on TCP port {}\nTCP window size: {}\n{RULE}",
            options.port,
            buffer(options.window, RECEIVE_BUFFER)
        ));
        let (listening, receivers) = (Vec::new(), Vec::new());
        let mut this = Self { options, listening, receivers, streams: 0, headed: false };
        this.listen(cx);
        this
    }

    /// Keeps as many sockets listening as connections may arrive at once.
    fn listen(&mut self, cx: &mut Cx<'_, '_>) {
        let tcp = cx.stack.tcp();
        while self.listening.len() < BACKLOG {
            let size = self.options.window.unwrap_or(RECEIVE_BUFFER);
            let socket = tcp.socket(size, SEND_BUFFER);
            if tcp.get(socket).listen(self.options.port).is_err() {
                tcp.remove(socket);
                return;
            }
            self.listening.push(socket);
        }
    }

    fn accept(&mut self, cx: &mut Cx<'_, '_>) {
        let now = cx.now();
        for index in (0..self.listening.len()).rev() {
            let handle = self.listening[index];
            let socket = cx.stack.tcp().get(handle);
            let ends = (socket.local_endpoint(), socket.remote_endpoint());
            match (socket.state(), ends) {
                (State::Listen | State::SynReceived, _) => {}
                (State::Established | State::CloseWait, (Some(local), Some(remote))) => {
                    self.listening.remove(index);
                    self.streams += 1;
                    let ends = (
                        SocketAddr::new(local.addr.into(), local.port),
                        SocketAddr::new(remote.addr.into(), remote.port),
                    );
                    let stream = Stream::new(self.streams, ends, now, self.options.interval);
                    cx.print(stream.connected());
                    self.receivers.push(Receiver { stream, socket: handle, last: now });
                }
                _ => {
                    self.listening.remove(index);
                    cx.stack.tcp().remove(handle);
                }
            }
        }
        self.listen(cx);
    }

    fn print(&mut self, cx: &mut Cx<'_, '_>, index: usize, line: &Line) {
        if !self.headed {
            cx.print(HEAD);
            self.headed = true;
        }
        cx.print(
            line.text(&self.receivers[index].stream.number.to_string(), self.options.format) + "\n",
        );
    }

    /// Reads what has arrived; whether the stream is over.
    fn read(&mut self, cx: &mut Cx<'_, '_>, index: usize) -> bool {
        let now = cx.now();
        let receiver = &mut self.receivers[index];
        let tcp = cx.stack.tcp();
        let socket = tcp.get(receiver.socket);
        let mut read = false;
        while let Ok(length @ 1..) = socket.recv(|data| (data.len(), data.len())) {
            receiver.stream.meter.add(length);
            receiver.last = now;
            read = true;
        }
        let over = !socket.may_recv();
        if over {
            socket.close();
        }
        if read || over {
            tcp.wake(now);
        }
        over
    }

    fn end(&mut self, cx: &mut Cx<'_, '_>, index: usize) {
        let receiver = &self.receivers[index];
        let line = receiver.stream.meter.summary(receiver.last);
        self.print(cx, index, &line);
        let receiver = self.receivers.remove(index);
        cx.stack.tcp().release(cx.io.now, receiver.socket);
    }
}

impl Program for TcpServer {
    fn poll_timeout(&self) -> Option<SimTime> {
        self.receivers.iter().filter_map(|r| r.stream.meter.poll_timeout()).min()
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        for index in 0..self.receivers.len() {
            while let Some(line) = self.receivers[index].stream.meter.next_interval(cx.now()) {
                self.print(cx, index, &line);
            }
        }
        Progress::Running
    }

    fn handle_tcp(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        self.accept(cx);
        let mut index = 0;
        while index < self.receivers.len() {
            if self.read(cx, index) {
                self.end(cx, index);
            } else {
                index += 1;
            }
        }
        Progress::Running
    }

    fn stop(&mut self, cx: &mut Cx<'_, '_>) -> Progress {
        while !self.receivers.is_empty() {
            self.end(cx, 0);
        }
        for handle in self.listening.drain(..) {
            cx.stack.tcp().remove(handle);
        }
        Progress::Exited(0)
    }
}
