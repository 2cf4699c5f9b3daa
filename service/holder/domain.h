/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "holder/object.h"
#include "holder/protocol.h"

/*
 * A domain as it is applied: its exact mappings, one container for each IOMMU group (I7), its attachments. Mappings are
 * recorded while there is no container, and replayed into each one that comes.
 *
 * Not thread-safe: everything runs inside the domain's worker (holder/worker.h). Functions that can refuse return 0, or
 * -1 with *r filled and nothing changed, unless *ret_undo_failed says that a part could not be undone; then the domain
 * is quarantined: it takes nothing new.
 */
struct domain;

/* The answer to domain_request_fd(), now or later. fd: the callee's to send, closed afterwards by the domain; -1 with a
 * refusal. */
struct domain_fd_answer {
        uint64_t cookie, attachment;
        int fd;
        enum device_fd_kind kind;
        const struct refusal *refusal;  /* NULL: here it is */
};

struct domain_events {
        void (*fd_answered)(void *userdata, const struct domain_fd_answer *a);
        /* An attachment is about to end; seq is the operation that made it. */
        void (*detaching)(void *userdata, uint64_t attachment, uint64_t seq);
        /* A container was made, in which nothing is mapped yet, and this fd of its is for the broker (container_revoker_fd());
         * borrowed. Only where the backend has one. */
        void (*revoker)(void *userdata, uint32_t group, int fd);
        void *userdata;
};

/* objects and what events refers to outlive it. NULL when memory is out. */
struct domain *domain_new(uint64_t id, struct objects *objects, const struct soft_personality *soft,
                          const struct domain_events *events);
struct domain *domain_free(struct domain *d);           /* unmaps and detaches what is left. Returns NULL */

uint64_t domain_id(const struct domain *d);
void domain_info(const struct domain *d, struct container_info *ret);   /* of all containers; zero when there is none */

/* fds: container, group where the backend has them; those that it takes are set to -1. *ret_keeper_fd: borrowed from
 * the attachment, -1 when the backend has none. seq: of the operation, for events.detaching(). */
int domain_attach(struct domain *d, const struct link_attach *a, uint64_t seq, int fds[2], int *ret_keeper_fd,
                  struct refusal *r);
int domain_detach(struct domain *d, uint64_t attachment, struct refusal *r);
bool domain_has_attachment(const struct domain *d, uint64_t attachment);

/* The broker holds what revokes this attachment: its device fd may go out, and does if it was asked for. */
void domain_ack(struct domain *d, uint64_t attachment);
/* The broker is gone, and with it what it held: no device fd that needs a keeper goes out until the next ack. */
void domain_unack(struct domain *d);
/* The client asks for its device fd. Answered once; while unacked one request per attachment waits. */
void domain_request_fd(struct domain *d, uint64_t attachment, uint64_t cookie);

/* All or nothing; r->element says which entry was refused. */
int domain_map(struct domain *d, const struct link_map_entry *entries, size_t n, bool *ret_undo_failed,
               struct refusal *r);
/* Exact earlier mappings; none is touched before all were found. */
int domain_unmap(struct domain *d, const struct link_unmap_entry *entries, size_t n, bool *ret_undo_failed,
                 struct refusal *r);

/* Exact earlier mappings go, others come in their place: wholly or not at all. What is the same before and after (a
 * remainder of a chunked mapping that is cut at a border of its chunks) is not touched; all else that was mapped by the
 * former is unreachable for a moment. r->element counts unmaps first. */
int domain_replace(struct domain *d, const struct link_unmap_entry *unmaps, size_t n_unmap,
                   const struct link_map_entry *maps, size_t n_map, bool *ret_undo_failed, struct refusal *r);

/* Windows of the IOMMU's own (backend.h): the same in every container, and made anew in each that comes. What is mapped in
 * a window is unmapped with it: entries are all of that. */
int domain_window_create(struct domain *d, const struct link_window *want, struct link_window *ret, bool *ret_undo_failed,
                         struct refusal *r);
int domain_window_remove(struct domain *d, uint64_t start, const struct link_unmap_entry *entries, size_t n,
                         bool *ret_undo_failed, struct refusal *r);
/* initial: what is there without a container. */
int domain_windows_reset(struct domain *d, const struct link_window *initial, const struct link_unmap_entry *entries, size_t n,
                         bool *ret_undo_failed, struct refusal *r);

/* The client is gone: nothing is mapped any more, and nothing new is taken. */
void domain_end(struct domain *d);

struct domain_dump_sink {
        void (*domain)(void *userdata, const struct link_dump_domain *m);
        void (*attachment)(void *userdata, const struct link_dump_attachment *m, const int *fds, size_t n_fds);
        void (*revoker)(void *userdata, uint32_t group, int fd);
        void (*window)(void *userdata, const struct link_window *m);
        void (*mappings)(void *userdata, const struct link_map_entry *entries, size_t n);      /* n <= LINK_BATCH_MAX */
        void *userdata;
};
void domain_dump(const struct domain *d, const struct domain_dump_sink *sink);
