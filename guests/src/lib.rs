//! QEMU guests, images, consoles, the shell proxy and Tasks.

pub mod accel;
pub mod console;
pub mod image;
pub mod netns;
pub mod os;
pub mod qemu;
pub mod schedule;
pub mod shell;
pub mod task;
