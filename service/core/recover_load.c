/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/adopt.h"
#include "core/broker_private.h"
#include "core/device.h"
#include "core/domain.h"
#include "core/domain_tables.h"
#include "core/domain_window.h"
#include "core/holder_start.h"
#include "core/op.h"
#include "core/recover.h"
#include "core/recovery.h"
#include "core/revocation.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"
#include "util/text.h"

/*
 * Start, first half: what the ledger says there is. Sessions become DETACHED, their objects get the state of their rows.
 * The second half (recover.c) hears what the holders applied.
 */
struct load {
        struct broker *broker;
        struct session *session;
        struct domain *domain;
        struct refusal *r;
};

static int out_of_memory(struct load *l) {
        return refuse(l->r, REFUSAL_INTERNAL, "out of memory");
}

static int load_mapping(const struct ledger_mapping *row, void *arg) {
        struct load *l = arg;
        struct iova_range range;
        struct memory *memory;
        struct mapping *m;

        HASH_FIND(hh, l->session->memories, &row->memory, sizeof row->memory, memory);
        if (!memory || !iova_range_make(row->iova, row->length, &range)) {
                refuse(l->r, REFUSAL_LEDGER_UNAVAILABLE,
                       "the ledger contradicts itself: mapping 0x%" PRIx64 " of domain %" PRIu64, row->iova, row->domain);
                l->r->errnum = EUCLEAN;
                return -1;
        }
        m = mapping_set_insert(&l->domain->mappings, range);
        if (!m)
                return out_of_memory(l);
        m->memory = memory;
        m->offset = row->offset;
        m->access = row->access;
        m->chunk_shift = (uint8_t)row->chunk_shift;
        m->page_shift = (uint8_t)row->page_shift;
        m->state = MAPPING_LIVE;
        memory->mappings++;
        if (!mapping_adopt(l->domain, m))
                return out_of_memory(l);
        return recovery_note_mapping(l->session->recovery, row) < 0 ? out_of_memory(l) : 0;
}

static int load_attachment(const struct ledger_attachment *row, void *arg) {
        struct load *l = arg;

        return attachment_add(l->session, l->domain, row->id, row->device, row->group, row->state) ? 0 : out_of_memory(l);
}

static int load_touched(struct iova_range range, void *arg) {
        struct load *l = arg;

        return domain_adopt_touched(l->domain, range) ? 0 : out_of_memory(l);
}

/* One that is on its way has no place until it is known whether it is there; a default window that a reset brings back would lie
 * where others are. */
static int load_window(const struct ledger_window *row, void *arg) {
        struct load *l = arg;
        struct window w;

        window_from_row(row, &w);
        if (w.state == LEDGER_INTENDED && w.is_default)
                w.range = window_range_at(WINDOW_NOWHERE, row->size);
        return window_set_add(&l->domain->windows, &w) ? 0 : out_of_memory(l);
}

static int load_domain(const struct ledger_domain *row, void *arg) {
        struct load *l = arg;

        l->domain = domain_add(l->session, row->id, row->label, row->lazy, row->state);
        if (!l->domain)
                return out_of_memory(l);
        if (ledger_attachments(l->broker->ledger, row->id, load_attachment, l, l->r) != 0 ||
            ledger_windows(l->broker->ledger, row->id, load_window, l, l->r) != 0)
                return -1;
        domain_adopt_tables(l->domain);
        domain_adopt_windows(l->domain);
        if (ledger_touched(l->broker->ledger, row->id, load_touched, l, l->r) != 0)
                return -1;
        return ledger_mappings(l->broker->ledger, row->id, load_mapping, l, l->r) != 0 ? -1 : 0;
}

static int load_memory(const struct ledger_memory *row, void *arg) {
        struct load *l = arg;
        struct memory *m = calloc(1, sizeof *m);

        if (!m)
                return out_of_memory(l);
        m->id = row->id;
        m->size = m->charged_bytes = row->size;
        m->page_size = row->page_size;
        m->dev = row->dev;
        m->ino = row->ino;
        m->sealed = row->sealed;
        m->writable = row->writable;
        m->state = row->state;
        memory_identify(l->session, m);
        HASH_ADD(hh, l->session->memories, id, sizeof m->id, m);
        return 0;
}

static int load_op(const struct ledger_op *row, const struct ledger_op_parts *parts, void *arg) {
        struct load *l = arg;

        if (row->settled)
                return op_key_restore(l->session, row) < 0 ? out_of_memory(l) : 0;
        return recovery_note_op(l->session->recovery, row, parts) < 0 ? out_of_memory(l) : 0;
}

/* A session's tenant may be gone from the file meanwhile: its sessions go on, new ones are refused. */
static struct tenant *tenant_for(struct broker *b, const char *name) {
        struct tenant *t = tenant_find(b, name);

        if (t)
                return t;
        t = calloc(1, sizeof *t);
        if (!t)
                return NULL;
        text_copy(t->name, sizeof t->name, name);
        text_copy(t->config.name, sizeof t->config.name, name);
        t->retired = true;
        quota_account_init(&t->account, t->name);
        t->account.host = &b->host;
        HASH_ADD_STR(b->tenants, name, t);
        return t;
}

static void fill_session(struct session *s, const struct ledger_session *row) {
        uint64_t start_time;

        s->stage = row->state == LEDGER_LIVE ? SESSION_DETACHED : SESSION_ENDING;
        s->claimed = true;
        s->peer.uid = row->uid;
        s->peer.gid = row->gid;
        s->peer.pid = (pid_t)row->pid;
        s->peer.start_time = row->start_time;
        text_copy(s->peer.tenant, sizeof s->peer.tenant, row->tenant);
        text_copy(s->client_name, sizeof s->client_name, row->client_name);
        memcpy(s->token_hash.bytes, row->token_hash, sizeof s->token_hash.bytes);
        memcpy(s->secret_hash.bytes, row->secret_hash, sizeof s->secret_hash.bytes);
        s->holder_pid = row->holder_pid;
        s->holder_uid = row->holder_uid;
        s->holder_start_time = row->holder_start_time;
        s->holder_pidfd = row->holder_pid ? holder_identify(row->holder_pid, row->holder_uid, &start_time) : -1;
        if (s->holder_pidfd >= 0 && start_time != row->holder_start_time)
                s->holder_pidfd = fd_close(s->holder_pidfd);    /* another process by now */
        if (s->holder_pidfd < 0)
                s->holder_pidfd = -1;
}

static int load_session(const struct ledger_session *row, void *arg) {
        struct load *l = arg;
        struct broker *b = l->broker;
        struct tenant *t = tenant_for(b, row->tenant);
        struct session *s = t ? session_new(b, t, row->id) : NULL;
        struct quota_amounts charges;
        bool loaded;

        if (!s)
                return out_of_memory(l);
        fill_session(s, row);
        session_register(s);
        session_unref(s);               /* the registry has it */
        l->session = s;
        s->recovery = recovery_new();
        if (!s->recovery)
                return out_of_memory(l);
        loaded = ledger_memories(b->ledger, s->id, load_memory, l, l->r) == 0 &&
                 ledger_domains(b->ledger, s->id, load_domain, l, l->r) == 0 &&
                 ledger_ops(b->ledger, s->id, load_op, l, l->r) == 0;
        recovery_allow(s->recovery, s->recovery->n_rows);
        session_charges(s, &charges);   /* also of a half: the stop that follows gives it back */
        if (!quota_adopt(&t->account, &charges))
                return refuse(l->r, REFUSAL_LEDGER_UNAVAILABLE, "the charges of session %" PRIu64 " pass 2^64", s->id);
        return loaded ? 0 : -1;
}

int recover_load(struct broker *b, struct refusal *r) {
        struct load l = { .broker = b, .r = r };
        size_t n;

        if (ledger_sessions(b->ledger, load_session, &l, r) != 0)
                return -1;
        FAILPOINT(recover_loaded);
        _cleanup_free_ struct session **list = broker_sessions(b, &n);
        b->recover_until_ms = monotonic_ms() + b->options.recover_seconds * 1000ULL;
        atomic_store(&b->recovering, n > 0);
        if (n == 0)
                device_find_orphans(b);
        if (n > 0)
                log_notice("%zu sessions of a former life of this service: waiting up to %u s for their holders", n,
                           b->options.recover_seconds);
        for (size_t i = 0; list && i < n; i++) {
                if (list[i]->stage == SESSION_ENDING)
                        revocation_begin(list[i], REFUSAL_HOLDER_LOST, "it was ending when the service was restarted");
                else if (list[i]->holder_pidfd < 0)
                        revocation_begin(list[i], REFUSAL_HOLDER_LOST, "its holder died while the service was away");
                session_unref(list[i]);
        }
        return 0;
}

void recover_tick(struct broker *b) {
        bool late = monotonic_ms() > b->recover_until_ms, waiting = false;
        size_t n;

        if (!atomic_load(&b->recovering))
                return;
        _cleanup_free_ struct session **list = broker_sessions(b, &n);
        for (size_t i = 0; list && i < n; i++) {
                enum session_stage stage;
                bool unrecorded;

                pthread_mutex_lock(&list[i]->lock);
                stage = list[i]->stage;
                unrecorded = list[i]->recovery && list[i]->recovery->unrecorded;
                pthread_mutex_unlock(&list[i]->lock);
                if (stage == SESSION_RECONCILING && unrecorded) {
                        recover_record(list[i]);
                        waiting = true;
                } else if (stage == SESSION_DETACHED || stage == SESSION_RECONCILING) {
                        if (late || holder_wait(list[i]->holder_pidfd, 0))
                                revocation_begin(list[i], REFUSAL_HOLDER_LOST, "its holder did not come back");
                        waiting = true;
                }
                session_unref(list[i]);
        }
        /* Sessions that are being ended keep their groups from being lent: core/lease.c knows them as orphans by then. */
        if (!waiting && atomic_load(&b->revocations) == 0) {
                device_find_orphans(b);
                atomic_store(&b->recovering, false);
                FAILPOINT(recovered);
                log_notice("recovered: %zu sessions go on", n);
        }
}
