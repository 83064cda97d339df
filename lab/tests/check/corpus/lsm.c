// A hook of the Linux security modules that no kernel has.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("lsm/lab_no_such_hook") int decides(void *context) { return 0; }

char _license[] SEC("license") = "GPL";
