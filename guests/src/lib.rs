//! QEMU guests, images, consoles, the shell proxy and Tasks.
