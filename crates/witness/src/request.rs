//! Requests about filters, as rtnetlink has them (include/uapi/linux/rtnetlink.h, pkt_cls.h).

use crate::decode::text;

/// `struct nlmsghdr` and `struct tcmsg`.
const HEADER: usize = 16 + 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
/// `TCM_IFINDEX_MAGIC_BLOCK`: the parent is a shared block.
const BLOCK: u32 = 0xffff_ffff;
/// `TC_H_INGRESS`, which is `TC_H_CLSACT` too: clsact and ingress as a queueing discipline's parent.
const CLSACT: u32 = 0xffff_fff1;
const MAJOR: u32 = 0xffff_0000;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRequest {
    /// `tcm_parent`: which hook.
    pub parent: u32,
    /// `tcm_handle`.
    pub handle: u32,
    /// Priority, 0 where the kernel chooses one or all are meant.
    pub prio: u32,
    /// Whether the classifier is cls_bpf; `None` where the request names none.
    pub is_bpf: Option<bool>,
    /// The program's verdict is the filter's, as on the other hooks.
    pub is_direct: bool,
    /// The filter belongs to a shared block, whose number `parent` is.
    pub is_shared: bool,
}

/// Reads a request of which the first bytes are known.
pub fn filter(bytes: &[u8], length: usize) -> Option<FilterRequest> {
    let bytes = bytes.get(..length.min(bytes.len()))?;
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let mut request = FilterRequest {
        handle: number(24)?,
        parent: number(28)?,
        prio: number(32)? >> 16,
        is_bpf: None,
        is_direct: false,
        is_shared: number(20)? == BLOCK,
    };
    for (kind, value) in attributes(bytes.get(HEADER..)?) {
        match kind {
            TCA_KIND => request.is_bpf = Some(text(value) == "bpf"),
            TCA_OPTIONS => {
                let flags = attributes(value).find(|(kind, _)| *kind == TCA_BPF_FLAGS);
                let flags = flags.and_then(|(_, value)| Some(u32::from_le_bytes(value.get(..4)?.try_into().ok()?)));
                request.is_direct = flags.is_some_and(|flags| flags & TCA_BPF_FLAG_ACT_DIRECT != 0);
            }
            _ => {}
        }
    }
    Some(request)
}

impl FilterRequest {
    /// The priority that the kernel chose, where it said so.
    pub const fn with_priority(mut self, prio: u32) -> Self {
        if prio != 0 {
            self.prio = prio;
        }
        self
    }

    /// The hook's name.
    pub fn hook(&self) -> String {
        hook_of_parent(self.parent, self.is_shared)
    }

    /// Whether deleting the queueing discipline of this request deletes filters of this parent.
    pub const fn takes(&self, parent: u32) -> bool {
        if self.parent == CLSACT { parent & MAJOR == MAJOR } else { parent & MAJOR != MAJOR }
    }
}

/// The name of a filter's hook: clsact and ingress have fixed parents, any other is a class or queueing discipline.
pub fn hook_of_parent(parent: u32, is_shared: bool) -> String {
    match parent {
        block if is_shared => format!("block {block}"),
        // `TC_H_MIN_INGRESS`; the ingress queueing discipline takes its own handle too.
        0xffff_fff2 | 0xffff_0000 => "clsact/ingress".to_owned(),
        0xffff_fff3 => "clsact/egress".to_owned(),
        other => format!("qdisc {:x}:{:x}", other >> 16, other & 0xffff),
    }
}

/// Attributes, up to the first that ends early; the last one is cut where the bytes end.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_le_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?) & 0x3fff;
        if length < 4 {
            return None;
        }
        let value = rest.get(4..length.min(rest.len()))?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}
