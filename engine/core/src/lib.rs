//! Discrete-event kernel: time, units, event queue, simulator loop, clock, named random streams.
