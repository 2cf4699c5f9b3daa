/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>

#include "backend/backend_ops.h"
#include "backend/soft.h"
#include "backend/soft_pgtable.h"
#include "backend/soft_phys.h"

/*
 * What the files of the software IOMMU share: soft.c (translation and devices), soft_personality.c (what it looks like),
 * soft_windows.c (windows and their tables).
 */

/* Addresses that share tables: all there are, or those of one window. Tables know addresses relative to the first. */
struct soft_space {
        struct iova_range range;
        struct soft_pgtable tables;
};

struct soft_container {
        struct container base;
        struct soft_personality personality;
        pthread_mutex_t lock;           /* everything below: the domain's thread maps, device threads translate */
        struct soft_space spaces[BACKEND_WINDOWS_MAX];
        unsigned n_spaces;
        struct soft_phys phys;
        struct soft_fault faults[SOFT_FAULTS_KEPT];
        uint64_t n_faults;
        int copy_read, copy_write;      /* the pipe of copy_guarded() */
        uint64_t host_page;
};

static inline struct soft_container *soft_of(struct container *c) {
        return (struct soft_container *)c;      /* base is the first member */
}

/* Zeroes become what they stand for. */
struct soft_personality soft_personality_complete(struct soft_personality p);

/* The tables of a container that was just made: of all addresses, or of the initial window. 0 or -ENOMEM. */
int soft_spaces_init(struct soft_container *s);
void soft_spaces_free(struct soft_container *s);

/* Lock held. The tables for an address, NULL if it lies in no window. */
struct soft_space *soft_space_at(struct soft_container *s, uint64_t iova);

/* Entries of the table. */
int soft_window_create(struct container *c, const struct backend_window *want, struct backend_window *ret, struct refusal *r);
int soft_window_remove(struct container *c, const struct backend_window *w, struct refusal *r);
