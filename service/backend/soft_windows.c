/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/soft_private.h"

#include <errno.h>
#include <inttypes.h>

#include "util/cleanup.h"

/*
 * Windows of the software IOMMU: each has tables of its own, as on sPAPR, so that removing one cuts everything in it off
 * at once. A table page is 4K; the larger pages of a window are whole numbers of them (which container_map() sees to).
 */
#define TABLE_PAGE (UINT64_C(1) << 12)
#define TABLE_SUPERPAGE (UINT64_C(1) << 21)

/* --- tables -------------------------------------------------------------------------------------------------------*/

/* Lock held, or nobody else has the container yet. There is room: the wrapper counts windows. */
static int space_add(struct soft_container *s, struct iova_range range, uint64_t page_sizes) {
        struct soft_space *space = &s->spaces[s->n_spaces];

        *space = (struct soft_space){ .range = range };
        if (soft_pgtable_init(&space->tables, page_sizes) < 0)
                return -ENOMEM;
        s->n_spaces++;
        return 0;
}

static int space_add_window(struct soft_container *s, const struct backend_window *w) {
        uint64_t page_sizes = TABLE_PAGE | (w->page_shift >= 21 ? TABLE_SUPERPAGE : 0);

        return space_add(s, (struct iova_range){ w->start, w->start + (w->size - 1) }, page_sizes);
}

int soft_spaces_init(struct soft_container *s) {
        const struct container_info *i = &s->base.info;

        if (i->windows.max_windows == 0)
                return space_add(s, (struct iova_range){ 0, UINT64_MAX }, i->page_sizes);
        return space_add_window(s, &i->windows.initial);
}

void soft_spaces_free(struct soft_container *s) {
        while (s->n_spaces > 0)
                soft_pgtable_free(&s->spaces[--s->n_spaces].tables);
}

struct soft_space *soft_space_at(struct soft_container *s, uint64_t iova) {
        for (unsigned i = 0; i < s->n_spaces; i++)
                if (s->spaces[i].range.first <= iova && iova <= s->spaces[i].range.last)
                        return &s->spaces[i];
        return NULL;
}

/* --- windows ------------------------------------------------------------------------------------------------------*/

/* There are two places. What looks like the initial window goes to the low one, all else to the high one first; a place
 * that was asked for is taken when it is one and free (the wrapper refuses what comes out elsewhere). */
static uint64_t choose_place(struct soft_container *s, const struct backend_window *want) {
        const struct backend_window *initial = &s->base.info.windows.initial;
        bool low_is_free = !soft_space_at(s, initial->start), high_is_free = !soft_space_at(s, SOFT_WINDOW_HIGH);
        bool low = want->page_shift == initial->page_shift && want->size <= initial->size;

        if (want->start == initial->start)
                low = true;
        if (want->start == SOFT_WINDOW_HIGH)
                low = false;
        if (low)
                return low_is_free ? initial->start : SOFT_WINDOW_HIGH;
        return high_is_free ? SOFT_WINDOW_HIGH : initial->start;
}

int soft_window_create(struct container *c, const struct backend_window *want, struct backend_window *ret, struct refusal *r) {
        struct soft_container *s = soft_of(c);
        struct backend_window made = *want;

        LOCK_SCOPE(&s->lock);
        made.start = choose_place(s, want);
        if (made.levels == 0)
                made.levels = c->info.windows.levels_default;
        if (space_add_window(s, &made) < 0)
                return refuse(r, REFUSAL_INTERNAL, "no memory for the table of a window of 0x%" PRIx64 " bytes", want->size);
        *ret = made;
        return 0;
}

int soft_window_remove(struct container *c, const struct backend_window *w, struct refusal *r) {
        struct soft_container *s = soft_of(c);

        LOCK_SCOPE(&s->lock);
        for (unsigned i = 0; i < s->n_spaces; i++)
                if (s->spaces[i].range.first == w->start) {
                        soft_pgtable_free(&s->spaces[i].tables);
                        s->spaces[i] = s->spaces[--s->n_spaces];
                        return 0;
                }
        return refuse(r, REFUSAL_INTERNAL, "the software IOMMU has no window at 0x%" PRIx64, w->start);
}
