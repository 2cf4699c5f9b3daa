/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <sys/types.h>

#include "bind/bind_protocol.h"
#include "bind/driver.h"

/*
 * One request on one connection.
 */
struct serve_options {
        struct driver_tree tree;
        const char *allow_file;
        uid_t broker_uid;               /* who may ask */
        unsigned deadline_seconds;      /* for the kernel to do it */
};

/* Decides and does what was asked. Fills the answer in every case; may block for ever (driver.h). */
void serve_request(const struct serve_options *o, const struct bind_request *q, struct bind_answer *ret);

/* The whole: who asks, receive, do it within the deadline, answer. 0 when an answer was sent, whatever it was. */
int serve_connection(const struct serve_options *o, int fd);
