// SPDX-License-Identifier: GPL-2.0
/* Loses the only pointers to a few objects: without kmemleak nobody knows. */
#include <linux/module.h>
#include <linux/slab.h>

#define LAB_OBJECTS 8

static noinline int lab_lose(void)
{
	/* Several, since the address of the last one may stay in a register or on a stack. */
	for (int i = 0; i < LAB_OBJECTS; i++) {
		unsigned long *object = kzalloc(320, GFP_KERNEL);

		if (!object)
			return -ENOMEM;
		OPTIMIZER_HIDE_VAR(object);
		WRITE_ONCE(object[0], i);
	}
	return 0;
}

static int __init lab_leak_init(void)
{
	return lab_lose();
}

static void __exit lab_leak_exit(void)
{
}

module_init(lab_leak_init);
module_exit(lab_leak_exit);
MODULE_DESCRIPTION("loses the only pointers to a few objects");
MODULE_LICENSE("GPL");
