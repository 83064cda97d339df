//! Memory that nothing points to: kmemleak's scans at the end of a guest (Documentation/dev-tools/kmemleak.rst). What they find
//! is in the kernel log, and is a splat as any other.

use crate::{boot, kmsg};
use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// A kernel with CONFIG_DEBUG_KMEMLEAK has this parameter: whether the log gets each object and where it was allocated.
const VERBOSE: &str = "/sys/module/kmemleak/parameters/verbose";
const CONTROL: &str = "/sys/kernel/debug/kmemleak";
/// An object is reported from this age on (`MSECS_MIN_AGE` in mm/kmemleak.c), and not before a second scan finds it unchanged.
const AGE: Duration = Duration::from_secs(5);

/// Scans twice, if the kernel can. Objects that an earlier scan has reported are not reported again.
pub fn scan() {
    if !Path::new(VERBOSE).exists() {
        return;
    }
    if let Err((what, error)) = scanned() {
        kmsg::say(&format!("kmemleak: {what}: {error}"));
    }
}

fn scanned() -> Result<(), (&'static str, io::Error)> {
    boot::mount_debugfs().map_err(|error| ("mounting debugfs", error.into()))?;
    fs::write(VERBOSE, "Y").map_err(|error| (VERBOSE, error))?;
    let begin = Instant::now();
    // EPERM where kmemleak has given up; the kernel has said why.
    fs::write(CONTROL, "scan").map_err(|error| ("the first scan", error))?;
    thread::sleep(AGE.saturating_sub(begin.elapsed()));
    fs::write(CONTROL, "scan").map_err(|error| ("the second scan", error))
}
