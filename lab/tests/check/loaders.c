// What every loader takes: a section that aya knows too, and nothing else.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("classifier") int drops(struct __sk_buff *skb) { return 2; }

char _license[] SEC("license") = "GPL";
