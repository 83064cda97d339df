//! What the scenarios of the faults are played by, as far as an attack has it.

use crate::fake::Scenario;

/// A scenario under a name.
pub struct Fault {
    /// Its name.
    pub name: &'static str,
    /// What its guests do.
    pub how: How,
}

/// How a fault is injected.
pub enum How {
    /// By a script.
    Fake(fn() -> Scenario),
    /// In another way, which no attack has.
    #[allow(dead_code, reason = "a match on it has another arm")]
    Real,
}
