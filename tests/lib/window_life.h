/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "job.h"

/*
 * A thread that does with the windows of a domain everything that there is to do, over and over: the default one removed with
 * what is mapped in it, others created, mapped in and removed, everything reset. The domain and its client are its own: the SDK
 * repeats what a restart of the service interrupts, and every call must work.
 */
struct window_life {
        struct job *job;
        pthread_t thread;
        atomic_bool stop, failed;
        atomic_ulong rounds;
        int error;                      /* that it failed with */
        char text[512];
};

void window_life_start(struct window_life *l, struct job *job);
/* Waits for the end of the round it is in, unless it failed. */
void window_life_stop(struct window_life *l);
