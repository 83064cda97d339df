// Types of attachment that came with 6.6 and 6.7, which no kernel compares when a classifier is loaded.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tcx/egress") int out(struct __sk_buff *skb) { return 0; }

SEC("netkit/peer") int in(struct __sk_buff *skb) { return 0; }

char _license[] SEC("license") = "GPL";
