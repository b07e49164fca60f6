//! QEMU guests, images, consoles, the shell proxy and Tasks.

pub mod accel;
pub mod image;
pub mod qemu;
pub mod console;
pub mod netns;
pub mod os;
pub mod shell;
pub mod task;
