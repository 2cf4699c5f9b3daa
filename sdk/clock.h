/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>
#include <time.h>

/* Deadlines inside the SDK are milliseconds of CLOCK_MONOTONIC. */

static inline int64_t clock_now(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Milliseconds left, never negative, never more than an int has room for (poll). */
static inline int clock_left(int64_t deadline) {
        int64_t left = deadline - clock_now();

        if (left < 0)
                return 0;
        return left > INT32_MAX ? INT32_MAX : (int)left;
}

static inline struct timespec clock_timespec(int64_t deadline) {
        return (struct timespec){ .tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000 };
}

static inline void clock_sleep(int64_t milliseconds) {
        struct timespec t = clock_timespec(milliseconds);

        /* a signal may cut it short: every caller sleeps in a loop */
        nanosleep(&t, NULL);
}
