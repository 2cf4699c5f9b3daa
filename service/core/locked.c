/* SPDX-License-Identifier: Apache-2.0 */
#include "core/locked.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/iova.h"
#include "util/log.h"

#define NODES_PER_SLAB 256U

struct locked_pages {
        union {
                RB_ENTRY(locked_pages) node;
                struct locked_pages *next_free;
        };
        uint64_t first, last;           /* page numbers, inclusive */
        uint64_t count;                 /* ranges that reach them: never 0 */
};

struct locked_slab {
        struct locked_slab *next;
        struct locked_pages nodes[NODES_PER_SLAB];
};

static int compare(const struct locked_pages *a, const struct locked_pages *b) {
        return a->first < b->first ? -1 : a->first > b->first;
}

/* libbsd's RB_GENERATE_STATIC relies on a macro that glibc does not have */
RB_GENERATE_INTERNAL(locked_tree, locked_pages, node, compare, static __attribute__((unused)))

/* ---- nodes ---- */

void locked_set_init(struct locked_set *s) {
        memset(s, 0, sizeof *s);
}

static void free_slabs(struct locked_set *s) {
        struct locked_slab *next;

        for (struct locked_slab *slab = s->slabs; slab; slab = next) {
                next = slab->next;
                free(slab);
        }
        s->slabs = NULL;
        s->free = NULL;
        s->nodes = 0;
}

static bool grow(struct locked_set *s) {
        struct locked_slab *slab = malloc(sizeof *slab);

        if (!slab)
                return false;
        slab->next = s->slabs;
        s->slabs = slab;
        for (size_t i = 0; i < NODES_PER_SLAB; i++) {
                slab->nodes[i].next_free = s->free;
                s->free = &slab->nodes[i];
        }
        s->nodes += NODES_PER_SLAB;
        return true;
}

bool locked_set_reserve(struct locked_set *s, size_t n) {
        while (s->nodes / 2 < s->ranges + n)
                if (!grow(s))
                        return false;   /* what it grew by is used by the next one */
        s->ranges += n;
        return true;
}

void locked_set_release(struct locked_set *s, size_t n) {
        if (n > s->ranges)
                log_error("%zu ranges of locked pages were given back, %zu were there", n, s->ranges);
        s->ranges -= n < s->ranges ? n : s->ranges;
        /* A tenant that had a million mappings once does not keep their memory. */
        if (s->ranges == 0 && s->in_use == 0)
                free_slabs(s);
}

static struct locked_pages *insert(struct locked_set *s, struct locked_file *f, uint64_t first, uint64_t last, uint64_t count) {
        struct locked_pages *n;

        /* Reserved; it grows only if somebody took away parts without having reserved for them. */
        if (!s->free && !grow(s))
                return NULL;
        n = s->free;
        s->free = n->next_free;
        s->in_use++;
        n->first = first;
        n->last = last;
        n->count = count;
        RB_INSERT(locked_tree, &f->runs, n);
        return n;
}

static void drop(struct locked_set *s, struct locked_file *f, struct locked_pages *n) {
        RB_REMOVE(locked_tree, &f->runs, n);
        n->next_free = s->free;
        s->free = n;
        s->in_use--;
}

/* ---- runs of one file ---- */

/* The first run that does not end before page. */
static struct locked_pages *lower(struct locked_file *f, uint64_t page) {
        struct locked_pages *n = RB_ROOT(&f->runs), *found = NULL;

        while (n) {
                if (n->last >= page) {
                        found = n;
                        n = RB_LEFT(n, node);
                } else
                        n = RB_RIGHT(n, node);
        }
        return found;
}

/* Makes page the first one of its run. */
static bool split(struct locked_set *s, struct locked_file *f, uint64_t page) {
        struct locked_pages *n = lower(f, page);
        uint64_t last;

        if (!n || n->first >= page)
                return true;
        last = n->last;
        n->last = page - 1;
        if (insert(s, f, page, last, n->count))
                return true;
        n->last = last;
        return false;
}

/* Joins neighbours with equal counts, from the run before first to the one behind last. */
static void merge(struct locked_set *s, struct locked_file *f, uint64_t first, uint64_t last) {
        struct locked_pages *n = lower(f, first > 0 ? first - 1 : 0), *next;

        for (; n && n->first <= last; n = next) {
                next = RB_NEXT(locked_tree, &f->runs, n);
                while (next && next->count == n->count && n->last + 1 == next->first) {
                        n->last = next->last;
                        drop(s, f, next);
                        next = RB_NEXT(locked_tree, &f->runs, n);
                }
        }
}

/* Returns how many pages were not locked before. */
static uint64_t add_pages(struct locked_set *s, struct locked_file *f, uint64_t first, uint64_t last) {
        uint64_t at = first, fresh = 0;
        struct locked_pages *n;

        split(s, f, first);
        if (last < UINT64_MAX)
                split(s, f, last + 1);
        for (n = lower(f, first);; n = RB_NEXT(locked_tree, &f->runs, n)) {
                bool gap = !n || n->first > at;
                uint64_t end = !n || n->first > last ? last : n->first - 1;

                if (gap) {
                        insert(s, f, at, end, 1);
                        fresh += end - at + 1;
                }
                if (!n || n->first > last)
                        break;
                n->count++;
                if (n->last == last)
                        break;
                at = n->last + 1;
        }
        merge(s, f, first, last);
        return fresh;
}

/* Returns how many pages are not locked any more. */
static uint64_t remove_pages(struct locked_set *s, struct locked_file *f, uint64_t first, uint64_t last) {
        uint64_t gone = 0, touched = 0;
        struct locked_pages *next;

        if (!split(s, f, first) || (last < UINT64_MAX && !split(s, f, last + 1))) {
                log_error("out of memory: pages of inode %" PRIu64 " stay charged", f->key.ino);
                return 0;
        }
        for (struct locked_pages *n = lower(f, first); n && n->first <= last; n = next) {
                next = RB_NEXT(locked_tree, &f->runs, n);
                touched += n->last - n->first + 1;
                if (--n->count == 0) {
                        gone += n->last - n->first + 1;
                        drop(s, f, n);
                }
        }
        if (touched != last - first + 1)
                log_error("pages of inode %" PRIu64 " were given back that were not locked", f->key.ino);
        merge(s, f, first, last);
        return gone;
}

/* ---- files ---- */

struct locked_file *locked_set_ref(struct locked_set *s, uint64_t dev, uint64_t ino, uint64_t page_size) {
        const struct locked_file_key key = { dev, ino, page_size };
        struct locked_file *f;

        HASH_FIND(hh, s->files, &key, sizeof key, f);
        if (!f) {
                f = calloc(1, sizeof *f);
                if (!f)
                        return NULL;
                f->key = key;
                RB_INIT(&f->runs);
                HASH_ADD(hh, s->files, key, sizeof key, f);
        } else if (f->refs == 0)
                s->unreferenced--;
        f->refs++;
        return f;
}

void locked_set_sweep(struct locked_set *s) {
        struct locked_file *f, *next;

        if (s->unreferenced == 0)
                return;
        HASH_ITER(hh, s->files, f, next)
                if (f->refs == 0 && f->pages == 0) {
                        HASH_DEL(s->files, f);
                        free(f);
                        s->unreferenced--;
                }
}

void locked_set_unref(struct locked_set *s, struct locked_file *file) {
        if (!file || --file->refs > 0)
                return;
        s->unreferenced++;
        locked_set_sweep(s);
}

void locked_set_clear(struct locked_set *s) {
        struct locked_file *f, *next;

        HASH_ITER(hh, s->files, f, next) {
                HASH_DEL(s->files, f);
                free(f);
        }
        free_slabs(s);
        locked_set_init(s);
}

/* ---- runs of bytes ---- */

static bool pages_of(const struct locked_run *run, uint64_t *ret_first, uint64_t *ret_last) {
        struct iova_range range;
        uint64_t bytes;

        if (!iova_range_make(run->offset, run->length, &range))
                return false;
        if (run->file) {
                range.first /= run->file->key.page_size;
                range.last /= run->file->key.page_size;
                if (MUL_OVERFLOW(range.last + 1, run->file->key.page_size, &bytes))
                        return false;
        }
        *ret_first = range.first;
        *ret_last = range.last;
        return true;
}

bool locked_set_add(struct locked_set *s, const struct locked_run *run, uint64_t *ret_bytes) {
        uint64_t first, last, pages, bytes = run->length, sum;

        if (!pages_of(run, &first, &last))
                return false;
        if (run->file) {
                pages = add_pages(s, run->file, first, last);
                run->file->pages += pages;
                bytes = pages * run->file->key.page_size;       /* fits: the end of the last page does */
        }
        if (ADD_OVERFLOW(s->bytes, bytes, &sum)) {
                if (run->file)
                        run->file->pages -= remove_pages(s, run->file, first, last);
                return false;
        }
        s->bytes = sum;
        *ret_bytes = bytes;
        return true;
}

uint64_t locked_set_remove(struct locked_set *s, const struct locked_run *run) {
        uint64_t first, last, pages, bytes = run->length;

        if (!pages_of(run, &first, &last))
                return 0;
        if (run->file) {
                pages = remove_pages(s, run->file, first, last);
                run->file->pages -= pages;
                bytes = pages * run->file->key.page_size;
        }
        if (bytes > s->bytes) {
                log_error("%" PRIu64 " locked bytes were given back, %" PRIu64 " were there", bytes, s->bytes);
                bytes = s->bytes;
        }
        s->bytes -= bytes;
        return bytes;
}

bool locked_set_recount(struct locked_set *s, const struct locked_run *run) {
        struct locked_run own = *run;
        uint64_t bytes;

        if (!locked_set_reserve(s, 1))
                return false;
        if (run->file) {
                const struct locked_file_key *key = &run->file->key;    /* never changes */

                own.file = locked_set_ref(s, key->dev, key->ino, key->page_size);
        }
        return (!run->file || own.file) && locked_set_add(s, &own, &bytes);
}
