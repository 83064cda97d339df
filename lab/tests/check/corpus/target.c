// A function that no kernel has.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("fentry/lab_no_such_function") int watches(void *context) { return 0; }

char _license[] SEC("license") = "GPL";
