/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <bsd/sys/tree.h>

#include "backend/pool.h"
#include "holder/domain.h"
#include "util/iova.h"

/*
 * What the files of a domain share: domain.c (mappings), domain_device.c (containers, attachments), domain_dump.c.
 */
#define RANGE_FORMAT "0x%" PRIx64 "-0x%" PRIx64

struct node {                           /* one mapping, exactly as the broker asked for it */
        struct pool_item item;
        RB_ENTRY(node) link;
        struct iova_range range;
        struct object *object;          /* a use of it */
        uint64_t offset;
        uint32_t access;
        bool named;                     /* by the unmap that is being verified */
};

RB_HEAD(node_tree, node);

struct group {                          /* a container and the IOMMU group that it serves */
        struct group *next;
        uint32_t number;
        enum backend_kind backend;
        struct container *container;
        int keeper_fd;                  /* of the container, for the broker to have again; -1: none to keep */
        unsigned n_attachments;
};

struct attachment {
        struct attachment *next;
        struct link_attach attach;
        uint64_t seq;
        struct group *group;
        struct device *device;
        int keeper_fd;
        bool acked;                     /* by the broker of today */
        bool ever_acked;                /* the client may have the fd */
        bool waiting;                   /* a request for the fd does, until the ack */
        uint64_t cookie;
};

struct domain {
        uint64_t id;
        struct objects *objects;
        struct soft_personality soft;
        struct domain_events events;
        struct node_tree tree;
        struct pool pool;
        uint64_t n_mappings;
        struct group *groups;
        struct attachment *attachments;
        unsigned undo_failures;         /* more than none: quarantined, takes nothing new */
        bool ended;                     /* the client is gone: takes nothing new either */
};

RB_PROTOTYPE_INTERNAL(node_tree, node, link, node_compare, )

/* May the domain take anything new: UNKNOWN_SESSION, DOMAIN_QUARANTINED. */
int domain_takes_new(const struct domain *d, struct refusal *r);

int node_map_into(struct container *c, const struct node *n, struct refusal *r);

/* Ends an attachment, with its container when it was the last of its group. */
void attachment_free(struct domain *d, struct attachment *at);
