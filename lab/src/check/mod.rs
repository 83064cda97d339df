//! `lab check`: objects as cells, and what their loader found out.
//!
//! A cell is one object on one kernel: a program ([`crate::project::loader`]) that gets the object and what is expected of it in a
//! bundle, and writes facts to its standard output. [`lab_check`] says what the facts mean; guest and host use the same code.

mod against;
mod answers;
mod bundle;
mod config;
pub mod corpus;
mod inputs;
mod loaders;
pub mod predict;
mod table;

pub use against::{Changed, Earlier, lines};
pub use answers::{CheckAnswer, answers};
pub use bundle::{Bundles, CheckPlan};
pub use config::{CheckConfig, Conditional};
pub use inputs::{CheckInput, InputError, inputs};
pub use loaders::{AskedLoader, ChosenLoader, LoaderError, choose};
pub use table::{Beside, Told, json, told};
