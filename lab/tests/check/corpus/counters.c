// Counts packets and bytes, on each processor and altogether, and twice at egress.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct totals {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct totals);
} per_processor SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} by_protocol_of_the_network SEC(".maps");

SEC("tc") int counts(struct __sk_buff *skb)
{
	__u32 zero = 0, protocol = skb->protocol;
	__u64 one = 1, *seen = bpf_map_lookup_elem(&by_protocol_of_the_network, &protocol);
	struct totals *totals = bpf_map_lookup_elem(&per_processor, &zero);

	if (totals) {
		totals->packets++;
		totals->bytes += skb->len;
	}
	if (seen)
		__sync_fetch_and_add(seen, 1);
	else
		bpf_map_update_elem(&by_protocol_of_the_network, &protocol, &one, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
