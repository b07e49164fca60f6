//! Cores that do not fall asleep.
//!
//! An idle core takes tens of microseconds to wake up, on a virtual machine more: on a path with
//! delays every frame pays that several times. While `/dev/cpu_dma_latency` is held open with the
//! value 0, idle cores poll instead of sleeping (where the kernel has an idle state that polls). The
//! kernel takes the wish back when the process ends, however it ends.
//!
//! Reference: kernel `Documentation/power/pm_qos_interface.rst`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

use thiserror::Error;

const DEVICE: &str = "/dev/cpu_dma_latency";

/// Idle cores poll as long as this lives. They draw full power, and slow siblings on the same core.
#[derive(Debug)]
pub struct CoresAwake {
    _held: File,
}

/// The cores cannot be kept awake.
#[derive(Debug, Error)]
#[error("--cores-awake: {DEVICE}: {source}; run as root, or leave the option out")]
pub struct AwakeError {
    #[from]
    source: io::Error,
}

impl CoresAwake {
    /// Asks the kernel.
    pub fn new() -> Result<Self, AwakeError> {
        let mut device = OpenOptions::new().write(true).open(DEVICE)?;
        device.write_all(&0_i32.to_ne_bytes())?;
        Ok(Self { _held: device })
    }
}
