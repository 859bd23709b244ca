//! Configuration: files in, one resolved [`Config`] out, or every problem at once with its place.

mod model;

pub use model::*;
