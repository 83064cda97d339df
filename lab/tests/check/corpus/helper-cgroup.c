// A helper that mainline has since 6.2: bpf_cgrp_storage_delete, number 211, reached behind a comparison of a byte of the packet.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static long (*lab_helper_211)(void *map, void *cgroup) = (void *)211;

SEC("tc") int calls(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + 34 > end)
		return 0;
	if (*(__u8 *)(data + 23) == 99)
		return lab_helper_211(data, end);
	return 0;
}

char _license[] SEC("license") = "GPL";
