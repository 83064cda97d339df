// A static function in a section of programs.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc") static __attribute__((noinline)) int helper(struct __sk_buff *skb)
{
	asm volatile("");
	return skb->len > 1000 ? 2 : 0;
}

SEC("tc") int calls(struct __sk_buff *skb) { return helper(skb); }

char _license[] SEC("license") = "GPL";
