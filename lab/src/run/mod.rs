//! Running: one guest ([`session`]), all guests of one kernel ([`kernel`]), all kernels ([`dispatch`]).

pub mod console;
pub mod dispatch;
pub mod kernel;
pub mod session;
pub mod splat;
pub mod timing;

#[cfg(test)]
mod tests;
