//! Counters that a namespace's own protocols keep.

use lab_topology::Netns;
use std::{fs, io};

/// Where the counters are, for the thread's namespace: two lines for each group, names and values.
const COUNTERS: &str = "/proc/thread-self/net/netstat";

/// SYNs that this namespace has sent again since it was made (`TCPSynRetrans`, `LINUX_MIB_TCPSYNRETRANS` in
/// `__tcp_retransmit_skb()`): a guest that stands still for a second (`TCP_TIMEOUT_INIT`) repeats one.
///
/// # Errors
/// The counters can't be read, or the kernel has no such one.
pub fn repeated_syns(ns: &Netns) -> io::Result<u64> {
    let text = ns.run(|| fs::read_to_string(COUNTERS))?;
    counter(&text, "TcpExt:", "TCPSynRetrans")
        .ok_or_else(|| io::Error::other(format!("no TCPSynRetrans in {COUNTERS}")))
}

fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group)).map(str::split_whitespace);
    let (mut names, mut values) = (lines.next()?, lines.next()?);
    let at = names.position(|found| found == name)?;
    values.nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "TcpExt: SyncookiesSent TCPSynRetrans\nTcpExt: 0 17\nIpExt: InNoRoutes TCPSynRetrans\nIpExt: 3 4\n";
        assert_eq!(counter(text, "TcpExt:", "TCPSynRetrans"), Some(17));
        assert_eq!(counter(text, "IpExt:", "InNoRoutes"), Some(3));
        assert_eq!(counter(text, "TcpExt:", "InNoRoutes"), None);
        assert_eq!(counter("TcpExt: TCPSynRetrans\n", "TcpExt:", "TCPSynRetrans"), None);
    }
}
