// A map of maps, whose inner maps check.toml makes and fills.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 8);
	__type(key, __u32);
	__array(values, struct inner);
} tenants SEC(".maps");

// The object does not say what its inner maps are.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__uint(value_size, 4);
} shards SEC(".maps");

static int verdict_of(void *map)
{
	__u32 key = 7, *value = map ? bpf_map_lookup_elem(map, &key) : 0;

	return value ? *value : 0;
}

SEC("tc") int by_tenant(struct __sk_buff *skb)
{
	__u32 key = 9;

	return verdict_of(bpf_map_lookup_elem(&tenants, &key));
}

SEC("tc") int by_shard(struct __sk_buff *skb)
{
	__u32 key = 1;

	return verdict_of(bpf_map_lookup_elem(&shards, &key));
}

char _license[] SEC("license") = "GPL";
