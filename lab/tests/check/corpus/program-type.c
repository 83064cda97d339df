// A program for netfilter, since 6.4.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("netfilter") int filters(void *context) { return 1; }

char _license[] SEC("license") = "GPL";
