// SPDX-License-Identifier: GPL-2.0
/* Takes two mutexes in one order and then in the other, in one thread: nothing blocks, and only lockdep tells. */
#include <linux/module.h>
#include <linux/mutex.h>

static DEFINE_MUTEX(lab_first);
static DEFINE_MUTEX(lab_second);

static noinline void lab_in_order(void)
{
	mutex_lock(&lab_first);
	mutex_lock(&lab_second);
	mutex_unlock(&lab_second);
	mutex_unlock(&lab_first);
}

static noinline void lab_inverted(void)
{
	mutex_lock(&lab_second);
	mutex_lock(&lab_first);
	mutex_unlock(&lab_first);
	mutex_unlock(&lab_second);
}

static int __init lab_lock_inversion_init(void)
{
	lab_in_order();
	lab_inverted();
	return 0;
}

static void __exit lab_lock_inversion_exit(void)
{
}

module_init(lab_lock_inversion_init);
module_exit(lab_lock_inversion_exit);
MODULE_DESCRIPTION("takes two locks in both orders");
MODULE_LICENSE("GPL");
