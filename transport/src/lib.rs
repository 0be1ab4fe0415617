//! One send/recv API.
