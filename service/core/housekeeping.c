/* SPDX-License-Identifier: Apache-2.0 */
#include "core/housekeeping.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "core/broker_private.h"
#include "core/holder_link.h"
#include "core/holder_start.h"
#include "core/recover.h"
#include "core/revocation.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"

#define TICK_MS 50
#define SLOW_TICKS 10           /* what may be late runs every SLOW_TICKS * TICK_MS */
#define START_MS 15000          /* a holder that needs longer to start will not */

/* One session: what it waits for and how long that has taken. */
static void look_after(struct session *s, uint64_t now, uint64_t settled_up_to) {
        struct broker *b = s->broker;
        struct holder_link *link;
        enum session_stage stage;
        uint64_t age;
        bool unclaimed;

        pthread_mutex_lock(&s->lock);
        stage = s->stage;
        link = s->link ? holder_link_ref(s->link) : NULL;
        age = now > s->born_ms ? now - s->born_ms : 0;          /* it may be younger than this look around */
        unclaimed = !s->claimed && stage == SESSION_LIVE && age > b->options.unclaimed_seconds * 1000ULL;
        pthread_mutex_unlock(&s->lock);
        if (stage == SESSION_STARTING && age > START_MS)
                revocation_begin(s, REFUSAL_INTERNAL, "its holder did not start in time");
        else if (unclaimed)
                revocation_begin(s, REFUSAL_UNKNOWN_SESSION, "its token was not claimed in time");
        else if (link && stage == SESSION_LIVE) {
                enum refusal_reason overdue = holder_link_overdue(link, now);
                uint64_t oldest = holder_link_oldest(link);

                if (overdue == REFUSAL_MEMORY_STALLED)
                        session_link_lost(s, overdue, "registering its memory took too long: the object's inode is held by a write "
                                                      "that does not end");
                else if (overdue != REFUSAL_NONE)
                        session_link_lost(s, overdue, "an operation took too long in its holder");
                else {  /* everything older has its answer here: the holder need not remember it */
                        holder_link_post(link, LINK_SETTLED, oldest == UINT64_MAX ? settled_up_to : oldest - 1, 0, NULL, 0, NULL,
                                         0);
                        FAILPOINT(results_released);
                }
        }
        holder_link_unref(link);
}

static void slow_tick(struct broker *b) {
        uint64_t now = monotonic_ms();
        /* Taken before the links are looked at: what gets a number later is not covered by it. */
        uint64_t settled_up_to = ledger_next_id(b->ledger);
        struct refusal r;
        size_t n;
        _cleanup_free_ struct session **list = broker_sessions(b, &n);

        for (size_t i = 0; list && i < n; i++) {
                look_after(list[i], now, settled_up_to);
                session_unref(list[i]);
        }
        lease_check_orphans(b);
        if (ledger_audit_flush(b->ledger, &r) < 0)
                log_warning("audit lines wait: %s", r.text);
}

static void lazy_tick_all(struct broker *b) {
        uint64_t now = monotonic_ms();
        size_t n;
        _cleanup_free_ struct session **list = broker_sessions(b, &n);

        for (size_t i = 0; list && i < n; i++) {
                lazy_tick(list[i], now);
                session_unref(list[i]);
        }
}

static void *run(void *arg) {
        static const struct timespec tick = { .tv_nsec = TICK_MS * 1000000L };
        struct broker *b = arg;
        unsigned failures = 0;

        for (unsigned ticks = 0; !atomic_load(&b->housekeeping_stop); ticks++) {
                struct refusal r;

                nanosleep(&tick, NULL);
                if (journal_flush(b->journal, &r) == 0)
                        failures = 0;
                else if (failures++ % 100 == 0)
                        log_error("the ledger cannot be written: %s", r.text);
                recover_tick(b);
                lazy_tick_all(b);
                if (ticks % SLOW_TICKS == 0)
                        slow_tick(b);
        }
        return NULL;
}

int housekeeping_start(struct broker *b) {
        int r = pthread_create(&b->housekeeping, NULL, run, b);

        b->housekeeping_started = r == 0;
        return -r;
}

void housekeeping_stop(struct broker *b) {
        if (!b->housekeeping_started)
                return;
        atomic_store(&b->housekeeping_stop, true);
        pthread_join(b->housekeeping, NULL);
        b->housekeeping_started = false;
}
