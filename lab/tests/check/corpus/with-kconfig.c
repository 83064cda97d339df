// An option and a version that every kernel has.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int CONFIG_HZ __kconfig;
extern int LINUX_KERNEL_VERSION __kconfig;

SEC("tc") int asks(struct __sk_buff *skb) { return CONFIG_HZ > 0 && LINUX_KERNEL_VERSION > 0 ? 0 : 2; }

char _license[] SEC("license") = "GPL";
