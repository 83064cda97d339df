// A symbol that no kernel has.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern const void lab_no_such_symbol __ksym;

SEC("tc") int asks(struct __sk_buff *skb) { return (long)&lab_no_such_symbol & 1; }

char _license[] SEC("license") = "GPL";
