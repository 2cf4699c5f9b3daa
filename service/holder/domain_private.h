/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <bsd/sys/tree.h>

#include "backend/pool.h"
#include "holder/domain.h"
#include "util/iova.h"

/*
 * What the files of a domain share: node.c (one mapping), domain.c (map, unmap), domain_replace.c, domain_device.c
 * (containers, attachments), domain_window.c, domain_dump.c.
 */
#define RANGE_FORMAT "0x%" PRIx64 "-0x%" PRIx64

struct node {                           /* one mapping, exactly as the broker asked for it */
        struct pool_item item;
        RB_ENTRY(node) link;
        struct iova_range range;
        struct object *object;          /* a use of it */
        uint64_t offset;
        uint32_t access;
        uint32_t chunk_shift;           /* applied in pieces of 2^n bytes from its beginning; 0: in one */
        bool named;                     /* by the unmap that is being verified */
        bool kept;                      /* by the replace that is under way: what it covers is in the containers already */
};

#define CHUNK_SHIFT_MAX 62U

RB_HEAD(node_tree, node);

struct group {                          /* a container and the IOMMU group that it serves */
        struct group *next;
        uint32_t number;
        enum backend_kind backend;
        struct container *container;
        int keeper_fd;                  /* of the container, for the broker to have again; -1: none to keep */
        int revoker_fd;                 /* the same of what revokes the container after this process; -1: the keeper does */
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
        bool has_windows;               /* it had a container with windows of its own: these */
        uint32_t n_windows;
        struct backend_window windows[BACKEND_WINDOWS_MAX];     /* ascending start */
        unsigned undo_failures;         /* more than none: quarantined, takes nothing new */
        bool ended;                     /* the client is gone: takes nothing new either */
};

RB_PROTOTYPE_INTERNAL(node_tree, node, link, node_compare, )

/* May the domain take anything new: UNKNOWN_SESSION, DOMAIN_QUARANTINED. */
int domain_takes_new(const struct domain *d, struct refusal *r);

/* Checks an entry against what is mapped and what its memory allows, and records it; it is in no container yet. */
int node_add(struct domain *d, const struct link_map_entry *e, struct node **ret, struct refusal *r);
/* The lowest mapping that shares a byte with the range. */
struct node *node_find(struct domain *d, struct iova_range range);
/* The nodes that are exactly the entries, each named once; r->element says which is not there. */
int nodes_find_exact(struct domain *d, const struct link_unmap_entry *entries, size_t n, struct node **nodes,
                     struct refusal *r);
/* The record and its use of the object end. */
void node_remove(struct domain *d, struct node *n);
/* In two steps: out of the tree (and back), and the end. */
void node_take_out(struct domain *d, struct node *n);
void node_put_back(struct domain *d, struct node *n);
void node_forget(struct domain *d, struct node *n);

/* A part of a node that begins and ends at borders of its pieces, or the whole: into every container, out of every one, or
 * nothing is changed. What could not be undone quarantines the domain (undo_failures). */
int part_apply(struct domain *d, const struct node *n, struct iova_range part, struct refusal *r);
int part_unapply(struct domain *d, const struct node *n, struct iova_range part, struct refusal *r);
int part_map_into(struct domain *d, struct container *c, const struct node *n, struct iova_range part, struct refusal *r);
/* n nodes out of every container, or none: r->element says which refused. */
int nodes_unapply(struct domain *d, struct node **nodes, size_t n, struct refusal *r);
void nodes_reapply(struct domain *d, struct node **nodes, size_t n);    /* as an undo */
/* The same as an undo: false, and the domain is quarantined, if it cannot be done. */
bool part_reapply(struct domain *d, const struct node *n, struct iova_range part);
bool part_withdraw(struct domain *d, const struct node *n, struct iova_range part);

/* A container without mappings gets the windows of the domain; the first one says which there are. */
int windows_apply(struct domain *d, struct container *c, struct refusal *r);

/* Ends an attachment, with its container when it was the last of its group. */
void attachment_free(struct domain *d, struct attachment *at);
