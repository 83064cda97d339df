// A number as an address, beside a program that loads alone.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc") int bad(struct __sk_buff *skb) { return *(int *)(long)skb->len; }

SEC("tc") int good(struct __sk_buff *skb) { return 0; }

char _license[] SEC("license") = "GPL";
