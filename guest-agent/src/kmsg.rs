//! Marks in the kernel log, so that a splat can be attributed to the case it fell into.

use std::{fs::OpenOptions, io::Write};

/// Writes one line to /dev/kmsg; where that fails there is nobody left to tell.
pub fn say(line: &str) {
    if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // One write is one record; level 4 (warning) passes the console's threshold.
        let _ = kmsg.write_all(format!("<4>netkit-lab: {line}\n").as_bytes());
    } else {
        println!("netkit-lab: {line}");
    }
}
