/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/soft_phys.h"

#include <errno.h>

#include "backend/soft_pgtable.h"

#define WINDOW_SHIFT_MIN 30U

static int frame_compare(const struct soft_frame *a, const struct soft_frame *b) {
        return (a->host > b->host) - (a->host < b->host);
}

RB_GENERATE_INTERNAL(soft_frame_tree, soft_frame, link, frame_compare, __attribute__((unused)) static)

void soft_phys_init(struct soft_phys *p, unsigned largest_page_shift) {
        unsigned shift = largest_page_shift > WINDOW_SHIFT_MIN ? largest_page_shift : WINDOW_SHIFT_MIN;

        *p = (struct soft_phys){
                .shift = shift,
                .frames = POOL_INIT(struct soft_frame, UINT32_C(1) << (SOFT_PHYS_BITS - shift)),
        };
}

void soft_phys_free(struct soft_phys *p) {
        pool_free(&p->frames);
        RB_INIT(&p->tree);
}

int soft_phys_hold(struct soft_phys *p, uintptr_t vaddr, uint64_t offset, uint64_t *ret_phys) {
        uint64_t in_window = offset & ((UINT64_C(1) << p->shift) - 1);
        struct soft_frame key = { .host = vaddr - (uintptr_t)in_window };
        struct soft_frame *f = RB_FIND(soft_frame_tree, &p->tree, &key);

        if (!f) {
                f = pool_take(&p->frames);
                if (!f)
                        return -ENOMEM;
                f->host = key.host;
                f->holds = 0;
                RB_INSERT(soft_frame_tree, &p->tree, f);
        }
        f->holds++;
        *ret_phys = (uint64_t)f->item.number << p->shift | in_window;
        return 0;
}

static struct soft_frame *frame_of(const struct soft_phys *p, uint64_t phys) {
        return pool_at(&p->frames, (uint32_t)(phys >> p->shift));
}

void soft_phys_drop(struct soft_phys *p, uint64_t phys) {
        struct soft_frame *f = frame_of(p, phys);

        if (--f->holds > 0)
                return;
        RB_REMOVE(soft_frame_tree, &p->tree, f);
        pool_give(&p->frames, f);
}

uintptr_t soft_phys_host(const struct soft_phys *p, uint64_t phys) {
        return frame_of(p, phys)->host + (uintptr_t)(phys & ((UINT64_C(1) << p->shift) - 1));
}
