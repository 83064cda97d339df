// A program that sinks the object: its type can't call the helper.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp") int sinks(struct xdp_md *md) { return bpf_redirect_peer(13, 0); }

SEC("tc") int fine(struct __sk_buff *skb) { return 0; }

char _license[] SEC("license") = "GPL";
