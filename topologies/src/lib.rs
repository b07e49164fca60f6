//! The topology file: parse, resolve, diagnostics, schema.
