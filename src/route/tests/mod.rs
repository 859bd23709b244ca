//! What only tests need of route.

mod partition;
