// A packet that becomes longer, behind its first header and at its end.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc") int encap(struct __sk_buff *skb) { return bpf_skb_adjust_room(skb, 20, 1, 0) ? 2 : 0; }

SEC("tc") int append(struct __sk_buff *skb) { return bpf_skb_change_tail(skb, skb->len + 4, 0) ? 2 : 0; }

char _license[] SEC("license") = "GPL";
