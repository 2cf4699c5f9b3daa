/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

struct broker_options;

/* Starts a holder: by connecting to the service manager's Accept=yes socket (each connection becomes a unit of its own), or
 * by forking one. Returns our end of the link, the caller's, or -errno. *ret_pid: the child, or 0 when the service manager
 * started it. */
int holder_start(const struct broker_options *options, uint32_t *ret_pid);

#define HOLDER_ARGUMENTS 2
/* A socketpair whose other end is fd 3 of a new process of that program, with these arguments (NULL: none). Our end, or
 * -errno. */
int holder_spawn(const char *program, const char *const arguments[HOLDER_ARGUMENTS], uint32_t *ret_pid);

/* The pidfd of a holder that says to be pid and should run as uid (UINT32_MAX: as we do). *ret_start_time: /proc/PID/stat
 * field 22. -ESRCH if there is none, -EPERM if it is somebody else's process. */
int holder_identify(uint32_t pid, uint32_t uid, uint64_t *ret_start_time);

/* SIGKILL, through the pidfd. */
void holder_kill(int pidfd);
/* Waits for its end, reaps it if it was our child. False: still there after so long. */
int holder_wait(int pidfd, int timeout_ms);
