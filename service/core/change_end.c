/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/change.h"
#include "core/domain_tables.h"
#include "core/domain_window.h"
#include "core/shared_page.h"

/*
 * What a change costs, and how it ends. A domain knows what it was charged (domain->charged), except for locked pages, which
 * its mappings tell: each one that is in the tree has its run charged, whatever its state.
 */

struct locked_run mapping_run(const struct mapping *m) {
        struct iova_range seen = mapping_seen(m);
        struct locked_run run = { .file = m->memory->file, .offset = m->offset - (m->range.first - seen.first),
                                  .length = iova_range_length(seen) };
        uint64_t mask = m->memory->page_size ? m->memory->page_size - 1 : 0, end = (run.offset + run.length + mask) & ~mask;

        /* Huge pages are pinned whole. For a sealed file locked_set sees to it; below 2^63, as offsets of files are. */
        if (!run.file) {
                run.offset &= ~mask;
                run.length = end - run.offset;
        }
        return run;
}

static uint64_t excess(uint64_t a, uint64_t b) {
        return a > b ? a - b : 0;
}

static void domain_note_charge(struct domain *d, const struct quota_amounts *amounts, bool plus) {
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                d->charged.of[i] = plus ? d->charged.of[i] + amounts->of[i] : d->charged.of[i] - amounts->of[i];
}

/* Locked bytes are the tenant's pages, not the domain's: they are never in domain->charged. */
int domain_charge(struct domain *d, const struct quota_amounts *amounts, struct refusal *r) {
        if (quota_charge(&d->session->tenant->account, amounts, r) < 0)
                return -1;
        domain_note_charge(d, amounts, true);
        return 0;
}

void domain_uncharge(struct domain *d, const struct quota_amounts *amounts) {
        domain_note_charge(d, amounts, false);
        quota_refund(&d->session->tenant->account, amounts);
}

/* ---- charge ---- */

static int add_tables(struct change *c, struct refusal *r) {
        for (size_t i = 0; i < c->n_made - c->n_rests; i++) {
                uint64_t bytes = 0;

                if (!domain_maps_need_tables(c->domain, c->made[i]->range.first))
                        continue;
                if (!table_pages_add(&c->domain->tables, mapping_seen(c->made[i]), &bytes) ||
                    ADD_OVERFLOW(c->tables, bytes, &c->tables))
                        return refuse(r, REFUSAL_INTERNAL, "out of memory");
                c->made[i]->touches = bytes > 0;
        }
        return 0;
}

static int charge(struct change *c, struct refusal *r) {
        struct quota_account *account = &c->session->tenant->account;
        struct locked_run runs[REQUEST_BATCH_MAX];
        struct quota_amounts amounts = { 0 }, charged;
        size_t n = c->n_made - c->n_rests;

        for (size_t i = 0; i < n; i++)
                runs[i] = mapping_run(c->made[i]);
        amounts.of[RESOURCE_MAPPINGS] = excess(c->n_made, c->n_gone);
        if (MUL_OVERFLOW(excess(c->new_pieces, c->old_pieces), domain_record_bytes(c->domain), &c->table_bytes) ||
            ADD_OVERFLOW(c->table_bytes, c->tables, &c->table_bytes))
                c->table_bytes = UINT64_MAX;
        amounts.of[RESOURCE_TABLE_BYTES] = domain_in_containers(c->domain, c->table_bytes);
        if (c->n_rests > 0 && quota_reserve_runs(account, c->n_rests, r) < 0)
                return -1;
        if (quota_charge_runs(account, runs, n, &amounts, &charged, r) < 0) {
                if (c->n_rests > 0)
                        quota_unreserve_runs(account, c->n_rests);
                return -1;
        }
        c->locked_bytes = charged.of[RESOURCE_LOCKED_BYTES];
        domain_note_charge(c->domain, &amounts, true);
        return 0;
}

int change_charge(struct change *c, struct refusal *r) {
        if (add_tables(c, r) < 0 || charge(c, r) < 0) {
                table_pages_rollback(&c->domain->tables);
                return -1;
        }
        c->is_charged = c->tables_pending = true;
        c->domain->kernel_mappings += c->new_pieces;
        return 0;
}

void change_commit(struct change *c) {
        table_pages_commit(&c->domain->tables);
        c->tables_pending = false;
}

static void uncharge(struct change *c) {
        struct quota_account *account = &c->session->tenant->account;
        uint64_t bytes = c->table_bytes - (c->tables_pending ? 0 : c->tables);
        struct quota_amounts amounts = { .of[RESOURCE_MAPPINGS] = excess(c->n_made, c->n_gone),
                                         .of[RESOURCE_TABLE_BYTES] = domain_in_containers(c->domain, bytes) };
        struct locked_run runs[REQUEST_BATCH_MAX];
        size_t n = c->n_made - c->n_rests;

        for (size_t i = 0; i < n; i++)
                runs[i] = mapping_run(c->made[i]);
        if (c->tables_pending)
                table_pages_rollback(&c->domain->tables);
        domain_note_charge(c->domain, &amounts, false);
        quota_refund_runs(account, runs, n, &amounts);
        if (c->n_rests > 0)
                quota_unreserve_runs(account, c->n_rests);
        c->domain->kernel_mappings -= c->new_pieces;
        c->is_charged = c->tables_pending = false;
}

/* ---- ends ---- */

static void forget(struct domain *d, struct mapping *m) {
        m->memory->mappings--;
        mapping_set_remove(&d->mappings, m);
}

/* Pages that nobody counts any more are gone. */
static void release_pages(struct change *c, bool applied) {
        for (size_t i = 0; i < c->n_pages; i++) {
                struct shared_page *p = c->pages[i].page;

                if (!applied) {
                        p->readers -= (uint32_t)c->pages[i].readers;
                        p->writers -= (uint32_t)c->pages[i].writers;
                }
                p->by = NULL;
                if (applied)
                        p->access = shared_page_union(p);
                if (shared_page_union(p) == 0)
                        shared_page_remove(&c->domain->pages, p);
        }
        c->n_pages = 0;
}

/* Takes one that goes out of the tree. What stays of it, n rests, keeps its pages charged. */
static void drop_gone(struct change *c, struct mapping *m, struct mapping **rests, size_t n) {
        struct quota_account *account = &c->session->tenant->account;
        struct locked_run old = mapping_run(m), runs[REQUEST_BATCH_MAX];

        for (size_t i = 0; i < n; i++)
                runs[i] = mapping_run(rests[i]);
        if (n > 0)
                quota_replace_runs(account, &old, 1, runs, n);
        else
                quota_refund_runs(account, &old, 1, NULL);
        forget(c->domain, m);
}

void change_apply(struct change *c, uint64_t *ret_bytes, uint64_t *ret_mappings) {
        struct mapping **rest = c->made + (c->n_made - c->n_rests), **rests_end = c->made + c->n_made;
        uint64_t records = excess(c->old_pieces, c->new_pieces) * domain_record_bytes(c->domain);
        struct quota_amounts freed = { .of[RESOURCE_MAPPINGS] = excess(c->n_gone, c->n_made),
                                       .of[RESOURCE_TABLE_BYTES] = domain_in_containers(c->domain, records) };

        release_pages(c, true);
        *ret_mappings += c->n_gone;
        for (size_t i = 0; i < c->n_gone; i++) {
                struct iova_range whole = c->gone[i]->range;
                struct mapping **first = rest;

                *ret_bytes += iova_range_length(whole);
                for (; rest < rests_end && iova_range_contains(whole, (*rest)->range); rest++)
                        *ret_bytes -= iova_range_length((*rest)->range);
                drop_gone(c, c->gone[i], first, (size_t)(rest - first));
                for (; first < rest; first++)
                        mapping_set_place(&c->domain->mappings, *first);
        }
        for (size_t i = 0; i < c->n_made; i++)
                c->made[i]->state = MAPPING_LIVE;
        c->domain->kernel_mappings -= c->old_pieces;
        domain_uncharge(c->domain, &freed);
        c->is_charged = false;
}

void change_apply_gone(struct change *c, size_t n, uint64_t *ret_bytes, uint64_t *ret_mappings) {
        struct quota_amounts freed = { .of[RESOURCE_MAPPINGS] = n };
        uint64_t pieces = 0;

        for (size_t i = 0; i < n; i++) {
                pieces += mapping_pieces(c->gone[i]);
                *ret_bytes += iova_range_length(c->gone[i]->range);
                drop_gone(c, c->gone[i], NULL, 0);
        }
        *ret_mappings += n;
        freed.of[RESOURCE_TABLE_BYTES] = domain_in_containers(c->domain, pieces * domain_record_bytes(c->domain));
        c->domain->kernel_mappings -= pieces;
        c->old_pieces -= pieces;
        domain_uncharge(c->domain, &freed);
        c->n_gone -= n;
        memmove(c->gone, c->gone + n, c->n_gone * sizeof(struct mapping *));
}

void change_undo(struct change *c) {
        if (c->is_charged)
                uncharge(c);
        release_pages(c, false);
        for (size_t i = 0; i < c->n_gone; i++) {
                c->gone[i]->state = MAPPING_LIVE;
                c->gone[i]->by = NULL;
        }
        for (size_t i = 0; i < c->n_made - c->n_rests; i++)
                forget(c->domain, c->made[i]);
        for (size_t i = c->n_made - c->n_rests; i < c->n_made; i++) {
                c->made[i]->memory->mappings--;
                mapping_set_give_back(&c->domain->mappings, c->made[i]);
        }
        c->n_gone = c->n_made = c->n_rests = 0;
}

void change_abandon(struct change *c) {
        static struct change nobody;

        for (size_t i = 0; i < c->n_pages; i++)
                c->pages[i].page->by = &nobody;
        for (size_t i = 0; i < c->n_gone; i++)
                c->gone[i]->by = NULL;
        if (c->n_rests > 0)
                quota_unreserve_runs(&c->session->tenant->account, c->n_rests);
        for (size_t i = c->n_made - c->n_rests; i < c->n_made; i++) {
                c->made[i]->memory->mappings--;
                mapping_set_give_back(&c->domain->mappings, c->made[i]);
        }
}

void domain_refund(struct domain *d) {
        static const struct iova_range all = { 0, UINT64_MAX };
        struct quota_account *account = &d->session->tenant->account;

        for (struct mapping *m = mapping_set_find(&d->mappings, all); m; m = mapping_set_next(&d->mappings, m)) {
                struct locked_run run = mapping_run(m);

                quota_refund_runs(account, &run, 1, NULL);
        }
        quota_refund(account, &d->charged);
        memset(&d->charged, 0, sizeof d->charged);
}
