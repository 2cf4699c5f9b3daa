/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

/*
 * The loop thread: reads links that nobody else reads, and accepts holders that come back. It waits for the disk
 * only where a session begins or comes back, never for a client's operation.
 */
struct loop;
struct holder_link;

/* Accepts on listen_fd (-1: none); greet(arg, fd) is called with a connection that has said something or was hung up, and
 * takes the fd. So many connections may be silent; one more, and the oldest of them is closed: whoever it was comes again. */
#define LOOP_GUESTS_MAX 64U
int loop_new(int listen_fd, void (*greet)(void *arg, int fd), void *arg, struct loop **ret);
int loop_start(struct loop *l);
void loop_stop(struct loop *l);         /* joins the thread */
struct loop *loop_free(struct loop *l);

/* A link is armed when it is to be reported once; the loop holds a reference on it while it is watched. */
int loop_watch(struct loop *l, struct holder_link *link, int fd);
void loop_arm(struct loop *l, struct holder_link *link, int fd);
void loop_disarm(struct loop *l, struct holder_link *link, int fd);
void loop_unwatch(struct loop *l, struct holder_link *link, int fd);
