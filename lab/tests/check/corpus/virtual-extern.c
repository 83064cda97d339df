// A value that libbpf would have to make up.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int LINUX_LAB_NO_SUCH __kconfig;

SEC("tc") int asks(struct __sk_buff *skb) { return LINUX_LAB_NO_SUCH; }

char _license[] SEC("license") = "GPL";
