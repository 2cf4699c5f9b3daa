/* SPDX-License-Identifier: Apache-2.0 */
/* link: bind broker util */
/* iommud-bind: what it refuses, and how it changes drivers on a sysfs made of files where this program plays the
 * kernel; the broker's side of the talk too. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "bind/allow.h"
#include "bind/driver.h"
#include "bind/serve.h"
#include "core/bind_client.h"
#include "util/cleanup.h"
#include "util/fdmsg.h"

#define EDU "0000:00:05.0"
#define NIC "0000:03:00.0"
#define BRIDGE "0000:00:1c.0"
#define ALONE "0000:00:02.0"            /* in no IOMMU group */

static char root[64], allow_file[96];

/* ---- a kernel ---- */

static char written[1024];              /* "ATTRIBUTE=TEXT " of every write, in order */
static const char *failing;             /* attribute whose write fails with EIO */
static const char *deaf;                /* driver that takes nothing */

static void full_path(char ret[512], const char *format, ...) {
        char rest[400];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(rest, sizeof rest, format, args);
        va_end(args);
        (void)snprintf(ret, 512, "%s/%s", root, rest);
}

static void put(const char *folder, const char *file, const char *text) {
        char full[512], *slash;
        FILE *f;

        full_path(full, "%s/%s", folder, file);
        for (slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
                *slash = '\0';
                (void)mkdir(full, 0700);
                *slash = '/';
        }
        f = fopen(full, "w");
        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static void driver_of(const char *device, char ret[64]) {
        char full[512], target[512];
        ssize_t n;

        full_path(full, "bus/pci/devices/%s/driver", device);
        n = readlink(full, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        (void)snprintf(ret, 64, "%.63s", strrchr(target, '/') ? strrchr(target, '/') + 1 : "");
}

static void set_driver(const char *device, const char *driver) {
        char full[512], target[128];

        full_path(full, "bus/pci/devices/%s/driver", device);
        (void)unlink(full);
        if (!driver)
                return;
        (void)snprintf(target, sizeof target, "../../drivers/%s", driver);
        assert_int_equal(symlink(target, full), 0);
}

static void override_of(const char *device, char ret[64]) {
        char full[512];
        FILE *f;

        full_path(full, "bus/pci/devices/%s/driver_override", device);
        f = fopen(full, "r");
        assert_non_null(f);
        if (!fgets(ret, 64, f))
                ret[0] = '\0';
        (void)fclose(f);
        ret[strcspn(ret, "\n")] = '\0';
}

/* driver_override wins; otherwise the device's "natural" driver. */
static void probe(const char *device) {
        char override[64], now[64];
        const char *driver;

        driver_of(device, now);
        if (now[0] != '\0')
                return;
        override_of(device, override);
        driver = override[0] == '\0' || strcmp(override, "(null)") == 0 ? "e1000e" : override;
        if (!deaf || strcmp(deaf, driver) != 0)
                set_driver(device, driver);
}

static int kernel_write(const char *path, const char *text) {
        const char *attribute = path + strlen(root) + strlen("/bus/pci/");
        char device[64] = "", now[64];
        size_t used = strlen(written);

        assert_memory_equal(path, root, strlen(root));
        (void)snprintf(written + used, sizeof written - used, "%s=%s ", attribute, text[0] == '\n' ? "-" : text);
        if (failing && strstr(attribute, failing))
                return -EIO;
        if (strncmp(attribute, "devices/", 8) == 0)
                (void)snprintf(device, sizeof device, "%.12s", attribute + 8);
        if (strstr(attribute, "/driver_override")) {
                char folder[96];

                (void)snprintf(folder, sizeof folder, "bus/pci/devices/%s", device);
                put(folder, "driver_override", text[0] == '\n' ? "(null)\n" : text);
        } else if (strstr(attribute, "/driver/unbind")) {
                driver_of(device, now);
                if (now[0] == '\0')
                        return -ENOENT;
                set_driver(device, NULL);
        } else if (strcmp(attribute, "drivers_probe") == 0)
                probe(text);
        else if (strncmp(attribute, "drivers/", 8) == 0) {
                char driver[64];

                (void)snprintf(driver, sizeof driver, "%.*s", (int)strcspn(attribute + 8, "/"), attribute + 8);
                if (deaf && strcmp(driver, deaf) == 0)
                        return -ENODEV;
                set_driver(text, driver);
        } else
                return -ENOENT;
        return 0;
}

static void device(const char *name, const char *class, const char *driver, bool group) {
        char folder[96], full[512];

        (void)snprintf(folder, sizeof folder, "bus/pci/devices/%s", name);
        put(folder, "vendor", strcmp(name, EDU) == 0 ? "0x1234\n" : "0x8086\n");
        put(folder, "device", strcmp(name, EDU) == 0 ? "0x11e8\n" : "0x10d3\n");
        put(folder, "class", class);
        put(folder, "driver_override", "(null)\n");
        set_driver(name, driver);
        full_path(full, "%s/iommu_group", folder);
        (void)unlink(full);
        if (group)
                assert_int_equal(symlink("../../../kernel/iommu_groups/3", full), 0);
}

/* Every test begins with the same machine. */
static int make_machine(void **state) {
        (void)state;
        written[0] = '\0';
        failing = deaf = NULL;
        put("bus/pci", "drivers_probe", "");
        put("bus/pci/drivers/vfio-pci", "bind", "");
        put("bus/pci/drivers/e1000e", "bind", "");
        device(EDU, "0x00ff00\n", NULL, true);
        device(NIC, "0x020000\n", "e1000e", true);
        device(BRIDGE, "0x060400\n", "pcieport", true);
        device(ALONE, "0x030000\n", NULL, false);
        put(".", "bind.conf", "allow = *\n");
        (void)snprintf(allow_file, sizeof allow_file, "%s/bind.conf", root);
        assert_int_equal(chmod(allow_file, 0644), 0);
        return 0;
}

static int make_root(void **state) {
        (void)state;
        strcpy(root, "/tmp/iommud-bind-XXXXXX");
        return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        (void)st;
        (void)type;
        (void)ftw;
        return remove(path);
}

static int remove_root(void **state) {
        (void)state;
        return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct bind_answer ask(enum bind_action action, const char *name, const char *driver) {
        struct serve_options o = { .tree = { .sysfs = root, .write = kernel_write }, .allow_file = allow_file };
        struct bind_request q = { .version = 1, .action = (uint32_t)action };
        struct bind_answer a;

        (void)snprintf(q.device, sizeof q.device, "%s", name);
        (void)snprintf(q.driver, sizeof q.driver, "%s", driver);
        written[0] = '\0';
        serve_request(&o, &q, &a);
        return a;
}

static void assert_driver(const char *name, const char *expected) {
        char now[64];

        driver_of(name, now);
        assert_string_equal(now, expected);
}

static void assert_override(const char *name, const char *expected) {
        char now[64];

        override_of(name, now);
        assert_string_equal(now, expected);
}

/* ---- the allow list ---- */

static void test_the_allow_list(void **state) {
        static const struct {
                const char *text;
                bool allowed;
        } lists[] = {
                { "allow = *\n", true },
                { "# c\n\n  allow=1234:11e8  \n", true },
                { "allow = 0000:00:05.0", true },
                { "allow = 1234:11e9\nallow = 0000:00:05.1\n", false },
                { "", false },
                { "#allow = *\n", false },
                { "allow = *\nallow = 1234:11E8\n", false },    /* a line that is not understood: nothing is allowed */
                { "allow = *\ndeny = 1234:11e8\n", false },
                { "allow = ** \n", false },
                { "allow = 1234:*\n", false },
                { "allow = * # all\n", false },
                { "allowed = *\n", false },
                { "allow *\n", false },
        };
        struct refusal r;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
                put(".", "bind.conf", lists[i].text);
                if ((allow_check(allow_file, EDU, "1234:11e8", &r) == 0) != lists[i].allowed)
                        fail_msg("'%s'", lists[i].text);
                if (!lists[i].allowed)
                        assert_int_equal(r.reason, REFUSAL_NOT_PERMITTED);
        }
        put(".", "bind.conf", "\nallow = x\n");
        assert_int_equal(allow_check(allow_file, EDU, "1234:11e8", &r), -1);
        assert_non_null(strstr(r.text, "bind.conf:2: 'allow = x' is not allow = ADDRESS"));
        put(".", "bind.conf", "allow = *\n");
        assert_int_equal(chmod(allow_file, 0664), 0);
        assert_int_equal(allow_check(allow_file, EDU, "1234:11e8", &r), -1);
        assert_non_null(strstr(r.text, "could be written by somebody other than root"));
        assert_int_equal(allow_check("/no/such/file", EDU, "1234:11e8", &r), -1);
        assert_int_equal(allow_check(root, EDU, "1234:11e8", &r), -1);
}

/* ---- requests ---- */

static void test_what_is_refused_and_touches_nothing(void **state) {
        static const struct {
                uint32_t action;
                const char *device, *driver;
                enum refusal_reason reason;
        } requests[] = {
                { BIND_TO_VFIO, "", "", REFUSAL_UNKNOWN_DEVICE },
                { BIND_TO_VFIO, "../../../etc", "", REFUSAL_UNKNOWN_DEVICE },
                { BIND_TO_VFIO, "0000:00:05.0/", "", REFUSAL_UNKNOWN_DEVICE },
                { BIND_TO_VFIO, "0000:00:06.0", "", REFUSAL_UNKNOWN_DEVICE },
                { BIND_TO_VFIO, BRIDGE, "", REFUSAL_NOT_PERMITTED },
                { BIND_TO_VFIO, ALONE, "", REFUSAL_GROUP_NOT_VIABLE },
                { BIND_RESTORE, NIC, "../x", REFUSAL_BAD_NAME },
                { BIND_RESTORE, NIC, "..", REFUSAL_BAD_NAME },
                { BIND_RESTORE, NIC, "e1000e", REFUSAL_NOT_PERMITTED }, /* it is not vfio-pci's */
                { 0, NIC, "", REFUSAL_BAD_MESSAGE },
                { 3, NIC, "", REFUSAL_BAD_MESSAGE },
        };
        struct serve_options o = { .tree = { .sysfs = root, .write = kernel_write }, .allow_file = allow_file };
        struct bind_request q = { .version = 2, .action = BIND_TO_VFIO, .device = NIC };
        struct bind_answer a;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
                a = ask(requests[i].action, requests[i].device, requests[i].driver);
                assert_int_equal(a.reason, requests[i].reason);
                assert_string_equal(a.original_driver, "");
                assert_true(a.text[0] != '\0');
                assert_string_equal(written, "");
        }
        serve_request(&o, &q, &a);
        assert_int_equal(a.reason, REFUSAL_BAD_MESSAGE);
        q.version = 1;
        memset(q.device, 'a', sizeof q.device);
        serve_request(&o, &q, &a);
        assert_int_equal(a.reason, REFUSAL_BAD_MESSAGE);
        put(".", "bind.conf", "");
        a = ask(BIND_TO_VFIO, NIC, "");
        assert_int_equal(a.reason, REFUSAL_NOT_PERMITTED);
        assert_string_equal(written, "");
}

static void test_to_vfio_and_back(void **state) {
        struct bind_answer a = ask(BIND_TO_VFIO, NIC, "");

        (void)state;
        assert_int_equal(a.reason, 0);
        assert_string_equal(a.original_driver, "e1000e");
        assert_driver(NIC, "vfio-pci");
        assert_string_equal(written, "devices/" NIC "/driver_override=vfio-pci devices/" NIC "/driver/unbind=" NIC
                                     " drivers_probe=" NIC " ");
        a = ask(BIND_RESTORE, NIC, "e1000e");
        assert_int_equal(a.reason, 0);
        assert_driver(NIC, "e1000e");
        assert_override(NIC, "(null)");
        assert_string_equal(written, "devices/" NIC "/driver_override=- devices/" NIC "/driver/unbind=" NIC
                                     " drivers/e1000e/bind=" NIC " ");
        /* nothing was bound before; back to what the kernel finds */
        a = ask(BIND_TO_VFIO, EDU, "");
        assert_int_equal(a.reason, 0);
        assert_string_equal(a.original_driver, "");
        assert_driver(EDU, "vfio-pci");
        a = ask(BIND_RESTORE, EDU, "");
        assert_int_equal(a.reason, 0);
        assert_driver(EDU, "e1000e");
}

static void test_what_was_with_vfio_before_us_stays(void **state) {
        struct bind_answer a;

        (void)state;
        set_driver(NIC, "vfio-pci");
        a = ask(BIND_TO_VFIO, NIC, "");
        assert_int_equal(a.reason, 0);
        assert_string_equal(a.original_driver, "vfio-pci");
        assert_string_equal(written, "");
        a = ask(BIND_RESTORE, NIC, "vfio-pci");
        assert_int_equal(a.reason, 0);
        assert_string_equal(written, "");
}

static void test_each_failure_is_undone(void **state) {
        static const char *const steps[] = { "driver_override", "driver/unbind", "drivers_probe" };
        struct bind_answer a;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
                failing = steps[i];
                a = ask(BIND_TO_VFIO, NIC, "");
                assert_int_equal(a.reason, REFUSAL_BACKEND_REFUSED);
                assert_int_equal(a.errnum, EIO);
                assert_string_equal(a.original_driver, "");
                assert_driver(NIC, "e1000e");
                assert_override(NIC, "(null)");
        }
        failing = NULL;
        /* an override that somebody had set comes back; what has no driver gets none */
        put("bus/pci/devices/" EDU, "driver_override", "other\n");
        deaf = "vfio-pci";
        a = ask(BIND_TO_VFIO, EDU, "");
        assert_int_equal(a.errnum, ENODEV);
        assert_driver(EDU, "");
        assert_override(EDU, "other");
        a = ask(BIND_TO_VFIO, NIC, "");
        assert_driver(NIC, "e1000e");
        assert_null(strstr(a.text, "did not take it back"));
        /* and when even that fails, it is said */
        failing = "e1000e/bind";
        a = ask(BIND_TO_VFIO, NIC, "");
        assert_driver(NIC, "");
        assert_non_null(strstr(a.text, "its driver e1000e did not take it back: Input/output error"));
}

static void test_a_former_driver_that_is_gone(void **state) {
        struct bind_answer a;

        (void)state;
        set_driver(NIC, "vfio-pci");
        /* not loaded: the kernel is asked, and what it did is reported as it is */
        a = ask(BIND_RESTORE, NIC, "igb");
        assert_int_equal(a.reason, REFUSAL_BACKEND_REFUSED);
        assert_driver(NIC, "e1000e");
        set_driver(NIC, "vfio-pci");
        failing = "driver/unbind";
        a = ask(BIND_RESTORE, NIC, "e1000e");
        assert_int_equal(a.reason, REFUSAL_BACKEND_REFUSED);
        assert_driver(NIC, "vfio-pci");
        /* without the module */
        failing = NULL;
        char full[512], other[512];
        full_path(full, "bus/pci/drivers/vfio-pci");
        full_path(other, "bus/pci/drivers/gone");
        assert_int_equal(rename(full, other), 0);
        a = ask(BIND_TO_VFIO, EDU, "");
        assert_non_null(strstr(a.text, "modprobe vfio-pci"));
        assert_int_equal(rename(other, full), 0);
}

/* ---- the talk ---- */

static int never(const char *path, const char *text) {
        (void)path;
        (void)text;
        sleep(3);       /* the kernel waits for somebody to close the device; shorter, since the child ends by it */
        return 0;
}

struct talk {
        struct serve_options options;
        int listener, result;
};

static void *serve_one(void *arg) {
        struct talk *t = arg;
        int fd = accept(t->listener, NULL, NULL);

        assert_true(fd >= 0);
        t->result = serve_connection(&t->options, fd);
        close(fd);
        return NULL;
}

static int call(struct talk *t, enum bind_action action, const char *name, uint32_t deadline_ms, char original[64],
                struct refusal *r) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        pthread_t thread;
        int result;

        full_path(written, "s");
        strcpy(address.sun_path, written);
        (void)unlink(address.sun_path);
        t->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(t->listener, (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(listen(t->listener, 1), 0);
        assert_int_equal(pthread_create(&thread, NULL, serve_one, t), 0);
        result = bind_client_call(address.sun_path, action, name, NULL, deadline_ms, original, r);
        pthread_join(thread, NULL);
        close(t->listener);
        return result;
}

static void test_broker_and_helper(void **state) {
        struct talk t = { .options = { .tree = { .sysfs = root, .write = kernel_write }, .allow_file = allow_file,
                                       .broker_uid = getuid(), .deadline_seconds = 5 } };
        struct refusal r;
        char original[64] = "?";

        (void)state;
        assert_int_equal(call(&t, BIND_TO_VFIO, NIC, 5000, original, &r), 0);
        assert_int_equal(t.result, 0);
        assert_string_equal(original, "e1000e");
        assert_driver(NIC, "vfio-pci");
        assert_int_equal(call(&t, BIND_TO_VFIO, BRIDGE, 5000, original, &r), -1);
        assert_int_equal(r.reason, REFUSAL_NOT_PERMITTED);
        assert_string_equal(r.text, BRIDGE " is a bridge; what is behind it would be cut off");
        /* somebody else than the broker gets nothing */
        t.options.broker_uid = getuid() + 1;
        assert_int_equal(call(&t, BIND_RESTORE, NIC, 5000, NULL, &r), -1);
        assert_int_equal(t.result, -EPERM);
        assert_int_equal(r.reason, REFUSAL_BACKEND_REFUSED);
        assert_driver(NIC, "vfio-pci");
}

static void test_deadlines(void **state) {
        struct talk t = { .options = { .tree = { .sysfs = root, .write = never }, .allow_file = allow_file,
                                       .broker_uid = getuid(), .deadline_seconds = 1 } };
        struct refusal r;

        (void)state;
        assert_int_equal(call(&t, BIND_TO_VFIO, NIC, 5000, NULL, &r), -1);
        assert_int_equal(r.reason, REFUSAL_DEVICE_BUSY);
        assert_non_null(strstr(r.text, "the kernel still waits after 1 s"));
        /* a helper that does not answer at all */
        t.options.deadline_seconds = 2;
        assert_int_equal(call(&t, BIND_TO_VFIO, NIC, 500, NULL, &r), -1);
        assert_int_equal(r.reason, REFUSAL_DEVICE_BUSY);
        assert_int_equal(r.errnum, ETIMEDOUT);
}

static void test_no_helper(void **state) {
        struct refusal r;

        (void)state;
        assert_int_equal(bind_client_call(NULL, BIND_TO_VFIO, EDU, NULL, 100, NULL, &r), -1);
        assert_int_equal(r.reason, REFUSAL_UNSUPPORTED);
        assert_non_null(strstr(r.text, "iommud-bind.socket"));
        assert_int_equal(bind_client_call("/no/such/bind.sock", BIND_TO_VFIO, EDU, NULL, 100, NULL, &r), -1);
        assert_int_equal(r.reason, REFUSAL_UNSUPPORTED);
        assert_int_equal(r.errnum, ENOENT);
        assert_non_null(strstr(r.text, "systemctl enable --now iommud-bind.socket"));
        assert_int_equal(bind_client_call(NULL, BIND_TO_VFIO, "edu0", NULL, 100, NULL, &r), -1);
        assert_int_equal(r.reason, REFUSAL_UNKNOWN_DEVICE);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_the_allow_list, make_machine),
                cmocka_unit_test_setup(test_what_is_refused_and_touches_nothing, make_machine),
                cmocka_unit_test_setup(test_to_vfio_and_back, make_machine),
                cmocka_unit_test_setup(test_what_was_with_vfio_before_us_stays, make_machine),
                cmocka_unit_test_setup(test_each_failure_is_undone, make_machine),
                cmocka_unit_test_setup(test_a_former_driver_that_is_gone, make_machine),
                cmocka_unit_test_setup(test_broker_and_helper, make_machine),
                cmocka_unit_test_setup(test_deadlines, make_machine),
                cmocka_unit_test_setup(test_no_helper, make_machine),
        };
        return cmocka_run_group_tests(tests, make_root, remove_root);
}
