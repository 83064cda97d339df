// Reads the kernel's memory, which a kernel that is locked down for confidentiality does not allow.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("raw_tracepoint/sys_enter") int reads(struct bpf_raw_tracepoint_args *context)
{
	__u64 word = 0;

	return bpf_probe_read_kernel(&word, sizeof(word), (void *)context->args[0]) + word;
}

char _license[] SEC("license") = "GPL";
