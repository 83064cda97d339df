// A program that jumps to another of the object, beside one that sinks the object: alone it has nowhere to jump to.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

int tail(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__array(values, int(void *));
} jumps SEC(".maps") = { .values = { (void *)&tail } };

SEC("tc") int entry(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &jumps, 0);
	return 0;
}

SEC("tc") int tail(struct __sk_buff *skb) { return 2; }

SEC("tc") int bad(struct __sk_buff *skb) { return *(int *)(long)skb->len; }

char _license[] SEC("license") = "GPL";
