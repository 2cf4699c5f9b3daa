/* SPDX-License-Identifier: Apache-2.0 */
#include "core/domain_window.h"

#include <unistd.h>

#include "core/broker_private.h"
#include "core/change.h"
#include "core/domain.h"

void domain_window_rules(const struct domain *d, struct window_rules *ret) {
        window_rules_of(domain_constraints(d), (uint64_t)sysconf(_SC_PAGESIZE), ret);
}

bool domain_add_default_window(struct domain *d, uint64_t id) {
        struct window_rules rules;
        struct window w;

        domain_window_rules(d, &rules);
        if (!rules.has_initial)
                return true;
        w = rules.initial;
        w.id = id;
        return window_set_add(&d->windows, &w) != NULL;
}

struct window *domain_default_window(const struct domain *d) {
        for (size_t i = 0; i < d->windows.n; i++)
                if (d->windows.of[i]->is_default)
                        return d->windows.of[i];
        return NULL;
}

uint64_t domain_page_at(const struct domain *d, uint64_t iova) {
        const struct window *w = window_set_at(&d->windows, iova);

        return w ? window_page(w) : page_mask_smallest(d->info.page_sizes);
}

bool domain_maps_need_tables(const struct domain *d, uint64_t iova) {
        const struct window *w = window_set_at(&d->windows, iova);

        /* a table of one level is there as a whole since the window is */
        return !w || w->levels != 1;
}

/* ---- charges ---- */

static bool shares_group(const struct domain *d, const struct attachment *a) {
        for (const struct attachment *b = d->session->attachments; b && b != a; b = b->hh.next)
                if (b->domain == d && b->group == a->group)
                        return true;
        return false;
}

/* One for each group with a device in the domain. A domain without one pays for the first that will be. */
static uint64_t containers(const struct domain *d) {
        uint64_t n = 0;

        for (const struct attachment *a = d->session->attachments; a; a = a->hh.next)
                n += a->domain == d && !shares_group(d, a);
        return n ? n : 1;
}

static uint64_t table_bytes(const struct domain *d) {
        uint64_t sum = 0;

        for (size_t i = 0; i < d->windows.n; i++)
                if (ADD_OVERFLOW(sum, d->windows.of[i]->table_bytes, &sum))
                        return UINT64_MAX;
        return MUL_OVERFLOW(sum, containers(d), &sum) ? UINT64_MAX : sum;
}

int domain_charge_window_tables(struct domain *d, struct refusal *r) {
        struct quota_amounts amounts = { 0 };
        uint64_t now = table_bytes(d);

        if (now > d->window_tables) {
                amounts.of[RESOURCE_TABLE_BYTES] = now - d->window_tables;
                if (domain_charge(d, &amounts, r) < 0)
                        return -1;
        } else {
                amounts.of[RESOURCE_TABLE_BYTES] = d->window_tables - now;
                domain_uncharge(d, &amounts);
        }
        d->window_tables = now;
        return 0;
}

void domain_adopt_window_tables(struct domain *d) {
        uint64_t now = table_bytes(d), windows = 0;

        d->charged.of[RESOURCE_TABLE_BYTES] += now - d->window_tables;
        d->window_tables = now;
        for (size_t i = 0; i < d->windows.n; i++)
                windows += !d->windows.of[i]->is_default;
        d->charged.of[RESOURCE_WINDOWS] = windows;
}

int domain_charge_window(struct domain *d, struct refusal *r) {
        const struct quota_amounts one = { .of[RESOURCE_WINDOWS] = 1 };

        return domain_charge(d, &one, r);
}

void domain_refund_windows(struct domain *d, uint64_t n) {
        const struct quota_amounts amounts = { .of[RESOURCE_WINDOWS] = n };

        domain_uncharge(d, &amounts);
}

/* ---- a device has come or gone ---- */

void domain_windows_follow(struct domain *d) {
        struct window *w = domain_default_window(d);
        struct window_rules rules;

        domain_window_rules(d, &rules);
        if (!w || !rules.has_initial)
                return;
        w->page_shift = rules.initial.page_shift;
        w->levels = rules.initial.levels;
        window_set_move(&d->windows, w, rules.initial.range);
}
