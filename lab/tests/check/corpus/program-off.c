// A program of a type that came with 6.4, which is not loaded unless somebody asks for it.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("?netfilter") int filters(void *context) { return 1; }

SEC("tc") int passes(struct __sk_buff *skb) { return 0; }

char _license[] SEC("license") = "GPL";
