//! What people and CI systems read, through the binary and the CI steps: words, screens and reports.

mod ci;
mod support;
