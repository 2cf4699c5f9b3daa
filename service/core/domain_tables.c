/* SPDX-License-Identifier: Apache-2.0 */
#include "core/domain_tables.h"

#include "core/broker_private.h"
#include "core/change.h"
#include "core/domain.h"

bool domain_maps_need_tables(const struct domain *d, uint64_t iova) {
        const struct window *w = window_set_at(&d->windows, iova);

        /* a table of one level is there as a whole since the window is */
        return !w || w->levels != 1;
}

uint64_t domain_record_bytes(const struct domain *d) {
        return mapping_record_bytes(d->session->broker->options.backend);
}

uint64_t domain_in_containers(const struct domain *d, uint64_t bytes) {
        return MUL_OVERFLOW(bytes, d->containers, &bytes) ? UINT64_MAX : bytes;
}

static bool shares_group(const struct domain *d, const struct attachment *a) {
        for (const struct attachment *b = d->session->attachments; b && b != a; b = b->hh.next)
                if (b->domain == d && b->group == a->group)
                        return true;
        return false;
}

static uint64_t count_containers(const struct domain *d) {
        uint64_t n = 0;

        for (const struct attachment *a = d->session->attachments; a; a = a->hh.next)
                n += a->domain == d && !shares_group(d, a);
        return n ? n : 1;
}

static uint64_t tables_of_windows(const struct domain *d) {
        uint64_t sum = 0;

        for (size_t i = 0; i < d->windows.n; i++)
                if (ADD_OVERFLOW(sum, d->windows.of[i]->table_bytes, &sum))
                        return UINT64_MAX;
        return sum;
}

/* What it would be charged with so many containers. Whatever is on its way in or out is part of what it is charged now. */
static uint64_t charge_with(const struct domain *d, uint64_t containers, uint64_t *ret_windows) {
        uint64_t one = (d->charged.of[RESOURCE_TABLE_BYTES] - d->window_tables) / d->containers, all;

        if (MUL_OVERFLOW(tables_of_windows(d), containers, ret_windows) || MUL_OVERFLOW(one, containers, &all) ||
            ADD_OVERFLOW(all, *ret_windows, &all))
                return UINT64_MAX;
        return all;
}

int domain_charge_tables(struct domain *d, struct refusal *r) {
        struct quota_amounts amounts = { 0 };
        uint64_t containers = count_containers(d), windows = 0;
        uint64_t now = charge_with(d, containers, &windows), before = d->charged.of[RESOURCE_TABLE_BYTES];

        if (now > before) {
                amounts.of[RESOURCE_TABLE_BYTES] = now - before;
                if (domain_charge(d, &amounts, r) < 0)
                        return -1;
        } else {
                amounts.of[RESOURCE_TABLE_BYTES] = before - now;
                domain_uncharge(d, &amounts);
        }
        d->window_tables = windows;
        d->containers = containers;
        return 0;
}

void domain_adopt_tables(struct domain *d) {
        uint64_t containers = count_containers(d), windows = 0;

        d->charged.of[RESOURCE_TABLE_BYTES] = charge_with(d, containers, &windows);
        d->window_tables = windows;
        d->containers = containers;
}

bool domain_adopt_touched(struct domain *d, struct iova_range range) {
        uint64_t bytes = 0;

        if (!table_pages_add(&d->tables, range, &bytes)) {
                table_pages_rollback(&d->tables);
                return false;
        }
        table_pages_commit(&d->tables);
        d->charged.of[RESOURCE_TABLE_BYTES] += domain_in_containers(d, bytes);
        return true;
}
