/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A core without ledger, holders or devices, included by tests of what lies above it. It remembers what it was asked
 * and answers as the test says: at once, later from another thread, when released, or with a refusal.
 *
 * The token of a process is made from its pid (fake_token()), its tenant from its uid ("tenant-0").
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/broker.h"
#include "core/requests.h"
#include "session_channel.h"
#include "util/cleanup.h"

enum fake_mode {
        FAKE_NOW,               /* mutations are answered before the function returns */
        FAKE_LATER,             /* by another thread, delay_ms later */
        FAKE_HELD,              /* when fake_release() is called */
};

#define FAKE_PENDING_MAX 4096U

struct session {
        atomic_uint references;
        uint64_t id;
        char tenant[LEDGER_NAME_MAX];
};

static struct fake_core {
        pthread_mutex_t lock;
        pthread_cond_t wake;
        enum fake_mode mode;
        unsigned delay_ms;
        struct refusal refusal;         /* reason != NONE: the answer to everything */
        bool refuse_peers;              /* tenant_of_peer() knows nobody */
        /* what came */
        char last[64];                  /* name of the last request function */
        struct request_key key;
        uint64_t domain, object;
        char name[LEDGER_NAME_MAX], client_name[LEDGER_NAME_MAX];
        bool force, unsealed, read_only, populate, lazy;
        size_t n, n_memory, n_access, n_chunk;
        uint64_t chunk[REQUEST_BATCH_MAX];
        struct map_request map;         /* without its arrays */
        enum split_policy split;
        struct create_window_request window;
        uint64_t iova[REQUEST_BATCH_MAX], length[REQUEST_BATCH_MAX];
        uint64_t offset[REQUEST_BATCH_MAX], memory[REQUEST_BATCH_MAX];
        uint32_t access[REQUEST_BATCH_MAX];
        struct iova_range range;
        struct tenant_upsert upsert;
        /* counts */
        atomic_uint calls, sessions_live, sessions_started, connections_refused, audits;
        char refused_text[REFUSAL_TEXT_MAX], audit_text[REFUSAL_TEXT_MAX];
        /* what queries answer */
        atomic_size_t n_devices, n_mappings, n_domains, n_tenants, n_sessions, n_violations, n_windows, n_free;
        atomic_bool exposed;            /* mappings expose the page before them */
        /* replies that wait */
        struct reply *pending[FAKE_PENDING_MAX];
        struct answer answers[FAKE_PENDING_MAX];
        struct refusal refusals[FAKE_PENDING_MAX];
        size_t n_pending;
        pthread_t thread;
        bool threaded, ending;
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };

static struct broker *const fake_broker = (struct broker *)&fake;

__attribute__((unused)) static void fake_token(pid_t pid, char token[2 * SESSION_TOKEN_BYTES + 1]) {
        (void)snprintf(token, 2 * SESSION_TOKEN_BYTES + 1, "%032x", (unsigned)pid);
}

/* What a test wrote to fake before a call, and what a call wrote to it, happens before what follows this: the order
 * is that of the wire, which nobody but the lock can show to ThreadSanitizer. */
__attribute__((unused)) static void fake_sync(void) {
        pthread_mutex_lock(&fake.lock);
        pthread_mutex_unlock(&fake.lock);
}

static void sleep_ms(unsigned ms) {
        struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

        nanosleep(&t, NULL);
}

/* Answers everything that waits. */
static void fake_release(void) {
        for (;;) {
                struct reply *reply;
                struct answer answer;
                struct refusal refusal;

                pthread_mutex_lock(&fake.lock);
                if (fake.n_pending == 0) {
                        pthread_mutex_unlock(&fake.lock);
                        return;
                }
                fake.n_pending--;
                reply = fake.pending[fake.n_pending];
                answer = fake.answers[fake.n_pending];
                refusal = fake.refusals[fake.n_pending];
                pthread_mutex_unlock(&fake.lock);
                reply->done(reply, refusal.reason ? &refusal : NULL, refusal.reason ? NULL : &answer);
        }
}

static void *fake_thread(void *arg) {
        (void)arg;
        for (;;) {
                unsigned delay;

                pthread_mutex_lock(&fake.lock);
                while (!fake.ending && (fake.mode != FAKE_LATER || fake.n_pending == 0))
                        pthread_cond_wait(&fake.wake, &fake.lock);
                delay = fake.delay_ms;
                if (fake.ending) {
                        pthread_mutex_unlock(&fake.lock);
                        return NULL;
                }
                pthread_mutex_unlock(&fake.lock);
                sleep_ms(delay);
                fake_release();
        }
}

/* Also forgets what was asked before. */
__attribute__((unused)) static void fake_set(enum fake_mode mode, unsigned delay_ms) {
        LOCK_SCOPE(&fake.lock);

        fake.mode = mode;
        fake.delay_ms = delay_ms;
        memset(&fake.refusal, 0, sizeof fake.refusal);
        fake.refuse_peers = false;
        fake.last[0] = '\0';
        if (mode == FAKE_LATER && !fake.threaded)
                fake.threaded = pthread_create(&fake.thread, NULL, fake_thread, NULL) == 0;
        pthread_cond_broadcast(&fake.wake);
}

__attribute__((unused)) static void fake_end(void) {
        pthread_mutex_lock(&fake.lock);
        fake.ending = true;
        pthread_cond_broadcast(&fake.wake);
        pthread_mutex_unlock(&fake.lock);
        if (fake.threaded)
                pthread_join(fake.thread, NULL);
        fake.threaded = fake.ending = false;
        fake_release();
}

__attribute__((unused)) static void fake_refuse(const struct refusal *r) {
        LOCK_SCOPE(&fake.lock);

        fake.refusal = *r;
}

__attribute__((unused)) static void fake_refuse_peers(void) {
        LOCK_SCOPE(&fake.lock);

        fake.refuse_peers = true;
}

/* Under the lock: writes down what came. */
static void fake_note(const char *function, const struct request_key *key) {
        (void)snprintf(fake.last, sizeof fake.last, "%s", function);
        if (key)
                fake.key = *key;
        fake.calls++;
}

/* name: remembered if not NULL. */
static int fake_query(const char *function, const char *name, struct refusal *r) {
        LOCK_SCOPE(&fake.lock);

        fake_note(function, NULL);
        if (name)
                (void)snprintf(fake.name, sizeof fake.name, "%s", name);
        if (!fake.refusal.reason || !r)
                return 0;
        *r = fake.refusal;
        return -1;
}

/* Drops the lock and answers. */
static void fake_answer(struct reply *reply, const struct answer *answer) {
        struct refusal refusal = fake.refusal;

        if (fake.mode != FAKE_NOW && fake.n_pending < FAKE_PENDING_MAX) {
                fake.pending[fake.n_pending] = reply;
                fake.answers[fake.n_pending] = *answer;
                fake.refusals[fake.n_pending++] = refusal;
                pthread_cond_broadcast(&fake.wake);
                pthread_mutex_unlock(&fake.lock);
                return;
        }
        pthread_mutex_unlock(&fake.lock);
        reply->done(reply, refusal.reason ? &refusal : NULL, refusal.reason ? NULL : answer);
}

static void fake_info(struct container_info *i) {
        *i = (struct container_info){ .page_sizes = 0x40201000, .max_mappings = UINT32_MAX, .n_ranges = 2,
                                      .ranges = { { 0, 0xfedfffff }, { 0xfef00000, UINT64_MAX } } };
}

/* ---- sessions ---- */

int session_authenticate(struct broker *b, const char *token, const struct peer *peer, struct session **ret,
                         struct refusal *r) {
        char own[2 * SESSION_TOKEN_BYTES + 1];
        struct session *s;

        (void)b;
        fake_token(peer->pid, own);
        if (strcmp(token, own) != 0)
                return refuse(r, REFUSAL_UNKNOWN_SESSION, "no such session");
        s = calloc(1, sizeof *s);
        if (!s)
                abort();
        atomic_init(&s->references, 1);
        s->id = (uint64_t)peer->pid;
        (void)snprintf(s->tenant, sizeof s->tenant, "%s", peer->tenant);
        fake.sessions_live++;
        *ret = s;
        return 0;
}

struct session *session_unref(struct session *s) {
        if (s && atomic_fetch_sub(&s->references, 1) == 1) {
                fake.sessions_live--;
                free(s);
        }
        return NULL;
}

uint64_t session_id(const struct session *s) {
        return s->id;
}

const char *session_tenant_name(const struct session *s) {
        return s->tenant;
}

void session_set_client_name(struct session *s, const char *name) {
        LOCK_SCOPE(&fake.lock);

        (void)s;
        fake_note("session_set_client_name", NULL);
        (void)snprintf(fake.client_name, sizeof fake.client_name, "%s", name);
}

void session_start(struct broker *b, int connection, const struct peer *peer) {
        char token[2 * SESSION_TOKEN_BYTES + 1];

        (void)b;
        fake_token(peer->pid, token);
        (void)send(connection, token, sizeof token, MSG_NOSIGNAL);
        fake.sessions_started++;
        fd_close(connection);
}

void session_refuse_connection(struct broker *b, int connection, const struct refusal *r) {
        const char *name = refusal_reason_name(r->reason);

        (void)b;
        (void)send(connection, name, strlen(name) + 1, MSG_NOSIGNAL);
        fd_close(connection);
        LOCK_SCOPE(&fake.lock);
        (void)snprintf(fake.refused_text, sizeof fake.refused_text, "%s", r->text);
        fake.connections_refused++;
}

void broker_audit(struct broker *b, const char *event, const struct peer *peer, const char *text) {
        LOCK_SCOPE(&fake.lock);

        (void)b;
        (void)event;
        (void)peer;
        (void)snprintf(fake.audit_text, sizeof fake.audit_text, "%s", text);
        fake.audits++;
}

int tenant_of_peer(struct broker *b, struct peer *peer, struct refusal *r) {
        LOCK_SCOPE(&fake.lock);

        (void)b;
        if (fake.refuse_peers) {
                (void)snprintf(peer->tenant, sizeof peer->tenant, "half-done");
                return refuse(r, REFUSAL_UNKNOWN_PEER, "uid %u is no tenant", peer->uid);
        }
        (void)snprintf(peer->tenant, sizeof peer->tenant, "tenant-%u", peer->uid);
        return 0;
}

/* ---- mutations ---- */

#define FAKE_BEGIN(key)                                                                                                \
        struct answer answer = { 0 };                                                                                  \
        pthread_mutex_lock(&fake.lock);                                                                                \
        fake_note(__func__, key);                                                                                      \
        answer.id = 1000U + fake.calls;

void session_close_request(struct session *s, struct reply *reply) {
        FAKE_BEGIN(NULL)
        (void)s;
        fake_answer(reply, &answer);
}

void domain_create_request(struct session *s, const struct create_domain_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        answer.id = s->id;      /* so that a test sees whose session it was */
        fake.lazy = req->lazy;
        (void)snprintf(fake.name, sizeof fake.name, "%s", req->label);
        fake_answer(reply, &answer);
}

void domain_destroy_request(struct session *s, const struct destroy_domain_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        (void)s;
        fake.domain = req->domain;
        fake.force = req->force;
        fake_answer(reply, &answer);
}

void device_attach_request(struct session *s, const struct attach_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        (void)s;
        fake.domain = req->domain;
        (void)snprintf(fake.name, sizeof fake.name, "%s", req->device);
        fake_info(&answer.info);
        fake_answer(reply, &answer);
}

void device_detach_request(struct session *s, const struct detach_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        (void)s;
        fake.object = req->attachment;
        fake_answer(reply, &answer);
}

void memory_register_request(struct session *s, const struct register_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        (void)s;
        fake.object = req->ticket;
        fake.unsealed = req->unsealed;
        fake.read_only = req->read_only;
        fake.populate = req->populate;
        answer.size = req->size;
        answer.page_size = 4096;
        answer.sealed = true;
        fake_answer(reply, &answer);
}

void memory_unregister_request(struct session *s, const struct unregister_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        (void)s;
        fake.object = req->memory;
        fake_answer(reply, &answer);
}

void map_request_start(struct session *s, const struct map_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        (void)s;
        fake.domain = req->domain;
        fake.n = req->n;
        fake.n_memory = req->n_memory;
        fake.n_access = req->n_access;
        fake.n_chunk = req->n_chunk;
        fake.map = *req;
        if (!req->anywhere)
                memcpy(fake.iova, req->iova, req->n * sizeof *req->iova);
        memcpy(fake.length, req->length, req->n * sizeof *req->length);
        memcpy(fake.offset, req->offset, req->n * sizeof *req->offset);
        memcpy(fake.memory, req->memory, req->n_memory * sizeof *req->memory);
        memcpy(fake.access, req->access, req->n_access * sizeof *req->access);
        if (req->n_chunk > 0)
                memcpy(fake.chunk, req->chunk, req->n_chunk * sizeof *req->chunk);
        answer.iova = 0xabc000;
        answer.mappings = req->n;
        answer.locked_bytes = 0x5000;
        answer.table_bytes = 0x1080;
        fake_answer(reply, &answer);
}

void unmap_request_start(struct session *s, const struct unmap_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        (void)s;
        fake.domain = req->domain;
        fake.n = req->n;
        fake.split = req->split;
        if (req->n > 0) {
                memcpy(fake.iova, req->iova, req->n * sizeof *req->iova);
                memcpy(fake.length, req->length, req->n * sizeof *req->length);
        }
        answer.unmapped_bytes = 0x3000;
        answer.unmapped_mappings = 3;
        fake_answer(reply, &answer);
}

void sync_request_start(struct session *s, const struct sync_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        (void)s;
        fake.domain = req->domain;
        answer.unmapped_bytes = 0x7000;
        answer.unmapped_mappings = 7;
        fake_answer(reply, &answer);
}

static void fake_window(uint64_t id, struct window_view *v) {
        *v = (struct window_view){ .id = id, .start = id << 32, .size = UINT64_C(1) << 30, .mappings = 2,
                                   .mapped_bytes = 0x20000, .quota = 0x100000, .table_bytes = 0x3000, .page_shift = 16,
                                   .levels = 2, .is_default = id == 1, .state = LEDGER_LIVE };
}

void window_create_request(struct session *s, const struct create_window_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        (void)s;
        fake.window = *req;
        fake_window(5, &answer.window);
        fake_answer(reply, &answer);
}

void window_remove_request(struct session *s, const struct remove_window_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        (void)s;
        fake.domain = req->domain;
        fake.object = req->window;
        fake.force = req->force;
        answer.unmapped_bytes = 0x8000;
        answer.unmapped_mappings = 8;
        fake_answer(reply, &answer);
}

void windows_reset_request(struct session *s, const struct reset_windows_request *req, struct reply *reply) {
        FAKE_BEGIN(&req->key)
        (void)s;
        fake.domain = req->domain;
        answer.unmapped_bytes = 0x9000;
        answer.unmapped_mappings = 9;
        fake_answer(reply, &answer);
}

/* ---- queries ---- */

const char *object_state_name(enum ledger_object_state state) {
        return state == LEDGER_LIVE ? "live" : "not-live";
}

int window_query(struct broker *b, struct session *s, uint64_t domain, struct windows_view *ret, struct refusal *r) {
        (void)b;
        if (fake_query(__func__, NULL, r) < 0)
                return -1;
        pthread_mutex_lock(&fake.lock);
        fake.domain = domain;
        pthread_mutex_unlock(&fake.lock);
        *ret = (struct windows_view){ .n = fake.n_windows, .can_create = s ? 3 : 4, .levels_max = 5,
                                      .page_sizes = 0x11000, .largest = UINT64_C(1) << 43, .n_free = fake.n_free };
        for (size_t i = 0; i < ret->n; i++)
                fake_window(i + 1, &ret->windows[i]);
        for (size_t i = 0; i < ret->n_free; i++)
                ret->free[i] = (struct iova_range){ i << 40, (i << 40) + 0xfff };
        return 0;
}

static void fake_domain(uint64_t id, struct domain_view *v) {
        *v = (struct domain_view){ .id = id, .session = 7, .mappings = 3, .mapped_bytes = 0x3000, .label = "disk",
                                   .tenant = "tenant-0", .state = "live", .client_pid = 42, .n_attachments = 1,
                                   .lazy = id % 2 == 0, .deferred_mappings = 11, .deferred_bytes = 12,
                                   .kernel_mappings = 13, .table_bytes = 14, .shared_pages = 15 };
        v->attachments[0] = (struct attachment_view){ .id = 9, .device = "edu0", .state = "live" };
        fake_info(&v->info);
}

int domain_describe(struct broker *b, struct session *s, uint64_t domain, struct domain_view *ret, struct refusal *r) {
        (void)b;
        (void)s;
        fake_domain(domain, ret);
        return fake_query(__func__, NULL, r);
}

size_t domain_list(struct broker *b, const char *tenant, uint64_t after, size_t max,
                   void (*each)(const struct domain_view *v, void *arg), void *arg) {
        struct domain_view v;
        size_t n = 0;

        (void)b;
        (void)tenant;
        fake_sync();
        for (uint64_t id = after + 1; id <= fake.n_domains && n < max; id++, n++) {
                fake_domain(id, &v);
                each(&v, arg);
        }
        return n;
}

/* Mapping i is the page at i * 0x2000. */
int mapping_list(struct broker *b, struct session *s, uint64_t domain, struct iova_range range, size_t max,
                 struct mapping_view *ret, size_t *ret_n, bool *ret_more, struct refusal *r) {
        size_t n = 0;

        (void)b;
        if (fake_query(__func__, NULL, r) < 0)
                return -1;
        if (!s && domain == 0)
                return refuse(r, REFUSAL_UNKNOWN_DOMAIN, "no domain");
        pthread_mutex_lock(&fake.lock);
        fake.range = range;
        pthread_mutex_unlock(&fake.lock);
        *ret_more = false;
        for (uint64_t i = 0; i < fake.n_mappings; i++) {
                uint64_t iova = i * 0x2000;

                if (iova > range.last || iova + 0xfff < range.first)
                        continue;
                if (n == max) {
                        *ret_more = true;
                        break;
                }
                ret[n++] = (struct mapping_view){ .domain = domain, .iova = iova, .length = 0x1000, .memory = 5,
                                                  .offset = iova, .access = 3, .state = "live",
                                                  .exposed = { 1, 0 } };
                if (!fake.exposed)
                        continue;
                ret[n - 1].chunk = 0x400;
                ret[n - 1].exposed = (struct iova_range){ iova, iova + 0x1fff };
                ret[n - 1].exposed_access = 1;
        }
        *ret_n = n;
        return 0;
}

size_t quota_list(struct session *s, struct quota_view *ret) {
        (void)s;
        (void)fake_query(__func__, NULL, NULL);
        ret[0] = (struct quota_view){ RESOURCE_LOCKED_BYTES, 1U << 20, 4096 };
        ret[1] = (struct quota_view){ RESOURCE_DOMAINS, UINT64_MAX, 1 };
        ret[2] = (struct quota_view){ RESOURCE_SESSIONS, 4, 7 };        /* the limit was lowered */
        return 3;
}

int constraints_query(struct broker *b, struct session *s, const char *device, struct container_info *ret,
                      struct refusal *r) {
        (void)b;
        (void)s;
        fake_info(ret);
        return fake_query(__func__, device, r);
}

static void fake_device(size_t i, struct device_view *v) {
        *v = (struct device_view){ .driver = "vfio-pci", .vendor_device = "1234:11e8", .group = (uint32_t)i,
                                   .usable = true, .state = "free" };
        (void)snprintf(v->name, sizeof v->name, "0000:00:%02zx.0", i);
        (void)snprintf(v->members, sizeof v->members, "0000:00:%02zx.0 0000:00:%02zx.1", i, i);
}

/* In descending order: whoever pages must not count on another. */
int device_list(struct broker *b, struct session *s, int (*each)(const struct device_view *v, void *arg), void *arg,
                struct refusal *r) {
        struct device_view v;

        (void)b;
        (void)s;
        if (fake_query(__func__, NULL, r) < 0)
                return -1;
        for (size_t i = fake.n_devices; i > 0; i--) {
                fake_device(i - 1, &v);
                if (each(&v, arg))
                        break;
        }
        return 0;
}

const char *broker_backend_name(struct broker *b) {
        (void)b;
        return "soft";
}

void broker_status(struct broker *b, struct status_view *ret) {
        (void)b;
        (void)fake_query(__func__, NULL, NULL);
        *ret = (struct status_view){ .version = "1.2", .backend = "soft", .state = "serving", .ledger_path = "/x",
                                     .uptime_seconds = 11, .tenants = 1, .sessions = 2, .domains = 3, .mappings = 4,
                                     .mapped_bytes = 5, .devices = 6, .orphaned_devices = 7 };
}

size_t host_use_list(struct broker *b, struct host_use_view *ret) {
        (void)b;
        ret[0] = (struct host_use_view){ RESOURCE_LOCKED_BYTES, 1U << 30, 1U << 20, UINT64_MAX };
        ret[1] = (struct host_use_view){ RESOURCE_TABLE_BYTES, UINT64_MAX, 4096, 1U << 26 };
        return 2;
}

const char *const *broker_degraded(struct broker *b) {
        static const char *const none[] = { "no something", NULL };

        (void)b;
        return none;
}

void session_list(struct broker *b, void (*each)(const struct session_view *v, void *arg), void *arg) {
        (void)b;
        fake_sync();
        for (size_t i = 0; i < fake.n_sessions; i++) {
                struct session_view v = { .id = i, .tenant = "tenant-0", .client_name = "vm", .pid = 5,
                                          .state = "live" };

                each(&v, arg);
        }
}

int tenant_upsert(struct broker *b, const struct tenant_upsert *t, struct tenant_view *ret, struct refusal *r) {
        (void)b;
        pthread_mutex_lock(&fake.lock);
        fake.upsert = *t;
        pthread_mutex_unlock(&fake.lock);
        *ret = (struct tenant_view){ .config = t->config, .origin = "ledger" };
        return fake_query(__func__, NULL, r);
}

int tenant_delete(struct broker *b, const char *name, struct refusal *r) {
        (void)b;
        return fake_query(__func__, name, r);
}

void tenant_list(struct broker *b, void (*each)(const struct tenant_view *v, void *arg), void *arg) {
        static struct tenant_view v;

        (void)b;
        (void)fake_query(__func__, NULL, NULL);
        for (size_t i = 0; i < fake.n_tenants; i++) {
                memset(&v, 0, sizeof v);
                (void)snprintf(v.config.name, sizeof v.config.name, "t%03zu", (i * 7) % fake.n_tenants);
                v.origin = "file";
                v.config.n_rules = 1;
                v.config.rules[0].has_uid = true;
                each(&v, arg);
        }
}

int device_bind(struct broker *b, const char *device, struct device_view *ret, struct refusal *r) {
        (void)b;
        fake_device(1, ret);
        return fake_query(__func__, device, r);
}

int device_unbind(struct broker *b, const char *device, struct device_view *ret, struct refusal *r) {
        (void)b;
        fake_device(2, ret);
        return fake_query(__func__, device, r);
}

int device_release(struct broker *b, const char *device, const char **ret_state, struct refusal *r) {
        (void)b;
        *ret_state = "free";
        return fake_query(__func__, device, r);
}

int ledger_check_request(struct broker *b, void (*each)(const struct check_view *v, void *arg), void *arg,
                         uint64_t *ret_rows, uint64_t *ret_holders, struct refusal *r) {
        (void)b;
        if (fake_query(__func__, NULL, r) < 0)
                return -1;
        for (size_t i = 0; i < fake.n_violations; i++) {
                struct check_view v = { "I2", "row without mapping" };

                each(&v, arg);
        }
        *ret_rows = 12;
        *ret_holders = 2;
        return 0;
}
