// A field that no kernel has, in a function that is called.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct task_struct {
	int lab_no_such;
} __attribute__((preserve_access_index));

static __attribute__((noinline)) int look(struct __sk_buff *skb)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	int value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), &task->lab_no_such);
	return value;
}

SEC("tc") int calls(struct __sk_buff *skb) { return look(skb); }

char _license[] SEC("license") = "GPL";
