// A kfunc that no kernel has.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int bpf_lab_no_such(struct __sk_buff *skb) __ksym;

SEC("tc") int calls(struct __sk_buff *skb) { return bpf_lab_no_such(skb); }

char _license[] SEC("license") = "GPL";
