/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker proto util testlib */
/* The method table against the .proto files as protoc understands them: every method has one row, no row is left
 * over, and streaming is where the .proto says, which protoc-c's descriptors do not tell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../lib/fakes/fake_core.c"
#include "dispatch/dispatch.h"
#include "iommud.pb-c.h"

#define METHODS_MAX 128

struct declared {
        char path[256];
        bool client_streams, server_streams;
};

static struct declared declared[METHODS_MAX];
static size_t n_declared;

/* Reads the text form of a FileDescriptorSet line by line: `service {`, `name: "Client"`, `method {`, `name: "Map"`,
 * `server_streaming: true`. Depth tells a service's name from a method's. */
static void read_descriptors(FILE *f) {
        char line[512], package[64] = "", service[64] = "", value[64];
        int depth = 0, service_depth = 0;
        struct declared *method = NULL;

        while (fgets(line, sizeof line, f)) {
                if (strstr(line, "service {"))
                        service_depth = depth + 1;
                if (service_depth && depth == service_depth && strstr(line, "method {")) {
                        assert_true(n_declared < METHODS_MAX);
                        method = &declared[n_declared++];
                }
                if (sscanf(line, " package: \"%63[^\"]\"", value) == 1)
                        (void)strcpy(package, value);
                if (sscanf(line, " name: \"%63[^\"]\"", value) == 1) {
                        if (service_depth && depth == service_depth)
                                (void)strcpy(service, value);
                        if (method && depth == service_depth + 1)
                                (void)snprintf(method->path, sizeof method->path, "/%.60s.%.60s/%.60s", package,
                                               service, value);
                }
                if (method && strstr(line, "server_streaming: true"))
                        method->server_streams = true;
                if (method && strstr(line, "client_streaming: true"))
                        method->client_streams = true;
                depth += strchr(line, '{') != NULL;
                depth -= strchr(line, '}') != NULL;
                if (method && depth <= service_depth)
                        method = NULL;
                if (depth < service_depth)
                        service_depth = 0;
        }
}

/* The directory of the .proto files: tests run from the top of the source tree. */
static void run_protoc(const char *file) {
        char command[256];
        FILE *f;

        (void)snprintf(command, sizeof command,
                       "protoc --proto_path=proto --descriptor_set_out=/dev/stdout %s | "
                       "protoc --decode=google.protobuf.FileDescriptorSet google/protobuf/descriptor.proto",
                       file);
        f = popen(command, "re");
        assert_non_null(f);
        read_descriptors(f);
        assert_int_equal(pclose(f), 0);
}

static int start(void **state) {
        (void)state;
        run_protoc("iommud.proto");
        run_protoc("health.proto");
        return dispatch_start();
}

static void test_every_method_has_a_row(void **state) {
        (void)state;
        assert_true(n_declared >= 30);
        for (size_t i = 0; i < n_declared; i++) {
                const struct method *m = dispatch_find(declared[i].path, strlen(declared[i].path));

                if (!m)
                        fail_msg("%s has no row", declared[i].path);
                assert_string_equal(m->path, declared[i].path);
                assert_non_null(m->handle);
                assert_non_null(m->input);
        }
}

static void test_no_row_is_left_over(void **state) {
        size_t n;
        const struct method *rows = dispatch_methods(&n);

        (void)state;
        assert_int_equal(n, n_declared);
        for (size_t i = 0; i < n; i++) {
                bool found = false;

                for (size_t d = 0; d < n_declared; d++)
                        found = found || strcmp(rows[i].path, declared[d].path) == 0;
                if (!found)
                        fail_msg("no .proto declares %s", rows[i].path);
        }
}

static void test_streaming(void **state) {
        size_t streams = 0;

        (void)state;
        for (size_t i = 0; i < n_declared; i++) {
                const struct method *m = dispatch_find(declared[i].path, strlen(declared[i].path));

                assert_false(declared[i].client_streams);       /* transport reads one message */
                if (m->streams != declared[i].server_streams)
                        fail_msg("%s: the table says %s", m->path, m->streams ? "stream" : "no stream");
                streams += m->streams;
        }
        assert_int_equal(streams, 1);
}

/* Who may call what follows from the service; only operators' methods may block. */
static void test_permissions_follow_services(void **state) {
        size_t n;
        const struct method *rows = dispatch_methods(&n);

        (void)state;
        for (size_t i = 0; i < n; i++) {
                bool client = strncmp(rows[i].path, "/iommud.v1.Client/", 18) == 0;
                bool of_operator = strncmp(rows[i].path, "/iommud.v1.Operator/", 20) == 0;

                assert_int_equal(rows[i].permission, client   ? PERMISSION_CLIENT :
                                                     of_operator ? PERMISSION_OPERATOR :
                                                                PERMISSION_ANYONE);
                assert_int_equal(rows[i].session, client);
                assert_int_equal(rows[i].blocks, of_operator);
        }
}

static void test_lookup_is_exact(void **state) {
        static const char *const wrong[] = { "", "/", "iommud.v1.Client/Map", "/iommud.v1.Client/Ma",
                                             "/iommud.v1.Client/Mapp", "/iommud.v1.Client/map",
                                             "/iommud.v1.Operator/Map", "//iommud.v1.Client/Map" };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
                assert_null(dispatch_find(wrong[i], strlen(wrong[i])));
        assert_null(dispatch_find("/iommud.v1.Client/Map\0", 22));
        assert_non_null(dispatch_find("/iommud.v1.Client/MapXXXX", 21));        /* the size counts, not a terminator */
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_method_has_a_row),
                cmocka_unit_test(test_no_row_is_left_over),
                cmocka_unit_test(test_streaming),
                cmocka_unit_test(test_permissions_follow_services),
                cmocka_unit_test(test_lookup_is_exact),
        };
        return cmocka_run_group_tests(tests, start, NULL);
}
