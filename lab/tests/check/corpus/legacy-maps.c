// Maps as iproute2 wrote them.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct bpf_map_def {
	unsigned int type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def SEC("maps") old = { .type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1 };

SEC("tc") int looks(struct __sk_buff *skb)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&old, &key) ? 0 : 2;
}

char _license[] SEC("license") = "GPL";
