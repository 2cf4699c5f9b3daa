/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "holder/protocol.h"
#include "util/fdmsg.h"

/*
 * The holder's end of the link to the broker: messages in and out, loss, reconnection. One thread runs link_run(), any
 * thread may send.
 */
struct link;

struct link_message {
        struct link_header header;
        const void *payload;            /* aligned for every struct of the protocol; valid during the handler */
        size_t size;                    /* of the payload */
        int fds[FDMSG_MAX_FDS];         /* -1 after the last; what the handler leaves here is closed */
        size_t n_fds;
};

enum link_verdict {
        LINK_GO_ON,
        LINK_DOES_NOT_FIT,              /* against the protocol: this link is over, connect again */
        LINK_STOP,                      /* the holder's life is over */
};

struct link_handler {
        enum link_verdict (*message)(void *userdata, struct link_message *m);
        void (*lost)(void *userdata);   /* the link broke; link_run() will try to reconnect. NULL: do nothing */
        void *userdata;
};

/* Why link_run() came back. */
enum link_outcome {
        LINK_ENDED_BY_HANDLER,
        LINK_ENDED_UNUSED,              /* the link closed before there was a connection to serve */
        LINK_ENDED_ORPHANED,            /* without a broker for orphan_seconds */
};

/* Takes the fd. Its peer, and that of every later connection, must have uid broker_uid: -EPERM. -EINVAL: no
 * SOCK_SEQPACKET. 0 or -errno; on failure the fd is closed too. */
int link_new(int *fd, uid_t broker_uid, struct link **ret);
struct link *link_free(struct link *l);
int link_fd(const struct link *l);      /* borrowed; for who serves it without link_run() */

/* Waits for LINK_SETUP. 0, -ETIMEDOUT, -EPROTO when something else came, or -errno. */
int link_receive_setup(struct link *l, unsigned timeout_ms, struct link_setup *ret);

/* Says hello: the answer to LINK_SETUP, once the sandbox is closed. Later hellos are said by link_run(). */
struct link_facts {                     /* of struct link_hello, what does not change */
        uint64_t session;
        uint8_t secret[LINK_SECRET_BYTES];
        uint32_t cgroup_joined, sandboxed;
        uint32_t orphan_seconds;
        char reconnect[LINK_PATH_MAX];
};
int link_hello(struct link *l, const struct link_facts *facts, uint64_t (*last_seq)(void *userdata), void *userdata);

/* From here on a loss is survived: there is a connection to serve. */
void link_set_live(struct link *l);

/* Serves until the handler says LINK_STOP or nobody is left to serve. */
enum link_outcome link_run(struct link *l, const struct link_handler *handler);

/* Sends one message: a struct link_header and what follows it. The fds stay the caller's. 0, or -errno when there is no
 * link or it just broke; what was to be said is then learnt after the reconnection (results, hello, dump). Thread-safe;
 * waits while the broker does not read, but not for ever: a link that takes nothing for 10 s counts as lost. */
int link_send(struct link *l, const void *message, size_t size, const int *fds, size_t n_fds);

/* The client is gone: says LINK_CLIENT_GONE now, and again in every hello. */
void link_client_gone(struct link *l);

/* Fills in a header. */
struct link_header link_header_make(enum link_type type, uint64_t seq, uint64_t domain);
