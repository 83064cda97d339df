//! Objects in the kernel's memory that no list has, counted by their slab caches.

use std::{fs, io};

/// A cache of the kernel's allocator that is never merged with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlabCache {
    /// `struct sk_buff` (`skb_init()`, net/core/skbuff.c).
    Packets,
    /// `struct net` (`net_ns_init()`, net/core/net_namespace.c). Since "net: defer final 'struct net' free in netns dismantle" those
    /// of the last clean-up stay until the next one, so that there are a few more than namespaces.
    Namespaces,
}

impl SlabCache {
    const fn name(self) -> &'static str {
        match self {
            Self::Packets => "skbuff_head_cache",
            Self::Namespaces => "net_namespace",
        }
    }

    /// Number of its objects that are in use.
    ///
    /// Free objects in the slabs that processors hold count as used (`get_slabinfo()`, mm/slub.c); shrinking the cache returns them
    /// first.
    ///
    /// # Errors
    /// The kernel has no such files (`CONFIG_SLUB_DEBUG`), or no cache of that name.
    pub fn used(self) -> io::Result<u64> {
        let name = self.name();
        fs::write(format!("/sys/kernel/slab/{name}/shrink"), "1")?;
        used_in(&fs::read_to_string("/proc/slabinfo")?, name)
            .ok_or_else(|| io::Error::other(format!("/proc/slabinfo has no {name}")))
    }
}

/// The second column of a cache's line in /proc/slabinfo.
fn used_in(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().map(str::split_whitespace);
    words.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_of_used_objects_is_read() {
        let text = "slabinfo - version: 2.1\n# name            <active_objs> <num_objs>\n\
                    net_namespace         14     21   4352    7    8\nskbuff_head_cache    320    416    256\n";
        assert_eq!(used_in(text, "net_namespace"), Some(14));
        assert_eq!(used_in(text, "skbuff_head_cache"), Some(320));
        assert_eq!(used_in(text, "skbuff"), None);
    }
}
