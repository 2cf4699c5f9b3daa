/* SPDX-License-Identifier: Apache-2.0 */
#include "core/adopt.h"

#include "core/broker_private.h"
#include "core/change.h"
#include "core/domain_tables.h"

/* What so many mappings of the IOMMU are charged for their records. */
static uint64_t records(const struct domain *d, uint64_t n) {
        return domain_in_containers(d, n * domain_record_bytes(d));
}

static bool adopt_page(struct domain *d, const struct mapping *m, uint64_t iova) {
        struct shared_page *p = shared_page_find(&d->pages, iova);

        if (!p) {
                p = shared_page_add(&d->pages, iova);
                if (!p)
                        return false;
                p->page_shift = m->page_shift;
                p->memory = m->memory;
                p->offset = m->offset - (m->range.first - iova);
                d->kernel_mappings++;
                d->charged.of[RESOURCE_TABLE_BYTES] += records(d, 1);
        }
        shared_page_count(p, m->access, 1);
        p->access = shared_page_union(p);
        return true;
}

static void release_page(struct domain *d, const struct mapping *m, uint64_t iova) {
        struct shared_page *p = shared_page_find(&d->pages, iova);

        if (!p)
                return;
        shared_page_count(p, m->access, -1);
        p->access = shared_page_union(p);
        if (p->access != 0)
                return;
        shared_page_remove(&d->pages, p);
        d->kernel_mappings--;
        d->charged.of[RESOURCE_TABLE_BYTES] -= records(d, 1);
}

bool mapping_adopt(struct domain *d, struct mapping *m) {
        struct quota_amounts *charged = &d->charged;
        struct locked_run run = mapping_run(m);
        uint64_t edges[2], tables = 0;
        unsigned n = mapping_edges(m, edges);

        for (unsigned i = 0; i < n; i++)
                if (!adopt_page(d, m, edges[i]))
                        return false;
        if (domain_maps_need_tables(d, m->range.first) && !table_pages_add(&d->tables, mapping_seen(m), &tables))
                return false;
        table_pages_commit(&d->tables);
        d->kernel_mappings += mapping_pieces(m);
        charged->of[RESOURCE_MAPPINGS]++;
        charged->of[RESOURCE_TABLE_BYTES] += domain_in_containers(d, tables) + records(d, mapping_pieces(m));
        return quota_adopt_runs(&d->session->tenant->account, &run, 1, NULL);
}

void mapping_release(struct domain *d, struct mapping *m) {
        struct locked_run run = mapping_run(m);
        uint64_t edges[2];
        unsigned n = mapping_edges(m, edges);

        for (unsigned i = 0; i < n; i++)
                release_page(d, m, edges[i]);
        d->kernel_mappings -= mapping_pieces(m);
        d->charged.of[RESOURCE_MAPPINGS]--;
        d->charged.of[RESOURCE_TABLE_BYTES] -= records(d, mapping_pieces(m));
        quota_refund_runs(&d->session->tenant->account, &run, 1, NULL);
        m->memory->mappings--;
        mapping_set_remove(&d->mappings, m);
}

void session_refund(struct session *s) {
        struct quota_account *account = &s->tenant->account;
        struct quota_amounts charges;

        session_charges(s, &charges);
        for (struct domain *d = s->domains; d; d = d->hh.next) {
                static const struct iova_range all = { 0, UINT64_MAX };

                for (struct mapping *m = mapping_set_find(&d->mappings, all); m; m = mapping_set_next(&d->mappings, m)) {
                        struct locked_run run = mapping_run(m);

                        quota_refund_runs(account, &run, 1, NULL);
                }
        }
        quota_refund(account, &charges);
        for (struct memory *m = s->memories; m; m = m->hh.next) {
                locked_file_unref(account, m->file);
                m->file = NULL;
        }
}
