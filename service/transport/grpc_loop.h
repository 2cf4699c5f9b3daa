/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <grpc/grpc.h>
#include <stdbool.h>

#include "dispatch/arena.h"

/*
 * Completion queues and the threads that serve them, and one more thread for calls that may wait for a disk or a
 * helper.
 *
 * A tag is an object with a function; it is given to gRPC with grpc_loop_give() and comes back once, on some worker.
 */
struct grpc_loop;

struct grpc_loop_tag {
        /* arena: the worker's scratch memory, empty, reset when the function returns */
        void (*complete)(struct grpc_loop_tag *tag, bool ok, struct arena *arena);
};

struct grpc_loop_job {
        void (*run)(struct grpc_loop_job *job, struct arena *arena);
        struct grpc_loop_job *next;
};

/* threads workers on queues shared queues (queues divides threads). 0 or -errno. */
int grpc_loop_new(unsigned threads, unsigned queues, struct grpc_loop **ret);
int grpc_loop_start(struct grpc_loop *l);

/* Ends the threads once nothing is left to complete: every server was destroyed, every call released. NULL is fine. */
struct grpc_loop *grpc_loop_free(struct grpc_loop *l);

/* A queue for a new server and all of its calls. */
grpc_completion_queue *grpc_loop_queue(struct grpc_loop *l);

/* Runs the job on the thread for slow calls, in order. */
void grpc_loop_defer(struct grpc_loop *l, struct grpc_loop_job *job);

/* The pointer to hand to gRPC as tag. */
void *grpc_loop_give(struct grpc_loop_tag *tag);
