// An option that no kernel has.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int CONFIG_LAB_NO_SUCH __kconfig;

SEC("tc") int asks(struct __sk_buff *skb) { return CONFIG_LAB_NO_SUCH; }

char _license[] SEC("license") = "GPL";
