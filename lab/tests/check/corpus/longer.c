// A packet that becomes longer.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc") int encap(struct __sk_buff *skb) { return bpf_skb_adjust_room(skb, 20, 1, 0) ? 2 : 0; }

char _license[] SEC("license") = "GPL";
