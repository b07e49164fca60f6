//! The bare forwarder: what the kernel's TAP interface allows to a single thread.
//!
//! Purpose: the yardstick beside which the data plane is measured. One thread, epoll, one `read`
//! and one `write` a frame, no model, no accounting, no timing. Frames read from one end of a link
//! are written to the other.
//!
//! Usage: `bare A:B [A:B …]` where A and B are inherited file descriptors of TAPs, one pair a link.
//! Ends when its standard input ends.

use std::io::Read;
use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Frames forwarded from one TAP before the next gets its turn, as a careful program would.
const BURST: usize = 64;

#[allow(unsafe_code)]
fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the parent passed this descriptor for us to use; nothing here closes it.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn main() {
    let mut pairs: Vec<(RawFd, RawFd)> = Vec::new();
    for argument in std::env::args().skip(1) {
        let parsed =
            argument.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let Some((a, b)) = parsed else {
            eprintln!("bare: expected A:B, two inherited file descriptors; found {argument:?}");
            std::process::exit(2);
        };
        pairs.extend([(a, b), (b, a)]);
    }
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let fail = |what: &str, errno: Errno| -> ! {
        eprintln!("bare: {what}: {errno}");
        std::process::exit(1);
    };
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap_or_else(|e| fail("epoll_create", e));
    for (i, (from, _)) in pairs.iter().enumerate() {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, i as u64);
        epoll.add(borrow(*from), event).unwrap_or_else(|e| fail("epoll_ctl", e));
    }
    let mut events = vec![EpollEvent::empty(); pairs.len().max(1)];
    let mut frame = vec![0u8; 65_536];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(errno) => fail("epoll_wait", errno),
        };
        for event in &events[..ready] {
            let (from, to) = pairs[event.data() as usize];
            for _ in 0..BURST {
                match nix::unistd::read(borrow(from), &mut frame) {
                    Ok(length) => {
                        let _ = nix::unistd::write(borrow(to), &frame[..length]);
                    }
                    Err(_) => break,
                }
            }
        }
    }
}
