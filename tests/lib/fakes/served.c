/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport over the fake core on real sockets in a directory of its own; included by tests, after fake_core.c.
 */
#include <sys/stat.h>

#include "../grpc_client.h"
#include "dispatch/dispatch.h"
#include "transport/transport.h"
#include "transport/tsan.h"

#ifdef TRANSPORT_TSAN
/* gRPC is not instrumented; what it does with memory of its own is its own. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
        return "ignore_noninstrumented_modules=1";
}
#endif

static struct served {
        char directory[64];
        char client[96], client_session[96], tenant[96], tenant_session[96], operator[96];
        struct transport *transport;
} served;

static void served_listen(char path[96], const char *name, int type, enum listener_role role, const char *tenant) {
        int fd;

        (void)snprintf(path, 96, "%s/%s", served.directory, name);
        fd = listener_create(path, type, 0666, (gid_t)-1);
        if (fd < 0 || transport_add_listener(served.transport, fd, role, tenant) < 0)
                abort();
}

/* first_call_ms and limits of o as given; the rest default. */
static void served_start(const struct transport_options *o) {
        (void)strcpy(served.directory, "/tmp/iommud-test-XXXXXX");
        if (!mkdtemp(served.directory) || chmod(served.directory, 0755) < 0 ||
            transport_new(fake_broker, o, &served.transport) < 0)
                abort();
        served_listen(served.client, "grpc.sock", SOCK_STREAM, LISTENER_CLIENT, NULL);
        served_listen(served.client_session, "session.sock", SOCK_SEQPACKET, LISTENER_CLIENT_SESSION, NULL);
        served_listen(served.operator, "operator.sock", SOCK_STREAM, LISTENER_OPERATOR, NULL);
        served_listen(served.tenant, "t-grpc.sock", SOCK_STREAM, LISTENER_TENANT, "blue");
        served_listen(served.tenant_session, "t-session.sock", SOCK_SEQPACKET, LISTENER_TENANT_SESSION, "blue");
        if (transport_start(served.transport) < 0)
                abort();
}

static void served_stop(void) {
        served.transport = transport_free(served.transport);
        (void)unlink(served.client);
        (void)unlink(served.client_session);
        (void)unlink(served.operator);
        (void)unlink(served.tenant);
        (void)unlink(served.tenant_session);
        (void)rmdir(served.directory);
}
