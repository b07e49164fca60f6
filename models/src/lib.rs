//! Frames, channels and queues as pure state machines.
