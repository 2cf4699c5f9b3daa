/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bsd/sys/tree.h>
#include <uthash.h>

/*
 * Which pages are locked, each counted once (I5): for every sealed file, runs of pages with the number of mappings that reach
 * them. O(log n + touched runs). Not locked in here: in an account, account->lock protects the set (core/quota.h); alone, a set
 * counts what it is told, for those who want to count again.
 *
 * Runs with equal counts are merged, so that n ranges never make more than 2n - 1 runs. Nodes are reserved when a range is
 * added: taking one away may split runs, and needs no memory then.
 */
struct locked_file {                    /* what a page is identified by, within a tenant */
        UT_hash_handle hh;
        struct locked_file_key {
                uint64_t dev, ino, page_size;
        } key;
        unsigned refs;                  /* memory objects that are this file; it also stays while pages of it are locked */
        uint64_t pages;                 /* how many are locked */
        RB_HEAD(locked_tree, locked_pages) runs;
};

struct locked_run {
        struct locked_file *file;       /* NULL: memory that is not sealed, whose length counts each time */
        uint64_t offset, length;        /* bytes; rounded outwards to whole pages of the file */
};

struct locked_pages;
struct locked_slab;

struct locked_set {
        struct locked_file *files;      /* uthash by key */
        unsigned unreferenced;          /* files without refs, which go with their last page */
        struct locked_pages *free;
        struct locked_slab *slabs;
        size_t nodes, in_use;           /* in all slabs; in trees */
        size_t ranges;                  /* reserved for: nodes >= 2 * ranges */
        uint64_t bytes;                 /* locked */
};

void locked_set_init(struct locked_set *s);
void locked_set_clear(struct locked_set *s);    /* every file with it */

/* The file of that identity, with one more reference; page_size is a power of two. NULL: out of memory. */
struct locked_file *locked_set_ref(struct locked_set *s, uint64_t dev, uint64_t ino, uint64_t page_size);
void locked_set_unref(struct locked_set *s, struct locked_file *file);         /* NULL is fine */

/* Room for n more ranges, and less. False: out of memory. */
bool locked_set_reserve(struct locked_set *s, size_t n);
void locked_set_release(struct locked_set *s, size_t n);

/* One range more, for which room was reserved. *ret_bytes: what was not locked before. False, and nothing has changed, if it
 * is empty or passes 2^64. */
bool locked_set_add(struct locked_set *s, const struct locked_run *run, uint64_t *ret_bytes);

/* One range less, or a part of one at whole pages. Returns what is not locked any more. */
uint64_t locked_set_remove(struct locked_set *s, const struct locked_run *run);

/* Files whose last page and last reference are gone; after removing. */
void locked_set_sweep(struct locked_set *s);

/* For counting again: adds to a set of one's own the run of another set. False: out of memory, or a run that is none. */
bool locked_set_recount(struct locked_set *s, const struct locked_run *run);
