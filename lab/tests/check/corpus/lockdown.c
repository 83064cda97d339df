// Writes a process's memory, which a kernel that is locked down does not allow (LOCKDOWN_BPF_WRITE_USER, since 5.14).
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("raw_tracepoint/sys_enter") int writes(struct bpf_raw_tracepoint_args *context)
{
	__u64 word = 0;

	return bpf_probe_write_user((void *)context->args[0], &word, sizeof(word));
}

char _license[] SEC("license") = "GPL";
