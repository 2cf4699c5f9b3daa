/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "call.h"
#include "channel.h"
#include "device.h"
#include "error.h"
#include "fd_channel.h"
#include "sized.h"
#include "util/cleanup.h"

#define DEFAULT_DIRECTORY "/run/iommud/client"
#define DEFAULT_TIMEOUT_MS 30000U
#define FAREWELL_MS 5000        /* how long iommud_close() waits for the service to release everything */

void client_add(struct iommud_client *client, struct sdk_object *o) {
        LOCK_SCOPE(&client->lock);

        o->client = client;
        o->previous = NULL;
        o->next = client->objects;
        if (o->next)
                o->next->previous = o;
        client->objects = o;
}

void client_remove(struct sdk_object *o) {
        {
                LOCK_SCOPE(&o->client->lock);

                if (o->previous)
                        o->previous->next = o->next;
                else
                        o->client->objects = o->next;
                if (o->next)
                        o->next->previous = o->previous;
        }
        o->free(o);
}

void client_visit(struct iommud_client *client, void (*visit)(struct sdk_object *o, void *arg), void *arg) {
        LOCK_SCOPE(&client->lock);

        for (struct sdk_object *o = client->objects; o; o = o->next)
                visit(o, arg);
}

/* The paths of the two sockets. */
struct paths {
        char session[4096];
        char grpc[4096];
};

static int find_sockets(const char *directory, struct paths *ret) {
        if (!directory)
                directory = secure_getenv("IOMMUD_DIR");
        if (!directory || directory[0] == '\0')
                directory = DEFAULT_DIRECTORY;
        if (snprintf(ret->session, sizeof ret->session, "%s/session.sock", directory) >= (int)sizeof ret->session)
                return sdk_fail(-ENAMETOOLONG, 0, "the name of the socket directory is too long");
        snprintf(ret->grpc, sizeof ret->grpc, "%.*s/grpc.sock", (int)sizeof ret->grpc - 16, directory);
        return 0;
}

static void session_ended(void *arg) {
        struct iommud_client *client = arg;

        sdk_channel_cancel(client->channel);
}

/* gRPC waits for a socket that is not there, as it should during a restart; at the first connection it is a mistake. */
static int check_grpc_socket(const char *path) {
        if (access(path, W_OK) == 0)
                return 0;
        return sdk_fail(-errno, 0, "%s may not be used: %s", path, strerror(errno));
}

/* What this library makes use of. */
#define FEATURES                                                                                                       \
        (IOMMUD__V1__CAPABILITY__CAPABILITY_MAP_BATCH | IOMMUD__V1__CAPABILITY__CAPABILITY_REQUEST_KEYS |              \
         IOMMUD__V1__CAPABILITY__CAPABILITY_HUGETLB | IOMMUD__V1__CAPABILITY__CAPABILITY_MAP_BEFORE_ATTACH |           \
         IOMMUD__V1__CAPABILITY__CAPABILITY_PARTIAL_UNMAP | IOMMUD__V1__CAPABILITY__CAPABILITY_SUBPAGE |               \
         IOMMUD__V1__CAPABILITY__CAPABILITY_LAZY_FLUSH | IOMMUD__V1__CAPABILITY__CAPABILITY_DRY_RUN |                  \
         IOMMUD__V1__CAPABILITY__CAPABILITY_MERGE | IOMMUD__V1__CAPABILITY__CAPABILITY_WINDOWS)

static int open_session(struct iommud_client *client, const char *client_name) {
        Iommud__V1__OpenSessionRequest request = IOMMUD__V1__OPEN_SESSION_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        int r;

        request.client_name = (char *)(client_name ? client_name : program_invocation_short_name);
        request.features = FEATURES;
        r = sdk_call(client, METHOD_OpenSession, &request.base, &answer);
        if (r < 0)
                return r;
        client->capabilities = ((Iommud__V1__OpenSessionResponse *)answer)->capabilities;
        return 0;
}

int client_needs(const struct iommud_client *client, uint64_t capability, const char *what) {
        if (client_has(client, capability))
                return 0;
        return sdk_fail(-ENOTSUP, IOMMUD_REASON_UNSUPPORTED, "the service here cannot do that (%s); a newer one can", what);
}

/* Also for a client that is half made. The session's reader uses the channel, so it ends first. */
static void client_free(struct iommud_client *client) {
        sdk_session_close(client->session);
        while (client->objects)
                client_remove(client->objects);
        sdk_channel_close(client->channel);
        pthread_mutex_destroy(&client->lock);
        free(client);
}

static void client_free_p(struct iommud_client **client) {
        if (*client)
                client_free(*client);
}

static int connect_client(struct iommud_client *client, const struct paths *paths, const char *client_name) {
        char token[2 * SESSION_TOKEN_BYTES + 1];
        int r;

        r = sdk_session_open(paths->session, client_deadline(client), &client->session, token);
        if (r < 0)
                return r;
        r = check_grpc_socket(paths->grpc);
        if (r < 0)
                return r;
        client->channel = sdk_channel_open(paths->grpc, token);
        if (!client->channel)
                return sdk_fail(-ENOMEM, 0, "no gRPC channel could be made");
        r = sdk_session_start(client->session, session_ended, client);
        if (r < 0)
                return r;
        return open_session(client, client_name);
}

int iommud_connect(const struct iommud_connect_options *given, struct iommud_client **ret) {
        _cleanup_(client_free_p) struct iommud_client *client = NULL;
        struct iommud_connect_options options;
        struct paths paths;
        int r;

        sdk_enter(__func__);
        if (!ret)
                return sdk_fail(-EINVAL, 0, "no place to return a client");
        r = sdk_options_in(&options, sizeof options, given);
        if (r < 0)
                return sdk_fail(-EINVAL, 0, "the options' size is wrong, or they hold what this library does not know");
        r = find_sockets(options.directory, &paths);
        if (r < 0)
                return r;
        client = calloc(1, sizeof *client);
        if (!client)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        pthread_mutex_init(&client->lock, NULL);
        client->timeout_ms = options.timeout_ms ? options.timeout_ms : DEFAULT_TIMEOUT_MS;
        r = connect_client(client, &paths, options.client_name);
        if (r < 0)
                return r;
        *ret = client;
        client = NULL;
        return 0;
}

static void close_device_fd(struct sdk_object *o, void *arg) {
        (void)arg;
        device_object_close_fd(o);
}

/* The fds of devices go first: while one is open the service can take its device back, but lend it to nobody. */
static void say_farewell(struct iommud_client *client) {
        Iommud__V1__CloseSessionRequest request = IOMMUD__V1__CLOSE_SESSION_REQUEST__INIT;
        int64_t deadline = clock_now() + (client->timeout_ms < FAREWELL_MS ? client->timeout_ms : FAREWELL_MS);
        struct iommud_error kept = sdk_error_keep();

        client_visit(client, close_device_fd, NULL);
        if (sdk_call_once(client, METHOD_CloseSession, &request.base, deadline) < 0)
                sdk_error_restore(&kept);       /* closing the connection ends the session as well, only later */
}

void iommud_close(struct iommud_client *client) {
        if (!client)
                return;
        sdk_enter(__func__);
        say_farewell(client);
        client_free(client);
}
