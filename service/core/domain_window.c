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

/* ---- charges ---- */

int domain_charge_window(struct domain *d, struct refusal *r) {
        const struct quota_amounts one = { .of[RESOURCE_WINDOWS] = 1 };

        return domain_charge(d, &one, r);
}

void domain_refund_windows(struct domain *d, uint64_t n) {
        const struct quota_amounts amounts = { .of[RESOURCE_WINDOWS] = n };

        domain_uncharge(d, &amounts);
}

void domain_adopt_windows(struct domain *d) {
        uint64_t n = 0;

        for (size_t i = 0; i < d->windows.n; i++)
                n += !d->windows.of[i]->is_default;
        d->charged.of[RESOURCE_WINDOWS] = n;
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
