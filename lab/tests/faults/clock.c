// A wall clock that jumps a day ahead, three years back and on again, at every other look. The monotonic clock is left
// alone, as it is on a host whose time is set.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    static unsigned looks;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME)
        switch (__atomic_fetch_add(&looks, 1, __ATOMIC_RELAXED) / 2 % 3) {
        case 0: now->tv_sec += 24 * 3600; break;
        case 1: now->tv_sec -= 3L * 365 * 24 * 3600; break;
        }
    return result;
}
