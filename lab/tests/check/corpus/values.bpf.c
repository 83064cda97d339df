// What check.toml sets: variables, a map's contents, a slot. Variables are found whatever dots the names of the object and of its
// sections have.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

const volatile int verdict = 0;
int limit = 0;
int least SEC(".data.own") = 1;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 4);
} jumps SEC(".maps");

SEC("tc") int by_variable(struct __sk_buff *skb) { return verdict; }

SEC("tc") int by_data(struct __sk_buff *skb) { return skb->len > limit ? 0 : 2; }

SEC("tc") int by_own_section(struct __sk_buff *skb) { return skb->len < least ? 2 : 0; }

SEC("tc") int by_map(struct __sk_buff *skb)
{
	__u32 key = 0, *value = bpf_map_lookup_elem(&table, &key);

	return value && *value == 0x0201 ? 2 : 0;
}

SEC("tc") int by_slot(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jumps, 3);
	return 0;
}

SEC("tc") int drops(struct __sk_buff *skb) { return 2; }

char _license[] SEC("license") = "GPL";
