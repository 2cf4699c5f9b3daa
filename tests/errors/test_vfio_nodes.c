/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * /dev/vfio that is not there, or may not be opened: who attaches is told which node it is, which permission is
 * missing and how to give it. With a made sysfs and a made /dev/vfio; no device is needed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/job.h"

#define DEVICE "0000:00:05.0"
#define SERVICE_UID 54321U

struct machine {
        struct service *service;
        char vfio[128], node[160], group[160];
};

static void make_folder(const char *base, const char *path) {
        char whole[256];

        (void)snprintf(whole, sizeof whole, "%s/%s", base, path);
        if (mkdir(whole, 0755) < 0 && errno != EEXIST)
                fail_msg("%s: %s", whole, strerror(errno));
}

static void make_attribute(const char *base, const char *name, const char *text) {
        char whole[256];
        FILE *f;

        (void)snprintf(whole, sizeof whole, "%s/" "sys/kernel/iommu_groups/7/devices/" DEVICE "/%s", base, name);
        f = fopen(whole, "we");
        assert_non_null(f);
        (void)fputs(text, f);
        (void)fclose(f);
}

/* One device in a group of its own, bound to vfio-pci. */
static void make_sysfs(const char *base) {
        static const char *const folders[] = { "sys", "sys/kernel", "sys/kernel/iommu_groups",
                                               "sys/kernel/iommu_groups/7",
                                               "sys/kernel/iommu_groups/7/devices",
                                               ("sys/kernel/iommu_groups/7/devices/" DEVICE), "sys/vfio-pci" };
        char link[256];

        for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
                make_folder(base, folders[i]);
        make_attribute(base, "vendor", "0x1234\n");
        make_attribute(base, "device", "0x11e8\n");
        make_attribute(base, "class", "0x00ff00\n");
        (void)snprintf(link, sizeof link, "%s/sys/kernel/iommu_groups/7/devices/" DEVICE "/driver", base);
        assert_int_equal(symlink("../../../../../vfio-pci", link), 0);
}

static void make_node(const char *path) {
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        close(fd);
}

/* The service is not started yet. */
static void begin(struct machine *m, uid_t run_as) {
        struct service_options o = { .run_as = run_as };
        struct service *s = m->service = service_new(&o);
        char extra[256];

        make_sysfs(s->directory);
        make_folder(s->directory, "vfio");
        (void)snprintf(m->vfio, sizeof m->vfio, "%s/vfio", s->directory);
        (void)snprintf(m->node, sizeof m->node, "%s/vfio", m->vfio);
        (void)snprintf(m->group, sizeof m->group, "%s/7", m->vfio);
        (void)snprintf(extra, sizeof extra, "backend = vfio-type1\nvfio_directory = %s\nsysfs = %s/sys\n", m->vfio,
                       s->directory);
        service_write_text(s, "[service]\nstate_directory = %s\nruntime_directory = %s\nholder_uids =\n%s"
                              "[tenant me]\nrule = uid:%u\n", s->state, s->runtime, extra, getuid());
}

/* The text names the node and everything else that is listed. */
static void assert_attach_refused(struct machine *m, enum iommud_reason reason, int system_errno, const char *node,
                                  const char *const *words) {
        struct job_snapshot before;
        struct iommud_attachment *a;
        struct iommud_device *list;
        struct iommud_error e;
        struct job j;
        size_t n;

        job_begin(&j, m->service->client, NULL, PAGE);
        must(iommud_device_list(j.client, &list, &n));
        assert_int_equal(n, 1);
        assert_string_equal(list[0].name, DEVICE);
        iommud_device_list_free(list, n);
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, PAGE, IOMMUD_READ));
        job_snapshot(&j, &before);
        for (int i = 0; i < 2; i++) {           /* the second time as the first: no lease was left behind */
                refused(iommud_device_attach(j.domain, DEVICE, &a), EBUSY, reason, &e);
                assert_int_equal(e.system_errno, system_errno);
                if (!strstr(e.text, node))
                        fail_msg("'%s' does not name %s", e.text, node);
                for (size_t k = 0; words[k]; k++)
                        if (!strstr(e.text, words[k]))
                                fail_msg("'%s' does not say '%s'", e.text, words[k]);
                job_assert_unchanged(&j, &before);
        }
        must(iommud_device_list(j.client, &list, &n));
        assert_string_equal(list[0].state, "free");
        iommud_device_list_free(list, n);
        job_end(&j);
}

static void test_no_container_node(void **state) {
        static const char *const words[] = { "modprobe vfio_iommu_type1", NULL };
        struct machine m;

        (void)state;
        begin(&m, 0);
        service_launch(m.service);
        assert_true(service_logged(m.service, m.node));         /* said at the start already */
        assert_attach_refused(&m, IOMMUD_REASON_DEVICE_NODE_MISSING, ENOENT, m.node, words);
        service_end(m.service);
}

/* The folder itself is not for the service: the same as a node that is not. */
static void test_folder_is_forbidden(void **state) {
        static const char *const words[] = { "uid 54321", "udev", NULL };
        struct machine m;
        int code;

        (void)state;
        if (!running_as_root())
                skip_because("a service of another uid takes root");
        begin(&m, SERVICE_UID);
        make_node(m.node);
        assert_int_equal(chmod(m.vfio, 0), 0);
        if (!service_try_launch(m.service, &code)) {
                if (code == 127) {
                        service_end(m.service);
                        skip_because("the build cannot be run by other users");
                }
                fail_msg("the service ended with %d", code);
        }
        assert_true(service_logged(m.service, "cannot be opened"));
        assert_attach_refused(&m, IOMMUD_REASON_DEVICE_NODE_FORBIDDEN, EACCES, m.node, words);
        service_end(m.service);
}

static void test_container_node_is_forbidden(void **state) {
        static const char *const words[] = { "uid 54321", "70-iommud.rules", "udevadm trigger", NULL };
        struct machine m;
        int code;

        (void)state;
        if (!running_as_root())
                skip_because("a service of another uid takes root");
        begin(&m, SERVICE_UID);
        make_node(m.node);                      /* root's, mode 0600 */
        make_node(m.group);
        if (!service_try_launch(m.service, &code)) {
                if (code == 127) {
                        service_end(m.service);
                        skip_because("the build cannot be run by other users");
                }
                fail_msg("the service ended with %d", code);
        }
        assert_attach_refused(&m, IOMMUD_REASON_DEVICE_NODE_FORBIDDEN, EACCES, m.node, words);
        service_end(m.service);
}

/* A device that is bound to another driver, and one whose group has such a member. */
static void test_device_that_is_not_bound(void **state) {
        struct iommud_attachment *a;
        struct iommud_error e;
        struct machine m;
        char path[256];
        struct job j;

        (void)state;
        begin(&m, 0);
        (void)snprintf(path, sizeof path, "%s/sys/kernel/iommu_groups/7/devices/" DEVICE "/driver",
                       m.service->directory);
        assert_int_equal(unlink(path), 0);
        make_folder(m.service->directory, "sys/e1000");
        assert_int_equal(symlink("../../../../../e1000", path), 0);
        service_launch(m.service);
        job_begin(&j, m.service->client, NULL, PAGE);
        assert_true(iommud_device_attach(j.domain, DEVICE, &a) < 0);
        e.size = sizeof e;
        assert_int_equal(iommud_error_detail(&e), 0);
        assert_true(e.error == -ENODEV);
        assert_non_null(strstr(e.text, "iommuctl device bind"));
        job_end(&j);
        service_end(m.service);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_no_container_node, harness_teardown),
                cmocka_unit_test_teardown(test_folder_is_forbidden, harness_teardown),
                cmocka_unit_test_teardown(test_container_node_is_forbidden, harness_teardown),
                cmocka_unit_test_teardown(test_device_that_is_not_bound, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
