/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>

#include "core/check_holders.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/broker_private.h"
#include "core/change_private.h"
#include "core/holder_link.h"
#include "core/recover.h"
#include "core/recovery.h"
#include "util/cleanup.h"

#define DUMP_SECONDS 5
#define TRIES 5

/* Session's lock held. */
bool holders_check_message(struct session *s, const struct link_header *h, size_t size) {
        if (!s->check || s->stage != SESSION_LIVE)
                return false;
        if (h->type != LINK_RESULT)
                s->check_failed |= recovery_note_message(s->check, h, size) < 0;
        else if (h->seq == s->check->dump_seq) {
                s->check_done = true;
                pthread_cond_broadcast(&s->check_changed);
        } else
                return false;
        return true;
}

/* Asks for a dump and waits for it. Session's lock held, dropped while waiting. */
static bool fetch_dump(struct session *s) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += DUMP_SECONDS;
        s->check_done = s->check_failed = false;
        if (!s->link || holder_link_post(s->link, LINK_DUMP, s->check->dump_seq, 0, NULL, 0, NULL, 0) < 0)
                return false;
        while (!s->check_done && !s->check_failed)
                if (pthread_cond_timedwait(&s->check_changed, &s->lock, &until) != 0)
                        return false;
        return s->check_done;
}

struct finding {
        void (*each)(const struct check_view *v, void *arg);
        void *arg;
};

static void report(struct finding *f, const char *format, uint64_t session, uint64_t domain, uint64_t iova) {
        char text[256];
        const struct check_view v = { "I2", text };

        (void)snprintf(text, sizeof text, format, session, domain, iova);
        f->each(&v, f->arg);
}

static void expect(struct session *s, const struct domain *d, const struct link_map_entry *entry, struct finding *f) {
        struct dumped_mapping *there = recovery_find_exact(s->check, d->id, entry);

        if (there)
                there->explained = true;
        else
                report(f, "session %" PRIu64 ", domain %" PRIu64 ": what is mapped at 0x%" PRIx64
                          " is in the ledger, and not, or otherwise, in its holder", s->id, d->id, entry->iova);
}

/* Where the holder has windows at all. */
static void compare_windows(struct session *s, const struct domain *d, struct finding *f) {
        const struct dumped_domain *there = recovery_find_domain(s->check, d->id);
        size_t found = 0;

        if (!there || !there->d.has_windows)
                return;
        for (size_t i = 0; i < s->check->n_windows; i++) {
                const struct link_window *w = &s->check->windows[i].w;
                const struct window *ours = window_set_at(&d->windows, w->start);

                if (s->check->windows[i].domain != d->id)
                        continue;
                if (ours && ours->range.first == w->start && iova_range_length(ours->range) == w->size)
                        found++;
                else
                        report(f, "session %" PRIu64 ", domain %" PRIu64 ": its holder has a window at 0x%" PRIx64
                                  " that no row explains", s->id, d->id, w->start);
        }
        if (found != d->windows.n)
                report(f, "session %" PRIu64 ", domain %" PRIu64 ": %" PRIu64 " of its windows are not in its holder", s->id, d->id,
                       d->windows.n - found);
}

/* Session's lock held, nothing in flight. */
static void compare(struct session *s, struct finding *f) {
        static const struct iova_range all = { 0, UINT64_MAX };
        struct link_map_entry entry;

        recovery_sort(s->check);
        for (struct domain *d = s->domains; d; d = d->hh.next) {
                for (struct mapping *m = mapping_set_find(&d->mappings, all); m; m = mapping_set_next(&d->mappings, m))
                        if (mapping_body_entry(m, &entry))
                                expect(s, d, &entry, f);
                for (struct shared_page *p = shared_page_from(&d->pages, 0); p; p = shared_page_next(&d->pages, p)) {
                        entry = shared_page_entry(p, shared_page_union(p));
                        expect(s, d, &entry, f);
                }
                compare_windows(s, d, f);
        }
        for (size_t i = 0; i < s->check->n_mappings; i++)
                if (!s->check->mappings[i].explained)
                        report(f, "session %" PRIu64 ", domain %" PRIu64 ": its holder has a mapping at 0x%" PRIx64
                                  " that no row explains", s->id, s->check->mappings[i].domain, s->check->mappings[i].m.iova);
}

/* 1: compared; 0: it changed meanwhile, or there is nothing to compare. */
static int check_one(struct session *s, struct finding *f) {
        uint64_t mappings = 0;
        int result = 0;
        struct refusal r;
        unsigned before;
        LOCK_SCOPE(&s->lock);

        if (s->stage != SESSION_LIVE || s->check || ledger_ids_ready(s->broker->ledger, &r) < 0 || atomic_load(&s->in_flight) > 0)
                return 0;
        s->check = recovery_new();
        if (!s->check)
                return 0;
        for (struct domain *d = s->domains; d; d = d->hh.next)
                mappings += d->mappings.count;
        recovery_allow(s->check, mappings);
        s->check->dump_seq = ledger_next_id(s->broker->ledger);
        before = s->mutations;
        if (fetch_dump(s) && s->mutations == before && s->stage == SESSION_LIVE) {
                compare(s, f);
                result = 1;
        }
        s->check = recovery_free(s->check);
        return result;
}

int holders_check(struct broker *b, void (*each)(const struct check_view *v, void *arg), void *arg, uint64_t *ret_holders,
                  struct refusal *r) {
        static const struct timespec moment = { .tv_nsec = 20000000 };
        struct finding f = { each, arg };
        size_t n;
        _cleanup_free_ struct session **list = broker_sessions(b, &n);

        if (!list)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        *ret_holders = 0;
        for (size_t i = 0; i < n; i++) {
                int compared = 0;

                /* A session that is busy all the time is left out, and the count of holders tells. */
                for (int try = 0; try < TRIES && !compared; try++) {
                        if (try > 0)
                                nanosleep(&moment, NULL);
                        compared = check_one(list[i], &f);
                }
                *ret_holders += (uint64_t)compared;
                session_unref(list[i]);
        }
        return 0;
}
