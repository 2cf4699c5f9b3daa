/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/* iommud.conf(5): what is read, what is refused and in which line. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include <cmocka.h>

#include "config.h"
#include "util/cleanup.h"
#include "util/size.h"

static char path[64];

static int make_directory(void **state) {
        (void)state;
        strcpy(path, "/tmp/iommud-config-XXXXXX");
        if (!mkdtemp(path))
                return -1;
        strcat(path, "/iommud.conf");
        return 0;
}

static int remove_directory(void **state) {
        (void)state;
        unlink(path);
        *strrchr(path, '/') = '\0';
        return rmdir(path);
}

static int load(const char *text, struct config *c, struct refusal *r) {
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
        return config_load(path, c, r);
}

static void refused(const char *text, const char *expected) {
        struct config c;
        struct refusal r;
        char full[REFUSAL_TEXT_MAX + 64];

        assert_int_equal(load(text, &c, &r), -1);
        (void)snprintf(full, sizeof full, "%s:%s", path, expected);
        /* the beginning: lists of what is known may grow */
        if (strncmp(r.text, full, strlen(full)) != 0)
                fail_msg("%s\n  expected %s\n  got      %s", text, full, r.text);
}

static void test_an_empty_file_gives_the_defaults(void **state) {
        struct config c;
        struct refusal r;

        (void)state;
        assert_int_equal(load("# nothing\n", &c, &r), 0);
        assert_string_equal(c.path, path);
        assert_string_equal(c.state_directory, "/var/lib/iommud");
        assert_string_equal(c.client_grpc_socket, "/run/iommud/client/grpc.sock");
        assert_string_equal(c.client_session_socket, "/run/iommud/client/session.sock");
        assert_string_equal(c.operator_socket, "/run/iommud/operator/operator.sock");
        assert_string_equal(c.holder_socket, "/run/iommud/private/holder.sock");
        assert_string_equal(c.link_socket, "/run/iommud/private/link.sock");
        assert_string_equal(c.bind_socket, "/run/iommud/private/bind.sock");
        assert_string_equal(c.tenant_directory, "/run/iommud/tenants");
        assert_int_equal(c.backend, CONFIG_BACKEND_AUTO);
        assert_int_equal(c.threads, 0);
        assert_int_equal(c.holder_uid_first, 2000000000);
        assert_int_equal(c.holder_uid_last, 2000004095);
        assert_int_equal(c.sessions, 1024);
        assert_int_equal(c.message_bytes, 1 << 20);
        assert_int_equal(c.soft.page_sizes, 1 << 12 | 1 << 21 | 1 << 30);
        assert_int_equal(c.soft.reserved_first, 0xfee00000);
        assert_int_equal(c.n_soft_devices, 2);
        assert_int_equal(c.default_quota[RESOURCE_LOCKED_BYTES], 64 << 20);
        assert_true(c.default_quota[RESOURCE_TABLE_BYTES] == TENANT_QUOTA_KEEP);
        assert_int_equal(c.default_quota[RESOURCE_WINDOWS], 64);
        assert_true(c.host_limit[RESOURCE_LOCKED_BYTES] > c.host_limit[RESOURCE_TABLE_BYTES]);
        assert_true(c.host_limit[RESOURCE_LOCKED_BYTES] < (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
        assert_true(c.host_limit[RESOURCE_MAPPINGS] == UINT64_MAX);
        assert_int_equal(c.n_tenants, 0);
        assert_int_equal(c.log_level, LOG_INFO);
        config_clear(&c);
}

static void test_every_key_is_read(void **state) {
        struct config c;
        struct refusal r;

        (void)state;
        assert_int_equal(load("[service]\nstate_directory=/s\nruntime_directory = /r ; a comment\nbackend=vfio-type1\n"
                              "vfio_directory=/v\nsysfs=/y\nthreads=7\nholder=/h\nholder_uids=5-6\nholder_group=0\n"
                              "client_group=root\noperator_group=7\nlog_level=debug\n"
                              "[limits]\nsessions=1\nsession_starts_per_second=2\nconnections_per_uid=3\n"
                              "message_bytes=2M\nregister_deadline_ms=500\noperation_deadline_ms=6000\n"
                              "unclaimed_token_seconds=7\nrecover_seconds=8\norphan_seconds=9\n"
                              "[soft]\ndevices=a b c\npage_sizes=64K 512M\naperture=0x1000-0xffffff\nreserved=\n"
                              "max_mappings=10\ndma_delay_us=11\nwindows=spapr\n"
                              "[defaults]\nlocked_bytes=1M\nmappings=2\ndomains=3\nmemory_objects=4\n"
                              "registered_bytes=5M\nsessions=6\ndevices=unlimited\ntable_bytes=7M\nwindows=8\n"
                              "[host]\nlocked_bytes=9G\ntable_bytes=unlimited\n", &c, &r), 0);
        assert_string_equal(c.state_directory, "/s");
        assert_string_equal(c.runtime_directory, "/r");
        assert_string_equal(c.link_socket, "/r/private/link.sock");
        assert_int_equal(c.backend, CONFIG_BACKEND_VFIO_TYPE1);
        assert_string_equal(c.vfio_directory, "/v");
        assert_string_equal(c.sysfs, "/y");
        assert_int_equal(c.threads, 7);
        assert_string_equal(c.holder, "/h");
        assert_int_equal(c.holder_uid_first, 5);
        assert_int_equal(c.holder_uid_last, 6);
        assert_int_equal(c.holder_gid, 0);
        assert_int_equal(c.client_gid, 0);
        assert_int_equal(c.operator_gid, 7);
        assert_int_equal(c.log_level, LOG_DEBUG);
        assert_int_equal(c.sessions, 1);
        assert_int_equal(c.starts_per_second, 2);
        assert_int_equal(c.connections_per_uid, 3);
        assert_int_equal(c.message_bytes, 2 << 20);
        assert_int_equal(c.register_deadline_ms, 500);
        assert_int_equal(c.operation_deadline_ms, 6000);
        assert_int_equal(c.unclaimed_token_seconds, 7);
        assert_int_equal(c.recover_seconds, 8);
        assert_int_equal(c.orphan_seconds, 9);
        assert_int_equal(c.n_soft_devices, 3);
        assert_string_equal(c.soft_devices[2], "c");
        assert_int_equal(c.soft.page_sizes, 1 << 16 | 1 << 29);
        assert_int_equal(c.soft.aperture_first, 0x1000);
        assert_int_equal(c.soft.aperture_last, 0xffffff);
        assert_true(c.soft.reserved_first > c.soft.reserved_last);
        assert_int_equal(c.soft.max_mappings, 10);
        assert_int_equal(c.soft.dma_delay_us, 11);
        assert_int_equal(c.soft.windows, SOFT_WINDOWS_SPAPR);
        assert_int_equal(c.default_quota[RESOURCE_LOCKED_BYTES], 1 << 20);
        assert_int_equal(c.default_quota[RESOURCE_MAPPINGS], 2);
        assert_int_equal(c.default_quota[RESOURCE_DOMAINS], 3);
        assert_int_equal(c.default_quota[RESOURCE_MEMORY_OBJECTS], 4);
        assert_int_equal(c.default_quota[RESOURCE_REGISTERED_BYTES], 5 << 20);
        assert_int_equal(c.default_quota[RESOURCE_SESSIONS], 6);
        assert_true(c.default_quota[RESOURCE_DEVICES] == UINT64_MAX);
        assert_int_equal(c.default_quota[RESOURCE_TABLE_BYTES], 7 << 20);
        assert_int_equal(c.default_quota[RESOURCE_WINDOWS], 8);
        assert_int_equal(c.host_limit[RESOURCE_LOCKED_BYTES], 9ULL << 30);
        assert_true(c.host_limit[RESOURCE_TABLE_BYTES] == UINT64_MAX);
        config_clear(&c);
}

/* What nobody names goes by the tenant's locked bytes, so that a large tenant can use what it was given. */
static void test_table_bytes_that_are_not_given(void **state) {
        struct config c;
        struct refusal r;

        (void)state;
        assert_int_equal(load("[tenant a]\nown_socket=yes\n[tenant b]\nown_socket=yes\nlocked_bytes=64G\n"
                              "[tenant c]\nown_socket=yes\nlocked_bytes=unlimited\n"
                              "[tenant d]\nown_socket=yes\nlocked_bytes=64G\ntable_bytes=1M\n", &c, &r), 0);
        assert_int_equal(c.tenants[0].quota[RESOURCE_TABLE_BYTES], 64 << 20);
        assert_int_equal(c.tenants[1].quota[RESOURCE_TABLE_BYTES], 512 << 20);
        assert_true(c.tenants[2].quota[RESOURCE_TABLE_BYTES] == UINT64_MAX);
        assert_int_equal(c.tenants[3].quota[RESOURCE_TABLE_BYTES], 1 << 20);
        config_clear(&c);
        assert_int_equal(load("[defaults]\ntable_bytes=2M\n[tenant b]\nown_socket=yes\nlocked_bytes=64G\n", &c, &r), 0);
        assert_int_equal(c.tenants[0].quota[RESOURCE_TABLE_BYTES], 2 << 20);
        config_clear(&c);
}

static void test_tenants(void **state) {
        struct config c;
        struct refusal r;
        char text[1024], cgroup[200];

        (void)state;
        memset(cgroup, 'x', sizeof cgroup - 1);
        cgroup[sizeof cgroup - 1] = '\0';
        /* a name longer than the INI library keeps of a section, a line longer than its default, [defaults] behind */
        (void)snprintf(text, sizeof text, "[tenant a-tenant-with-a-name-of-63-bytes-0123456789-0123456789-01234567]\n"
                       "  rule = uid:1000 gid:root\n\trule=cgroup:/%s\nlocked_bytes=unlimited\nsessions=0\n"
                       "allowed_devices=0000:00:05.0 1234:11e8\nallow_unsealed=on\n"
                       "[tenant own]\nown_socket=yes\n[defaults]\nmappings=7\n", cgroup);
        assert_int_equal(load(text, &c, &r), 0);
        assert_int_equal(c.n_tenants, 2);
        assert_int_equal(strlen(c.tenants[0].name), 63);
        assert_int_equal(c.tenants[0].n_rules, 2);
        assert_true(c.tenants[0].rules[0].has_uid && c.tenants[0].rules[0].has_gid);
        assert_int_equal(c.tenants[0].rules[0].uid, 1000);
        assert_int_equal(c.tenants[0].rules[0].gid, 0);
        assert_false(c.tenants[0].rules[1].has_uid || c.tenants[0].rules[1].has_gid);
        assert_string_equal(c.tenants[0].rules[1].cgroup_prefix + 1, cgroup);
        assert_true(c.tenants[0].quota[RESOURCE_LOCKED_BYTES] == UINT64_MAX);
        assert_int_equal(c.tenants[0].quota[RESOURCE_SESSIONS], 0);
        assert_int_equal(c.tenants[0].quota[RESOURCE_MAPPINGS], 7);
        assert_int_equal(c.tenants[0].quota[RESOURCE_DOMAINS], 16);
        assert_int_equal(c.tenants[0].n_devices, 2);
        assert_string_equal(c.tenants[0].devices[1], "1234:11e8");
        assert_true(c.tenants[0].allow_unsealed);
        assert_false(c.tenants[0].own_socket);
        assert_true(c.tenants[1].own_socket);
        config_clear(&c);
        config_clear(&c);
        config_clear(NULL);
}

static void test_what_is_not_a_configuration(void **state) {
        char text[1600] = "[service]\nholder=/";

        (void)state;
        refused("[service]\nfoo=1\n", "2: unknown key 'foo' in [service] (known: state_directory, ");
        refused("\n\n[limits]\n# c\nsession=1\n", "5: unknown key 'session' in [limits] (known: sessions, ");
        refused("[tenant a]\nrule=uid:1\nlocked=1\n", "3: unknown key 'locked' in [tenant a] (known: locked_bytes, ");
        refused("[servcie]\n", "1: unknown section [servcie] (known: ");
        refused("[service x]\n", "1: unknown section [service x]");
        refused("[tenants]\n", "1: unknown section [tenants]");
        refused("threads=1\n", "1: 'threads' stands before the first [section]");
        refused("[service\n", "1: a section is written [NAME]");
        refused("[service] threads=1\n", "1: a section is written [NAME]");
        refused("[service]\n\nthreads\n", "3: neither 'key = value' nor [section] nor a comment");
        refused("[service]\nwhat\nthreads=x\n", "2: neither 'key = value'");
        refused("[service]\nthreads=x\nwhat\n", "2: threads: 'x' is not a number");
        refused("[service]\nthreads=1\nthreads=2\n", "3: threads is there twice in [service]; the first is in line 2");
        refused("[service]\n[limits]\n[service]\n", "3: section [service] is there twice; the first is in line 1");
        refused("[service]\nthreads=1\n  4\n", "3: neither 'key = value'");
        memset(text + strlen(text), 'x', 300);
        refused(text, "2: holder is longer than 255 bytes");
        memset(text + strlen(text), 'x', 1200);
        refused(text, "2: the line is longer than 1024 bytes");
}

static void test_every_backend_has_a_name(void **state) {
        static const char *const names[] = { "auto", "soft", "vfio-type1", "vfio-spapr" };
        char text[64];
        struct config c;
        struct refusal r;

        (void)state;
        for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
                (void)snprintf(text, sizeof text, "[service]\nbackend=%s\n", names[i]);
                assert_int_equal(load(text, &c, &r), 0);
                assert_int_equal(c.backend, i);
                config_clear(&c);
        }
}

static void test_bad_values(void **state) {
        char text[256] = "[service]\nruntime_directory=/";

        (void)state;
        refused("[service]\nthreads=0\n", "2: threads is 0; it must be 1 to 64");
        refused("[service]\nthreads=65\n", "2: threads is 65; it must be 1 to 64");
        refused("[service]\nthreads=-1\n", "2: threads: '-1' is not a number");
        refused("[service]\nthreads=0x\n", "2: threads: '0x' is not a number");
        refused("[service]\nthreads=4 # four\n", "2: threads: '4 # four' is not a number");
        refused("[service]\nstate_directory=var\n", "2: state_directory must be an absolute path, not 'var'");
        refused("[service]\nsysfs=/sys # x\n", "2: sysfs: '/sys # x' has a blank in it");
        refused("[soft]\nwindows=four\n", "2: windows: 'four' is neither none nor spapr");
        refused("[service]\nbackend=iommufd\n", "2: backend: 'iommufd' is none of auto, soft, vfio-type1, vfio-spapr");
        refused("[service]\nlog_level=loud\n", "2: log_level: 'loud' is none of error,");
        refused("[service]\nholder_uids=0-5\n", "2: holder_uids: '0-5' is not a range of uids");
        refused("[service]\nholder_uids=6-5\n", "2: holder_uids: '6-5' is not");
        refused("[service]\nholder_uids=1-4294967295\n", "2: holder_uids: '1-4294967295' is not");
        refused("[service]\nclient_group=no-such-group\n", "2: client_group: there is no group 'no-such-group'");
        memset(text + strlen(text), 'x', 84);
        refused(text, "2: runtime_directory is longer than 84 bytes");
        refused("[limits]\nmessage_bytes=65M\n", "2: message_bytes is 65M; it must be 65536 to 67108864");
        refused("[limits]\nsessions=4294967296\n", "2: sessions is 4294967296; it must be");
        refused("[soft]\ndevices=edu0 edu0\n", "2: devices: 'edu0' is there twice");
        refused("[soft]\ndevices=0000:00:05.0\n", "2: devices: '0000:00:05.0' is no name for a device");
        refused("[soft]\ndevices=../x\n", "2: devices: '../x' is no name for a device");
        refused("[soft]\npage_sizes=4K 3M\n", "2: page_sizes: '3M' is not a power of two");
        refused("[soft]\npage_sizes=2M\n", "2: page_sizes: the smallest must be 4K to 64K");
        refused("[soft]\npage_sizes=\n", "2: page_sizes: the smallest must be 4K to 64K");
        refused("[soft]\naperture=5-4\n", "2: aperture: '5-4' is not a range");
        refused("[soft]\nreserved=5\n", "2: reserved: '5' is not a range");
        refused("[defaults]\nlocked_bytes=64MB\n", "2: locked_bytes: '64MB' is not a number like");
        refused("[defaults]\nlocked_bytes=0x8000000000000000\n",
                "2: locked_bytes is 0x8000000000000000; the largest is ");
        refused("[defaults]\nlocked_bytes=16777216T\n", "2: locked_bytes: '16777216T' is not a number like");
}

static void test_bad_tenants(void **state) {
        (void)state;
        refused("[tenant]\n", "1: '' is no name for a tenant");
        refused("[tenant Alice]\n", "1: 'Alice' is no name for a tenant");
        refused("[tenant ../x]\n", "1: '../x' is no name for a tenant");
        refused("[tenant a]\nrule=uid:1\n[tenant a]\n", "3: tenant 'a' is there twice");
        /* also when nothing is below the title, and in the line of the title */
        refused("\n[tenant a]\n", "2: [tenant a] has neither a rule nor own_socket = yes");
        refused("[tenant a]\nown_socket=no\n\n[limits]\nsessions=1\n", "1: [tenant a] has neither a rule");
        refused("[tenant a]\nrule=\n", "2: rule is empty");
        refused("[tenant a]\nrule=uid:1 uid:2\n",
                "2: rule: 'uid:2' is none of uid:ID, gid:ID, cgroup:/PATH, each at most");
        refused("[tenant a]\nrule=user:1\n", "2: rule: 'user:1' is none of uid:ID");
        refused("[tenant a]\nrule=uid:4294967295\n", "2: rule: there is no user '4294967295'");
        refused("[tenant a]\nrule=uid:no-such-user\n", "2: rule: there is no user 'no-such-user'");
        refused("[tenant a]\nrule=gid:no-such-group\n", "2: rule: there is no group 'no-such-group'");
        refused("[tenant a]\nrule=cgroup:/\n", "2: rule: '/' is no cgroup path");
        refused("[tenant a]\nrule=cgroup:/a/\n", "2: rule: '/a/' is no cgroup path");
        refused("[tenant a]\nrule=cgroup:/a/..\n", "2: rule: '/a/..' is no cgroup path");
        refused("[tenant a]\nrule=cgroup:/a/../b\n", "2: rule: '/a/../b' is no cgroup path");
        refused("[tenant a]\nrule=cgroup:a\n", "2: rule: 'a' is no cgroup path");
        refused("[tenant a]\nown_socket=maybe\n", "2: own_socket: 'maybe' is neither yes nor no");
        refused("[tenant a]\nallowed_devices=A\n", "2: allowed_devices: 'A' is none of");
        refused("[service]\nruntime_directory=/run/a-long-directory-for-sockets\n[tenant "
                "a-tenant-with-a-name-of-63-bytes-0123456789-0123456789-01234567]\nown_socket=yes\n",
                "3: [tenant a-tenant-with-a-name-of-63-bytes-0123456789-0123456789-01234567]: the path of its own "
                "socket");
}

static void test_a_file_that_cannot_be_read(void **state) {
        struct config c;
        struct refusal r;

        (void)state;
        assert_int_equal(config_load("/no/such/iommud.conf", &c, &r), -1);
        assert_string_equal(r.text, "/no/such/iommud.conf: No such file or directory");
        assert_int_equal(r.errnum, ENOENT);
        assert_int_equal(config_load("/tmp", &c, &r), -1);
        assert_string_equal(r.text, "/tmp: Is a directory");
}

static void test_the_embedded_default(void **state) {
        struct config c;
        struct refusal r;
        char directory[100];

        (void)state;
        assert_int_equal(config_embedded("/tmp/x", &c, &r), 0);
        assert_string_equal(c.state_directory, "/tmp/x/state");
        assert_string_equal(c.operator_socket, "/tmp/x/run/operator/operator.sock");
        assert_int_equal(c.backend, CONFIG_BACKEND_SOFT);
        assert_true(c.holder_uid_first > c.holder_uid_last);
        assert_true(c.holder_gid == CONFIG_GID_NONE);
        assert_int_equal(c.n_tenants, 1);
        assert_string_equal(c.tenants[0].name, "me");
        assert_true(c.tenants[0].rules[0].has_uid);
        assert_int_equal(c.tenants[0].rules[0].uid, getuid());
        assert_int_equal(c.tenants[0].quota[RESOURCE_LOCKED_BYTES], 64 << 20);
        config_clear(&c);
        /* the longest that is taken: every socket's path is whole */
        memset(directory, 'x', sizeof directory);
        directory[0] = '/';
        directory[80] = '\0';
        assert_int_equal(config_embedded(directory, &c, &r), 0);
        assert_int_equal(strlen(c.operator_socket), 107);
        assert_string_equal(strrchr(c.operator_socket, '/'), "/operator.sock");
        config_clear(&c);
        directory[80] = 'x';
        directory[81] = '\0';
        assert_int_equal(config_embedded(directory, &c, &r), -1);
        assert_int_equal(config_embedded("x", &c, &r), -1);
}

static void test_sizes(void **state) {
        static const struct {
                const char *text;
                uint64_t value;
        } good[] = { { "0", 0 }, { "4k", 4096 }, { "0x1000", 4096 }, { "0X1f", 31 }, { "3G", 3ULL << 30 },
                     { "16777215T", 16777215ULL << 40 }, { "18446744073709551615", UINT64_MAX }, { "007", 7 } };
        static const char *const bad[] = { "", " 1", "1 ", "+1", "-1", "K", "1KB", "1KK", "0x", "0x0x1", "1e3", "x",
                                           "18446744073709551616", "16777216T" };
        char text[SIZE_TEXT_MAX];
        uint64_t value = 99;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
                assert_true(size_parse(good[i].text, &value));
                assert_true(value == good[i].value);
        }
        value = 99;
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                if (size_parse(bad[i], &value) || value != 99)
                        fail_msg("'%s' was taken", bad[i]);
        assert_true(size_parse_limit("unlimited", &value) && value == UINT64_MAX);
        assert_false(size_parse_limit("18446744073709551615", &value));
        assert_string_equal(size_format(64 << 20, text), "64M");
        assert_string_equal(size_format(1536 << 10, text), "1536K");
        assert_string_equal(size_format(4097, text), "4097");
        assert_string_equal(size_format(0, text), "0");
        assert_string_equal(size_format(1ULL << 50, text), "1024T");
        assert_string_equal(size_format(UINT64_MAX, text), "unlimited");
        assert_string_equal(size_format(UINT64_MAX - 1, text), "18446744073709551614");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_an_empty_file_gives_the_defaults),
                cmocka_unit_test(test_every_key_is_read),
                cmocka_unit_test(test_table_bytes_that_are_not_given),
                cmocka_unit_test(test_tenants),
                cmocka_unit_test(test_what_is_not_a_configuration),
                cmocka_unit_test(test_every_backend_has_a_name),
                cmocka_unit_test(test_bad_values),
                cmocka_unit_test(test_bad_tenants),
                cmocka_unit_test(test_a_file_that_cannot_be_read),
                cmocka_unit_test(test_the_embedded_default),
                cmocka_unit_test(test_sizes),
        };
        return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
