//! Running: one guest ([`session`]), all guests of one kernel ([`kernel`]), all kernels ([`dispatch`]).

mod autopsy;
pub mod common;
pub mod console;
pub mod deadline;
pub mod dispatch;
mod evidence;
#[cfg(test)]
mod fuzz;
mod isolation;
pub mod judge;
pub mod kernel;
pub mod order;
pub mod queue;
pub mod room;
pub mod session;
pub mod splat;
pub mod timing;
pub mod visit;
pub mod visitor;
mod warm;

#[cfg(test)]
mod tests;
