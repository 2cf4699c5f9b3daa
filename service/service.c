/* SPDX-License-Identifier: Apache-2.0 */
#include "service.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "backend/revoke.h"
#include "core/broker.h"
#include "degraded.h"
#include "ledger.h"
#include "systemd.h"
#include "transport/transport.h"
#include "util/cleanup.h"
#include "util/log.h"

#define DRAIN_MS 5000U

struct service {
        struct config *config;
        bool embedded;
        int signals;
        struct ledger *ledger;
        struct broker *broker;
        struct transport *transport;
};

/* ---- folders and sockets ---- */

static int make_directory(const char *path, mode_t mode, struct refusal *r) {
        mode_t old = umask(0);
        int e = mkdir(path, mode) < 0 && errno != EEXIST ? errno : 0;

        umask(old);
        return e ? refuse(r, REFUSAL_INTERNAL, "cannot make the folder %s: %s", path, strerror(e)) : 0;
}

/* private/ and tenants/ are for us (and the orchestrator, as root, which mounts tenants/NAME into containers); the others are
 * open, their sockets decide. */
static int make_directories(const struct config *c, struct refusal *r) {
        static const struct {
                const char *name;
                mode_t mode;
        } folders[] = { { "client", 0755 }, { "operator", 0755 }, { "private", 0711 }, { "tenants", 0700 } };
        char path[CONFIG_PATH_MAX * 2];

        if (make_directory(c->runtime_directory, 0755, r) < 0)
                return -1;
        for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
                (void)snprintf(path, sizeof path, "%s/%s", c->runtime_directory, folders[i].name);
                if (make_directory(path, folders[i].mode, r) < 0)
                        return -1;
        }
        return 0;
}

static int add_socket(struct transport *t, const char *path, enum listener_role role, const char *tenant, int type,
                      mode_t mode, gid_t gid) {
        int fd = listener_create(path, type, mode, gid);

        return fd < 0 ? fd : transport_add_listener(t, fd, role, tenant);
}

/* A tenant's own sockets, in a folder of its own that is made once and never again: containers have it mounted. */
static int tenant_sockets(void *arg, const char *tenant, bool present) {
        struct service *s = arg;
        char path[CONFIG_PATH_MAX];
        struct refusal r;
        int e;

        if (!present) {
                transport_remove_tenant(s->transport, tenant);
                return 0;
        }
        (void)snprintf(path, sizeof path, "%s/%s", s->config->tenant_directory, tenant);
        if (make_directory(path, 0755, &r) < 0) {
                log_error("%s", r.text);
                return -EACCES;
        }
        (void)snprintf(path, sizeof path, "%s/%s/grpc.sock", s->config->tenant_directory, tenant);
        e = add_socket(s->transport, path, LISTENER_TENANT, tenant, SOCK_STREAM, 0666, (gid_t)-1);
        if (e < 0)
                return e;
        (void)snprintf(path, sizeof path, "%s/%s/session.sock", s->config->tenant_directory, tenant);
        e = add_socket(s->transport, path, LISTENER_TENANT_SESSION, tenant, SOCK_SEQPACKET, 0666, (gid_t)-1);
        if (e < 0)
                transport_remove_tenant(s->transport, tenant);
        return e;
}

struct own_sockets {
        struct service *service;
        char names[64][LEDGER_NAME_MAX];
        size_t n;
};

static void collect_own(const struct tenant_view *v, void *arg) {
        struct own_sockets *own = arg;

        if (v->config.own_socket && own->n < ARRAY_SIZE(own->names))
                (void)snprintf(own->names[own->n++], LEDGER_NAME_MAX, "%s", v->config.name);
}

static int make_tenant_sockets(struct service *s, struct refusal *r) {
        struct own_sockets own = { .service = s };

        tenant_list(s->broker, collect_own, &own);
        for (size_t i = 0; i < own.n; i++) {
                int e = tenant_sockets(s, own.names[i], true);

                if (e < 0)
                        return refuse(r, REFUSAL_INTERNAL, "cannot make the sockets of tenant '%s' below %s: %s", own.names[i],
                                      s->config->tenant_directory, strerror(-e));
        }
        return 0;
}

static int make_sockets(struct service *s, struct refusal *r) {
        const struct config *c = s->config;
        const struct {
                const char *path;
                enum listener_role role;
                int type;
                mode_t mode;
                gid_t gid;
        } sockets[] = {
                /* who may use the clients' sockets is decided by rules, not by file modes */
                { c->client_grpc_socket, LISTENER_CLIENT, SOCK_STREAM, s->embedded ? 0600 : 0666, c->client_gid },
                { c->client_session_socket, LISTENER_CLIENT_SESSION, SOCK_SEQPACKET, s->embedded ? 0600 : 0666, c->client_gid },
                { c->operator_socket, LISTENER_OPERATOR, SOCK_STREAM, s->embedded ? 0600 : 0660, c->operator_gid },
        };
        const char *name;
        size_t n;
        int e = systemd_take_sockets(s->transport, &n, &name);

        if (e < 0)
                return refuse(r, REFUSAL_INTERNAL, "the socket '%s' from the service manager does not fit: %s", name, strerror(-e));
        for (size_t i = 0; n == 0 && i < ARRAY_SIZE(sockets); i++) {
                e = add_socket(s->transport, sockets[i].path, sockets[i].role, NULL, sockets[i].type, sockets[i].mode,
                               sockets[i].gid);
                if (e < 0)
                        return refuse(r, REFUSAL_INTERNAL, "cannot listen on %s: %s", sockets[i].path, strerror(-e));
        }
        return make_tenant_sockets(s, r);
}

/* ---- build ---- */

static enum backend_kind choose_backend(const struct config *c) {
        char path[CONFIG_PATH_MAX + 32];
        struct stat st;

        if (c->backend == CONFIG_BACKEND_SOFT)
                return BACKEND_SOFT;
        if (c->backend == CONFIG_BACKEND_VFIO_TYPE1)
                return BACKEND_VFIO_TYPE1;
        if (c->backend == CONFIG_BACKEND_VFIO_SPAPR)
                return BACKEND_VFIO_SPAPR;
        /* a folder of /sys/kernel/iommu_groups has more than . and .. when an IOMMU is on */
        (void)snprintf(path, sizeof path, "%s/kernel/iommu_groups/0", c->sysfs);
        return stat(path, &st) == 0 ? vfio_kind(c->vfio_directory) : BACKEND_SOFT;
}

/* Says at once what a Map would find out later: which permission is missing, and how to give it. */
static void check_nodes(const struct config *c, enum backend_kind kind) {
        int fd = -1, e = vfio_open_container(c->vfio_directory, &fd);

        if (e == -ENOENT || e == -ENODEV)
                log_warning("%s/vfio does not exist: load the modules (modprobe -a %s vfio-pci); until then no device "
                            "can be attached", c->vfio_directory,
                            kind == BACKEND_VFIO_SPAPR ? "vfio_iommu_spapr_tce" : "vfio_iommu_type1");
        else if (e < 0)
                log_warning("%s/vfio cannot be opened: %s. The service runs as uid %u, gid %u: give its group read and write "
                            "(udev rule 70-iommud.rules); until then no device can be attached", c->vfio_directory, strerror(-e),
                            geteuid(), getegid());
        fd_close(fd);
}

static bool is_socket(const char *path) {
        struct stat st;

        return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

static int build_broker(struct service *s, struct refusal *r) {
        const struct config *c = s->config;
        struct broker_options o = {
                .backend = choose_backend(c), .vfio_directory = c->vfio_directory, .sysfs = c->sysfs,
                .holder_program = c->holder, .link_socket = c->link_socket, .bind_socket = c->bind_socket,
                .tenant_directory = c->tenant_directory, .ledger_path = c->state_directory,
                .holder_uid_first = c->holder_uid_first, .holder_uid_last = c->holder_uid_last,
                .holder_gid = c->holder_gid, .max_sessions = c->sessions, .starts_per_second = c->starts_per_second,
                .register_deadline_ms = c->register_deadline_ms, .operation_deadline_ms = c->operation_deadline_ms,
                .unclaimed_seconds = c->unclaimed_token_seconds, .recover_seconds = c->recover_seconds,
                .orphan_seconds = c->orphan_seconds, .lazy_mappings = c->lazy_mappings, .lazy_bytes = c->lazy_bytes,
                .lazy_ms = c->lazy_ms, .soft = c->soft, .n_soft_devices = c->n_soft_devices,
                .n_file_tenants = c->n_tenants, .file_tenants = c->tenants, .host_limit = c->host_limit,
                .tenant_sockets = tenant_sockets, .tenant_sockets_arg = s,
        };

        /* made by the service manager where there is one: each connection becomes a holder in a unit of its own */
        o.holder_socket = is_socket(c->holder_socket) ? c->holder_socket : NULL;
        memcpy(o.soft_devices, c->soft_devices, sizeof o.soft_devices);
        memcpy(o.default_quota, c->default_quota, sizeof o.default_quota);
        if (o.backend != BACKEND_SOFT)
                check_nodes(c, o.backend);
        if (broker_new(s->ledger, &o, &s->broker, r) < 0)
                return -1;
        degraded_note(s->broker, c);
        return broker_start(s->broker, r);
}

static int build(struct service *s, struct refusal *r) {
        const struct ledger_options options = { .directory = s->config->state_directory };
        const struct transport_options transport = { .threads = s->config->threads, .max_message = s->config->message_bytes,
                                                     .limits = { .per_owner = s->config->connections_per_uid,
                                                                 .sessions_per_second = s->config->starts_per_second,
                                                                 .sessions_burst = s->config->starts_per_second } };
        int e;

        if (make_directories(s->config, r) < 0 || ledger_open(&options, &s->ledger, r) < 0 || build_broker(s, r) < 0)
                return -1;
        e = transport_new(s->broker, &transport, &s->transport);
        if (e < 0)
                return refuse(r, REFUSAL_INTERNAL, "cannot start gRPC: %s", strerror(-e));
        if (make_sockets(s, r) < 0)
                return -1;
        e = transport_start(s->transport);
        return e < 0 ? refuse(r, REFUSAL_INTERNAL, "cannot start serving: %s", strerror(-e)) : 0;
}

static void tear_down(struct service *s) {
        if (s->transport)
                transport_stop(s->transport, DRAIN_MS);
        if (s->broker)
                broker_stop(s->broker, s->embedded);
        transport_free(s->transport);
        broker_free(s->broker);
        ledger_close(s->ledger);
}

/* ---- serve ---- */

static void reload(struct service *s) {
        struct config fresh;
        struct refusal r;

        if (s->config->path[0] == '\0')
                return;
        systemd_reloading();
        if (config_load(s->config->path, &fresh, &r) < 0)
                log_error("not reloaded, the old configuration stays: %s", r.text);
        else {
                /* Tenants and limits of the host change at run time; what else changed counts after a restart. */
                broker_set_host_limits(s->broker, fresh.host_limit);
                if (broker_reload(s->broker, fresh.tenants, fresh.n_tenants, &r) < 0)
                        log_error("not wholly reloaded: %s", r.text);
                else
                        log_notice("reloaded %s: %zu tenants in it", s->config->path, fresh.n_tenants);
                log_set_max_level((int)fresh.log_level);
                config_clear(&fresh);
        }
        systemd_ready("Serving");
}

static void serve(struct service *s) {
        int watchdog_ms = systemd_watchdog_ms();

        for (;;) {
                struct pollfd p = { .fd = s->signals, .events = POLLIN };
                struct signalfd_siginfo info;
                int n = poll(&p, 1, watchdog_ms);

                systemd_alive();
                if (n <= 0 || read(s->signals, &info, sizeof info) != sizeof info)
                        continue;
                if (info.ssi_signo != SIGHUP) {
                        log_notice("stopping (%s)", strsignal((int)info.ssi_signo));
                        return;
                }
                reload(s);
        }
}

static int take_signals(void) {
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        pthread_sigmask(SIG_BLOCK, &set, NULL);         /* every thread inherits it */
        signal(SIGPIPE, SIG_IGN);
        return signalfd(-1, &set, SFD_CLOEXEC);
}

int service_run(struct config *config, bool embedded) {
        struct service s = { .config = config, .embedded = embedded, .signals = take_signals() };
        struct refusal r;
        int code;

        if (s.signals < 0) {
                log_error("cannot watch signals: %m");
                return EXIT_FAILURE;
        }
        if (build(&s, &r) < 0) {
                log_error("cannot start: %s", r.text);
                tear_down(&s);
                fd_close(s.signals);
                return r.errnum == EUCLEAN ? EX_DATAERR : EXIT_FAILURE;
        }
        log_notice("iommud %s serves on %s", IOMMUD_VERSION, config->client_grpc_socket);
        systemd_ready("Serving");
        serve(&s);
        systemd_stopping();
        code = ledger_is_damaged(s.ledger) ? EX_DATAERR : EXIT_SUCCESS;
        tear_down(&s);
        fd_close(s.signals);
        return code;
}
