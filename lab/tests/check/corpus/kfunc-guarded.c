// A kfunc that no kernel has, weak and asked for.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int bpf_lab_no_such(struct __sk_buff *skb) __ksym __weak;

SEC("tc") int calls(struct __sk_buff *skb) { return bpf_ksym_exists(bpf_lab_no_such) ? bpf_lab_no_such(skb) : 0; }

char _license[] SEC("license") = "GPL";
