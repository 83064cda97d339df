// A section whose name says no type.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("classifier/ingress/drop") int drops(struct __sk_buff *skb) { return 2; }

char _license[] SEC("license") = "GPL";
