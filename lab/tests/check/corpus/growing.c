// Loops, so that there are instructions to count.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc") int counts(struct __sk_buff *skb)
{
	__u32 sum = 0;
	__u8 byte;

	for (int i = 0; i < 22; i++)
		if (!bpf_skb_load_bytes(skb, i, &byte, 1))
			sum += byte;
	return sum == 0x12345 ? 2 : 0;
}

char _license[] SEC("license") = "GPL";
