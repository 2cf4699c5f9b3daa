/* SPDX-License-Identifier: Apache-2.0 */
#include "core/broker.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/adopt.h"
#include "core/broker_private.h"
#include "core/holder_link.h"
#include "core/host.h"
#include "core/housekeeping.h"
#include "core/recover.h"
#include "core/revocation.h"
#include "core/session_start.h"
#include "util/cleanup.h"
#include "util/log.h"

int broker_new(struct ledger *ledger, const struct broker_options *options, struct broker **ret, struct refusal *r) {
        struct broker *b = calloc(1, sizeof *b);

        if (!b)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        b->options = *options;
        b->ledger = ledger;
        b->link_listener = -1;
        b->started_ms = monotonic_ms();
        pthread_mutex_init(&b->lock, NULL);
        pthread_mutex_init(&b->lease_lock, NULL);
        host_init(b, options->host_limit);
        b->journal = journal_new(ledger);
        b->discarder = discarder_new(options->holder_program);
        if (!b->journal || !b->discarder) {
                broker_free(b);
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        }
        if (tenant_load_all(b, options->file_tenants, options->n_file_tenants, r) < 0) {
                broker_free(b);
                return -1;
        }
        *ret = b;
        return 0;
}

/* The private socket for holders that lost their broker: reachable for us, and for holders by their group. */
static int listen_for_holders(struct broker *b, struct refusal *r) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        const char *path = b->options.link_socket;
        mode_t old;
        int error;

        if (strlen(path) >= sizeof address.sun_path)
                return refuse(r, REFUSAL_INTERNAL, "the path %s is too long for a socket (at most %zu bytes)", path,
                              sizeof address.sun_path - 1);
        strcpy(address.sun_path, path);
        b->link_listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        unlink(path);
        old = umask(0177);
        error = bind(b->link_listener, (struct sockaddr *)&address, sizeof address) < 0 ? errno : 0;
        umask(old);
        if (error == 0 && b->options.holder_gid != UINT32_MAX &&
            (chown(path, (uid_t)-1, b->options.holder_gid) < 0 || chmod(path, 0660) < 0))
                error = errno;
        if (error == 0 && listen(b->link_listener, 128) < 0)
                error = errno;
        return error ? refuse(r, REFUSAL_INTERNAL, "cannot listen on %s: %s", path, strerror(error)) : 0;
}

int broker_start(struct broker *b, struct refusal *r) {
        int error;

        if (ledger_state_is_from_other_boot(b->ledger)) {
                broker_audit(b, "ledger.reset", NULL, "the machine was rebooted: the kernel's state is gone, and the rows with it");
                if (ledger_state_reset(b->ledger, r) < 0)
                        return -1;
        }
        if (listen_for_holders(b, r) < 0)
                return -1;
        error = loop_new(b->link_listener, recover_greet, b, &b->loop);
        if (error < 0)
                return refuse(r, REFUSAL_INTERNAL, "cannot make the loop: %s", strerror(-error));
        if (recover_load(b, r) < 0)
                return -1;
        error = loop_start(b->loop);
        if (error == 0)
                error = housekeeping_start(b);
        return error < 0 ? refuse(r, REFUSAL_INTERNAL, "cannot start a thread: %s", strerror(-error)) : 0;
}

int broker_reload(struct broker *b, const struct ledger_tenant *file_tenants, size_t n, struct refusal *r) {
        return tenant_reload(b, file_tenants, n, r);
}

/* Lets go of the links; the holders notice, go on, and look for the next broker. */
static void leave_holders(struct broker *b) {
        size_t n;
        _cleanup_free_ struct session **list = broker_sessions(b, &n);

        for (size_t i = 0; list && i < n; i++) {
                struct holder_link *link;
                bool revoking;

                pthread_mutex_lock(&list[i]->lock);
                link = list[i]->link;
                list[i]->link = NULL;
                revoking = list[i]->revoking;
                list[i]->revoking = true;       /* from now on a lost link means nothing */
                pthread_mutex_unlock(&list[i]->lock);
                if (link)
                        holder_link_close(link, REFUSAL_RECOVERING, "the service is stopping");
                lazy_drop_session(list[i]);
                /* What it owns is charged again by the next service; here the balances must come out at zero. */
                pthread_mutex_lock(&list[i]->lock);
                if (!revoking)
                        session_refund(list[i]);
                pthread_mutex_unlock(&list[i]->lock);
                holder_link_unref(link);
                session_unregister(list[i]);
                session_unref(list[i]);
        }
}

void broker_stop(struct broker *b, bool end_sessions) {
        size_t n;
        struct session **list;

        atomic_store(&b->stopping, true);
        if (end_sessions && (list = broker_sessions(b, &n))) {
                for (size_t i = 0; i < n; i++) {
                        revocation_begin(list[i], REFUSAL_UNKNOWN_SESSION, "the service was stopped");
                        session_unref(list[i]);
                }
                free(list);
        }
        revocation_wait_all(b, 5000);
        housekeeping_stop(b);
        loop_stop(b->loop);
        leave_holders(b);
}

struct broker *broker_free(struct broker *b) {
        struct refusal r;

        if (!b)
                return NULL;
        b->journal = journal_free(b->journal);  /* its deferred entries hold sessions */
        if (b->ledger && ledger_audit_flush(b->ledger, &r) < 0)
                log_error("the audit's last lines are lost: %s", r.text);
        b->loop = loop_free(b->loop);
        lease_free_all(b);
        tenant_free_all(b);
        quota_account_clear(&b->host);
        b->discarder = discarder_free(b->discarder);
        b->link_listener = fd_close(b->link_listener);
        pthread_mutex_destroy(&b->lock);
        pthread_mutex_destroy(&b->lease_lock);
        free(b);
        return NULL;
}

bool broker_is_recovering(struct broker *b) {
        return atomic_load(&b->recovering);
}

void broker_audit(struct broker *b, const char *event, const struct peer *peer, const char *text) {
        ledger_audit(b->ledger, event, peer ? peer->tenant : NULL, peer ? peer->uid : UINT32_MAX,
                     peer ? (uint32_t)peer->pid : 0, text);
        if (peer)
                log_info("audit: %s: tenant '%s', uid %u, pid %d: %s", event, peer->tenant, peer->uid, (int)peer->pid, text);
        else
                log_info("audit: %s: %s", event, text);
}

/* ---- status ---- */

static void count(const struct domain_view *v, void *arg) {
        struct status_view *s = arg;

        s->domains++;
        s->mappings += v->mappings;
        s->mapped_bytes += v->mapped_bytes;
}

static int count_device(const struct device_view *v, void *arg) {
        (void)v;
        (*(uint64_t *)arg)++;
        return 0;
}

const char *broker_backend_name(struct broker *b) {
        switch (b->options.backend) {
        case BACKEND_SOFT:
                return "soft";
        case BACKEND_VFIO_SPAPR:
                return "vfio-spapr";
        default:
                return "vfio-type1";
        }
}

void broker_status(struct broker *b, struct status_view *ret) {
        struct refusal r;

        memset(ret, 0, sizeof *ret);
        ret->version = IOMMUD_VERSION;
        ret->backend = broker_backend_name(b);
        ret->state = ledger_is_damaged(b->ledger)     ? "ledger damaged"
                     : atomic_load(&b->stopping)   ? "stopping"
                     : atomic_load(&b->recovering) ? "recovering"
                                                   : "serving";
        ret->ledger_path = b->options.ledger_path;
        ret->uptime_seconds = (monotonic_ms() - b->started_ms) / 1000;
        domain_list(b, NULL, 0, SIZE_MAX, count, ret);
        if (device_list(b, NULL, count_device, &ret->devices, &r) < 0)
                log_warning("devices cannot be counted: %s", r.text);
        ret->orphaned_devices = lease_count_orphans(b);
        LOCK_SCOPE(&b->lock);
        ret->tenants = HASH_COUNT(b->tenants);
        ret->sessions = b->n_sessions;
}

void broker_note_degraded(struct broker *b, const char *sentence) {
        for (size_t i = 0; sentence && i + 1 < ARRAY_SIZE(b->degraded); i++)
                if (!b->degraded[i]) {
                        b->degraded[i] = sentence;
                        log_notice("degraded: %s", sentence);
                        return;
                }
}

const char *const *broker_degraded(struct broker *b) {
        return b->degraded;
}
