/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* A holder becomes what the broker says, within what its command line allows, and serves nobody else. */
#include "test_holder_harness.h"

#include "holder/sandbox.h"

#define UID 61234U

static void need_root(void) {
        if (geteuid() == 0)
                return;
        print_message("changing the uid takes root\n");
        skip();
}

/* The value of a line of /proc/PID/status. */
static const char *status_of(pid_t pid, const char *key) {
        static char line[256];
        char path[64];
        FILE *f;

        (void)snprintf(path, sizeof path, "/proc/%d/status", pid);
        f = fopen(path, "re");
        assert_non_null(f);
        while (fgets(line, sizeof line, f))
                if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':') {
                        fclose(f);
                        line[strcspn(line, "\n")] = '\0';
                        return line + strlen(key) + 2;
                }
        fail_msg("no %s in %s", key, path);
        return NULL;
}

static void test_takes_its_uid_and_loses_the_rest(void **state) {
        const char *args[] = { "--uid-range=61000-61999", "--reconnect-group=61500", NULL };
        struct holder h;

        (void)state;
        need_root();
        holder_default_setup(&h);
        h.setup.uid = h.setup.gid = UID;
        holder_setup(&h, args);
        assert_string_equal(status_of(h.pid, "Uid"), "61234\t61234\t61234\t61234");
        assert_string_equal(status_of(h.pid, "Gid"), "61234\t61234\t61234\t61234");
        assert_string_equal(status_of(h.pid, "Groups"), "61500 ");
        assert_string_equal(status_of(h.pid, "CapPrm"), "0000000000000000");
        assert_string_equal(status_of(h.pid, "CapEff"), "0000000000000000");
        assert_string_equal(status_of(h.pid, "CapBnd"), "0000000000000000");
        assert_string_equal(status_of(h.pid, "NoNewPrivs"), "1");
        assert_string_equal(status_of(h.pid, "Seccomp"), h.hello.sandboxed ? "2" : "0");
        holder_end(&h);
}

/* What it has no right to by itself comes with the fds: memory of others, also where the kernel tells it no details. */
static void test_serves_as_another_user(void **state) {
        const char *args[] = { "--uid-range=61000-61999", NULL };
        char path[] = "/dev/shm/test-holder-XXXXXX";
        struct holder h;
        struct session_msg m;
        uint8_t *map;
        int memory = memory_new(4 * PAGE, 0, &map), device, tmpfs, ro;

        (void)state;
        need_root();
        tmpfs = mkstemp(path);          /* mode 0600 */
        assert_int_equal(fallocate(tmpfs, 0, 0, 4 * PAGE), 0);
        ro = open(path, O_RDONLY | O_CLOEXEC);
        unlink(path);
        holder_default_setup(&h);
        h.setup.uid = h.setup.gid = UID;
        holder_setup(&h, args);
        holder_give_client(&h, 0);
        client_expect(&h, SESSION_TOKEN, &m, NULL);
        assert_done(register_fd(&h, 1, memory, 4 * PAGE, LINK_REGISTER_SEAL, NULL));
        assert_done(register_fd(&h, 2, ro, 4 * PAGE, LINK_REGISTER_READ_ONLY, NULL));
        assert_int_equal(fallocate(tmpfs, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
        assert_refused(register_fd(&h, 3, ro, 4 * PAGE, LINK_REGISTER_READ_ONLY, NULL), MEMORY_HOLES);
        assert_done(link_op(&h, LINK_DOMAIN_CREATE, 5, 0, NULL, 0, NULL));
        assert_done(attach(&h, 5, 8, 0, "edu0", NULL));
        assert_done(map_one(&h, 5, 0x10000, 2 * PAGE, 1, 0, READ_WRITE));
        ack(&h, 5, 8);
        device = client_device(&h, 8);
        assert_true(device_copies(device, 0x10000, 0x11000, map, map + PAGE, 0x21));
        close(device);
        close(memory);
        close(tmpfs);
        close(ro);
        holder_end(&h);
}

static void test_sandboxed(void **state) {
        struct holder h;

        (void)state;
        holder_start(&h);
        assert_int_equal(h.hello.sandboxed, sandbox_is_possible());
        assert_string_equal(status_of(h.pid, "NoNewPrivs"), "1");
        assert_string_equal(status_of(h.pid, "CapEff"), "0000000000000000");
        holder_end(&h);
}

static void refused_identity(uint32_t uid, uint32_t gid, const char *const args[]) {
        struct holder h;
        struct message m;

        holder_default_setup(&h);
        h.setup.uid = uid;
        h.setup.gid = gid;
        h.link = holder_spawn(&h.pid, args);
        link_post(&h, LINK_SETUP, 0, 0, 0, &h.setup, sizeof h.setup, NULL, 0);
        assert_false(link_read(&h, &m));
        assert_int_equal(wait_exit(h.pid), EXIT_FAILURE);
        holder_cleanup(&h);
}

/* A broker that was taken over must not choose root, or another service's user, or to stay what it is. */
static void test_uids_outside_the_range(void **state) {
        const char *range[] = { "--uid-range=61000-61999", NULL };

        (void)state;
        need_root();
        refused_identity(0, 61000, range);
        refused_identity(61000, 0, range);
        refused_identity(60999, 61000, range);
        refused_identity(62000, 61000, range);
        refused_identity(61000, 62000, range);
        refused_identity(UINT32_MAX, UINT32_MAX, range);
        refused_identity(61000, UINT32_MAX, range);
        refused_identity(61000, 61000, NULL);           /* no range: nothing may be taken */
}

static void refused_arguments(const char *argument) {
        const char *args[] = { argument, NULL };
        pid_t pid;
        int link = holder_spawn(&pid, args);

        assert_int_equal(wait_exit(pid), EXIT_FAILURE);
        close(link);
}

static void test_bad_arguments(void **state) {
        (void)state;
        refused_arguments("--uid-range=0-10");
        refused_arguments("--uid-range=20-10");
        refused_arguments("--uid-range=10");
        refused_arguments("--uid-range=10-4294967295");
        refused_arguments("--uid-range=10-20x");
        refused_arguments("--broker-uid=-1");
        refused_arguments("--broker-uid=");
        refused_arguments("--cgroup-root=here");
        refused_arguments("--unknown");
        refused_arguments("surplus");
}

static void test_peer_must_be_the_broker(void **state) {
        const char *args[] = { "--broker-uid=61002", NULL };
        struct link_header setup = { .version = LINK_VERSION, .type = LINK_SETUP };
        struct holder h;
        struct message m;

        (void)state;
        holder_default_setup(&h);
        h.link = holder_spawn(&h.pid, args);
        /* it does not even wait for this, so it may not arrive */
        (void)link_write(&h, &setup, &h.setup, sizeof h.setup, NULL, 0);
        assert_false(link_read(&h, &m));
        assert_int_equal(wait_exit(h.pid), EXIT_FAILURE);
        holder_cleanup(&h);
}

static void test_started_by_a_service_manager(void **state) {
        struct holder h;
        pid_t pid;
        int link;

        (void)state;
        holder_listen_fds = "1";
        holder_start(&h);
        holder_end(&h);
        holder_listen_fds = "2";
        link = holder_spawn(&pid, NULL);
        assert_int_equal(wait_exit(pid), EXIT_FAILURE);
        close(link);
        holder_listen_fds = NULL;
}

static void test_setup_comes_first(void **state) {
        struct holder h;
        struct message m;

        (void)state;
        holder_default_setup(&h);
        h.link = holder_spawn(&h.pid, NULL);
        link_post(&h, LINK_DUMP, 1, 0, 0, NULL, 0, NULL, 0);
        assert_false(link_read(&h, &m));
        assert_int_equal(wait_exit(h.pid), EXIT_FAILURE);
        holder_cleanup(&h);
}

/* --- cgroup -------------------------------------------------------------------------------------------------------*/

/* A directory that looks like one. The holder's pid lands in the file, if it joins. */
static uint32_t join(const char *path, char *ret_content, size_t size) {
        char root[] = "/tmp/test-cgroup-XXXXXX", argument[64], file[128], command[128];
        const char *args[] = { argument, NULL };
        struct holder h;
        ssize_t n;
        int fd;

        assert_non_null(mkdtemp(root));
        (void)snprintf(argument, sizeof argument, "--cgroup-root=%s/root", root);
        (void)snprintf(command, sizeof command, "mkdir -p %s/root/a/b && ln -s a %s/root/link", root, root);
        assert_int_equal(system(command), 0);
        (void)snprintf(command, sizeof command, "touch %s/cgroup.procs %s/root/a/b/cgroup.procs", root, root);
        assert_int_equal(system(command), 0);
        holder_default_setup(&h);
        (void)snprintf(h.setup.cgroup, sizeof h.setup.cgroup, "%s", path);
        holder_setup(&h, args);
        (void)snprintf(ret_content, size, "%d", h.pid);
        holder_end(&h);
        (void)snprintf(file, sizeof file, "%s/root/a/b/cgroup.procs", root);
        fd = open(file, O_RDONLY | O_CLOEXEC);
        n = read(fd, file, sizeof file - 1);
        close(fd);
        assert_true(n >= 0);
        file[n] = '\0';
        assert_string_equal(file, h.hello.cgroup_joined ? ret_content : "");
        (void)snprintf(command, sizeof command, "rm -r %s", root);
        assert_int_equal(system(command), 0);
        return h.hello.cgroup_joined;
}

static void test_cgroup(void **state) {
        const char *const bad[] = { "/a/b/../b", "/..", "/../a/b", "a/b", "/link/b", "/a/missing", "/a/b/.." };
        char pid[32];

        (void)state;
        assert_int_equal(join("/a/b", pid, sizeof pid), 1);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                assert_int_equal(join(bad[i], pid, sizeof pid), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_takes_its_uid_and_loses_the_rest),
                cmocka_unit_test(test_serves_as_another_user),
                cmocka_unit_test(test_sandboxed),
                cmocka_unit_test(test_uids_outside_the_range),
                cmocka_unit_test(test_bad_arguments),
                cmocka_unit_test(test_peer_must_be_the_broker),
                cmocka_unit_test(test_started_by_a_service_manager),
                cmocka_unit_test(test_setup_comes_first),
                cmocka_unit_test(test_cgroup),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
