//! A `ping` that prints all the digits: round-trip times of ICMP echoes, in the format of `ping`.
//!
//! Purpose: `ping` prints times above 10 ms with one decimal, which hides the errors that are
//! measured here. From just before the request is sent to the time stamp the kernel gives the reply
//! when it comes in (`SO_TIMESTAMPNS`), as `ping` measures. Needs `CAP_NET_RAW`.
//!
//! Usage: `echo ADDRESS COUNT INTERVAL_SECONDS`.

use std::error::Error;
use std::io::IoSliceMut;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn,
    recvmsg, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};
use nix::time::{ClockId, clock_gettime};

/// ICMP header and 56 bytes, as `ping` sends.
const REQUEST_BYTES: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, count, interval] = arguments.as_slice() else {
        return Err("usage: echo ADDRESS COUNT INTERVAL_SECONDS".into());
    };
    let (address, count): (Ipv4Addr, u16) = (address.parse()?, count.parse()?);
    let interval = Duration::try_from_secs_f64(interval.parse()?)?;
    let (raw, icmp) = (SockType::Raw, SockProtocol::Icmp);
    let socket = socket(AddressFamily::Inet, raw, SockFlag::SOCK_CLOEXEC, icmp)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
    let [a, b, c, d] = address.octets();
    let target = SockaddrIn::new(a, b, c, d, 0);
    for sequence in 1..=count {
        let request = request(sequence);
        let start = clock_gettime(ClockId::CLOCK_REALTIME)?;
        sendto(socket.as_raw_fd(), &request, &target, MsgFlags::empty())?;
        if let Some(arrived) = reply(socket.as_raw_fd(), sequence) {
            let ns = (arrived - start).num_nanoseconds();
            println!("seq={sequence} time={}.{:06} ms", ns / 1_000_000, ns % 1_000_000);
        }
        sleep(interval);
    }
    Ok(())
}

/// When the reply with this number came in; `None` if none came within a second.
fn reply(socket: i32, sequence: u16) -> Option<TimeSpec> {
    let mut bytes = [0; 256];
    loop {
        let mut space = [IoSliceMut::new(&mut bytes)];
        let mut control = nix::cmsg_space!(TimeSpec);
        let received =
            recvmsg::<SockaddrIn>(socket, &mut space, Some(&mut control), MsgFlags::empty())
                .ok()?;
        let stamp = received.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => Some(time),
            _ => None,
        });
        let length = received.bytes;
        // An IPv4 header of 20 bytes, then type (0 for a reply), …, sequence number.
        if length >= 28 && bytes[20] == 0 && bytes[26..28] == sequence.to_be_bytes() {
            return stamp;
        }
    }
}

/// An echo request full of zeros.
fn request(sequence: u16) -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    request[0] = 8;
    request[6..8].copy_from_slice(&sequence.to_be_bytes());
    // Only two 16-bit words are not zero, and their sum carries at most once.
    let (sum, carry) = 0x0800_u16.overflowing_add(sequence);
    let checksum = !(sum + u16::from(carry));
    request[2..4].copy_from_slice(&checksum.to_be_bytes());
    request
}
