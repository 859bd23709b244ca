//! Tests of the listener as a whole.
