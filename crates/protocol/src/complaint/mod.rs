//! Splats: the headers at the start of a log record, and where a splat ends.
//! Both sides use this code: the agent reads the kernel log and only sends splats to the host; the host reads the
//! console, which is the only source after a crash. Only the kernel's own headers at the start of a record count, so
//! that a case that logs the word "warning" is ignored.

mod class;
mod scan;

pub use class::SplatClass;
pub use scan::{CUT_HERE, MARK, MOST_LINES, record, scan};
