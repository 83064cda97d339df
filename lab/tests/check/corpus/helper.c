// A helper that no kernel has.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static int (*lab_no_such)(void) = (void *)5000;

SEC("tc") int calls(struct __sk_buff *skb) { return lab_no_such(); }

char _license[] SEC("license") = "GPL";
