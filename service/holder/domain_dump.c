/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/domain_private.h"

#include <inttypes.h>
#include <stdlib.h>

#include "util/log.h"

/* The container goes with the first attachment of its group. */
static void dump_attachments(const struct domain *d, const struct domain_dump_sink *sink) {
        for (const struct attachment *at = d->attachments; at; at = at->next) {
                struct link_dump_attachment m = { .attach = at->attach, .acked = at->ever_acked };
                const struct attachment *first = d->attachments;
                int fds[2];
                size_t n = 0;

                while (first->group != at->group)
                        first = first->next;
                if (first == at && at->group->keeper_fd >= 0) {
                        m.container_sent = 1;
                        fds[n++] = at->group->keeper_fd;
                }
                if (at->keeper_fd >= 0)
                        fds[n++] = at->keeper_fd;
                sink->attachment(sink->userdata, &m, fds, n);
        }
}

static void dump_revokers(const struct domain *d, const struct domain_dump_sink *sink) {
        for (const struct group *g = d->groups; g; g = g->next)
                if (g->revoker_fd >= 0)
                        sink->revoker(sink->userdata, g->number, g->revoker_fd);
}

static void dump_windows(const struct domain *d, const struct domain_dump_sink *sink) {
        for (uint32_t i = 0; i < d->n_windows; i++) {
                const struct backend_window *w = &d->windows[i];
                const struct link_window m = { .start = w->start, .size = w->size, .page_shift = w->page_shift,
                                               .levels = w->levels };

                sink->window(sink->userdata, &m);
        }
}

static void dump_mappings(const struct domain *d, const struct domain_dump_sink *sink) {
        struct link_map_entry *entries = calloc(LINK_BATCH_MAX, sizeof *entries);
        struct node *node;
        size_t n = 0;

        if (!entries) {
                log_error("no memory to dump domain %" PRIu64, d->id);
                return;         /* fewer entries than announced: the broker sees that this is no dump */
        }
        RB_FOREACH(node, node_tree, (struct node_tree *)&d->tree) {
                entries[n++] = (struct link_map_entry){ .iova = node->range.first,
                                                        .length = iova_range_length(node->range),
                                                        .memory = object_id(node->object), .offset = node->offset,
                                                        .access = node->access,
                                                        .chunk_shift = node->chunk_shift };
                if (n == LINK_BATCH_MAX) {
                        sink->mappings(sink->userdata, entries, n);
                        n = 0;
                }
        }
        if (n > 0)
                sink->mappings(sink->userdata, entries, n);
        free(entries);
}

void domain_dump(const struct domain *d, const struct domain_dump_sink *sink) {
        struct link_dump_domain m = { .mappings = d->n_mappings, .quarantined = d->undo_failures > 0,
                                      .has_windows = d->has_windows, .n_windows = d->n_windows };

        for (const struct attachment *at = d->attachments; at; at = at->next)
                m.attachments++;
        domain_info(d, &m.info);
        sink->domain(sink->userdata, &m);
        dump_attachments(d, sink);
        dump_revokers(d, sink);
        dump_windows(d, sink);
        dump_mappings(d, sink);
}
