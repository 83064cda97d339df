// The same, with a question before it.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

enum bpf_map_type___lab {
	BPF_MAP_TYPE_ARENA___lab = 99,
};

SEC("tc") int asks(struct __sk_buff *skb)
{
	if (!bpf_core_enum_value_exists(enum bpf_map_type___lab, BPF_MAP_TYPE_ARENA___lab))
		return 0;
	return bpf_core_enum_value(enum bpf_map_type___lab, BPF_MAP_TYPE_ARENA___lab) == 33 ? 0 : 2;
}

char _license[] SEC("license") = "GPL";
