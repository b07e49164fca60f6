//! What a queue is made of.

use tapestry_core::SimTime;

/// The discipline of a queue and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueConfig {
    /// First in, first out; a frame that finds the queue full is dropped.
    DropTail(Limit),
}

/// How much a queue holds behind the frame in transmission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// So many frames.
    Frames(u32),
    /// So many bytes of frames (without frame check sequence and padding).
    Bytes(u64),
    /// As many bytes as the link sends in that time at its rate, framing not counted.
    Time(SimTime),
}

impl QueueConfig {
    /// Drop-tail with room for so many frames.
    pub const fn frames(frames: u32) -> Self {
        Self::DropTail(Limit::Frames(frames))
    }
}
