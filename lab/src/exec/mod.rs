//! `lab exec`: a command as the cells of a run, and what is told of it.
//!
//! Where to start: [`ExecRequest::cells`] makes cells of a command, [`end`] its exit code. The streams are `run/program/`.

pub mod end;
pub mod request;
mod table;

pub use request::ExecRequest;
pub use table::table;
