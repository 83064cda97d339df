//! Runs a plan: [`session`] drives one guest, [`kernel`] all guests of one kernel, [`dispatch`] all kernels.

mod autopsy;
pub mod common;
pub mod console;
pub mod deadline;
pub mod dispatch;
mod drawing;
pub(crate) mod evidence;
pub mod held;
mod isolation;
pub mod judge;
pub mod kernel;
mod left;
pub mod order;
pub mod program;
pub mod queue;
pub mod rehearse;
pub mod reuse;
pub mod room;
pub mod session;
mod setup;
pub mod splat;
pub mod timing;
pub mod visit;
pub mod visitor;
mod warm;

#[cfg(any(test, feature = "testing"))]
pub use drawing::only_draws;
#[cfg(any(test, feature = "testing"))]
pub use session::caps::report as cut_report;
pub(crate) use session::caps::witness as cut_account;

#[cfg(test)]
mod tests;
