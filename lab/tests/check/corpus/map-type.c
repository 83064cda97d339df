// An arena, since 6.9.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, 33);
	__uint(map_flags, 1 << 10);
	__uint(max_entries, 1);
} arena SEC(".maps");

// The verifier takes a program's arena from the instructions that load its address.
SEC("tc") int uses(struct __sk_buff *skb)
{
	void *address = &arena;

	asm volatile("" : "+r"(address));
	return 0;
}

char _license[] SEC("license") = "GPL";
