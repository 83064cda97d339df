// Lets every packet go on. WHERE is the section, by which libbpf knows the attach type.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC(WHERE) int let_pass(struct __sk_buff *skb) { return -1; }

char _license[] SEC("license") = "GPL";
