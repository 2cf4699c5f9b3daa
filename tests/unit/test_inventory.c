/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker util */
/* Devices and groups from a sysfs made of real folders and links, with what machines have: functions of one device in
 * one group, bridges, a foreign driver, platform devices, no IOMMU at all. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/inventory.h"
#include "util/cleanup.h"

static char root[64];

static void make(const char *path) {
        char full[512], *slash;

        (void)snprintf(full, sizeof full, "%s/%s", root, path);
        for (slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
                *slash = '\0';
                (void)mkdir(full, 0700);
                *slash = '/';
        }
        (void)mkdir(full, 0700);
}

static void put(const char *folder, const char *file, const char *text) {
        char full[512];
        FILE *f;

        (void)snprintf(full, sizeof full, "%s/%s/%s", root, folder, file);
        f = fopen(full, "w");
        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static void put_link(const char *folder, const char *file, const char *target) {
        char full[512];

        (void)snprintf(full, sizeof full, "%s/%s/%s", root, folder, file);
        assert_int_equal(symlink(target, full), 0);
}

static void device(unsigned group, const char *name, const char *vendor, const char *id, const char *class,
                   const char *driver) {
        char folder[256], target[256], devices[64];

        (void)snprintf(folder, sizeof folder, "devices/pci0000:00/%s", name);
        make(folder);
        if (vendor) {
                put(folder, "vendor", vendor);
                put(folder, "device", id);
                put(folder, "class", class);
        }
        if (driver) {
                (void)snprintf(target, sizeof target, "../../../bus/pci/drivers/%s", driver);
                put_link(folder, "driver", target);
        }
        (void)snprintf(devices, sizeof devices, "kernel/iommu_groups/%u/devices", group);
        make(devices);
        (void)snprintf(target, sizeof target, "../../../../devices/pci0000:00/%s", name);
        put_link(devices, name, target);
}

static int make_tree(void **state) {
        (void)state;
        strcpy(root, "/tmp/iommud-sysfs-XXXXXX");
        if (!mkdtemp(root))
                return -1;
        /* 10: before 2 in the order of a directory listing by name, behind it in ours */
        device(10, "0000:00:05.0", "0x1234\n", "0x11e8\n", "0x00ff00\n", "vfio-pci");
        device(2, "0000:03:00.1", "0x8086\n", "0x1572\n", "0x020000\n", "i40e");
        device(2, "0000:03:00.0", "0x8086\n", "0x1572\n", "0x020000\n", "vfio-pci");
        device(3, "0000:00:1c.0", "0x8086\n", "0xa110\n", "0x060400\n", "pcieport");
        device(3, "0000:04:00.0", "0x15b3\n", "0x1017\n", "0x020000\n", "mlx5_vfio_pci");
        device(3, "0000:04:00.1", "0x15b3\n", "0x1017\n", "0x020000\n", NULL);
        device(4, "0000:00:1f.0", "0x8086\n", "0xa150\n", "0x060100\n", "lpc_ich");
        device(5, "0000:00:1e.0", "0x8086\n", "0xa150\n", "0x020000\n", "pcieport");
        device(6, "arm-smmu-dma.0", NULL, NULL, NULL, "pl330");
        make("kernel/iommu_groups/7/devices");
        make("kernel/iommu_groups/junk/devices");
        return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        (void)st;
        (void)type;
        (void)ftw;
        return remove(path);
}

static int remove_tree(void **state) {
        (void)state;
        return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void test_devices_are_listed_by_group_and_name(void **state) {
        static const char *const names[] = { "0000:03:00.0", "0000:03:00.1",   "0000:00:1c.0",
                                             "0000:04:00.0", "0000:04:00.1",   "0000:00:1f.0",
                                             "0000:00:1e.0", "arm-smmu-dma.0", "0000:00:05.0" };
        struct inventory i;
        struct refusal r;

        (void)state;
        assert_int_equal(inventory_read(root, &i, &r), 0);
        assert_int_equal(i.n, ARRAY_SIZE(names));
        for (size_t n = 0; n < i.n; n++)
                assert_string_equal(i.devices[n].name, names[n]);
        assert_string_equal(i.devices[8].driver, "vfio-pci");
        assert_string_equal(i.devices[8].vendor_device, "1234:11e8");
        assert_int_equal(i.devices[8].group, 10);
        assert_false(i.devices[8].bridge);
        assert_true(i.devices[2].bridge);
        assert_string_equal(i.devices[4].driver, "");
        assert_string_equal(i.devices[7].vendor_device, "");
        assert_ptr_equal(inventory_find(&i, "0000:00:05.0"), &i.devices[8]);
        assert_null(inventory_find(&i, "0000:00:05.1"));
        inventory_clear(&i);
        inventory_clear(&i);
        inventory_clear(NULL);
}

static void test_which_groups_can_be_used(void **state) {
        struct inventory i;
        struct refusal r;

        (void)state;
        assert_int_equal(inventory_read(root, &i, &r), 0);
        assert_true(inventory_group_is_viable(&i, 10, &r));
        /* a bridge under pcieport, a variant driver and a function without a driver are in nobody's way */
        assert_true(inventory_group_is_viable(&i, 3, &r));
        assert_false(inventory_group_is_viable(&i, 2, &r));
        assert_int_equal(r.reason, REFUSAL_GROUP_NOT_VIABLE);
        assert_string_equal(r.text,
                            "IOMMU group 2 cannot be used: its member 0000:03:00.1 belongs to the driver i40e; all "
                            "functions of a group go together: iommuctl device bind 0000:03:00.1");
        /* a bridge under another driver, and pcieport on something that is no bridge */
        assert_false(inventory_group_is_viable(&i, 4, &r));
        assert_false(inventory_group_is_viable(&i, 5, &r));
        assert_false(inventory_group_is_viable(&i, 6, &r));
        assert_false(inventory_group_is_viable(&i, 7, &r));
        assert_string_equal(r.text, "there is no IOMMU group 7");
        inventory_clear(&i);
}

static void test_members_as_text(void **state) {
        struct inventory i;
        struct refusal r;
        char text[64];

        (void)state;
        assert_int_equal(inventory_read(root, &i, &r), 0);
        inventory_group_members(&i, 2, text, sizeof text);
        assert_string_equal(text, "0000:03:00.0 0000:03:00.1");
        inventory_group_members(&i, 2, text, 26);
        assert_string_equal(text, "0000:03:00.0 0000:03:00.1");
        inventory_group_members(&i, 2, text, 25);
        assert_string_equal(text, "0000:03:00.0...");
        inventory_group_members(&i, 2, text, 14);
        assert_string_equal(text, "0000:03:00...");
        inventory_group_members(&i, 2, text, 4);
        assert_string_equal(text, "...");
        inventory_group_members(&i, 7, text, sizeof text);
        assert_string_equal(text, "");
        inventory_clear(&i);
}

static void test_a_machine_without_iommu(void **state) {
        struct inventory i;
        struct refusal r;

        (void)state;
        assert_int_equal(inventory_read("/tmp/no-such-sysfs", &i, &r), 0);
        assert_int_equal(i.n, 0);
        assert_false(inventory_group_is_viable(&i, 0, &r));
        inventory_clear(&i);
        put("kernel/iommu_groups/7", "file", "");
        (void)snprintf(strchr(root, '\0'), 30, "/kernel/iommu_groups/7/file");
        assert_int_equal(inventory_read(root, &i, &r), -1);
        assert_int_equal(r.errnum, ENOTDIR);
        root[strlen(root) - strlen("/kernel/iommu_groups/7/file")] = '\0';
}

static void test_pci_addresses(void **state) {
        static const char *const good[] = { "0000:00:00.0", "ffff:ff:1f.7", "10ab:3c:05.1" };
        static const char *const bad[] = { "", "0000:00:00", "0000:00:00.8", "0000:00:20.0", "0000:00:00.0 ",
                                           "0000:00:00.0/", "0000:FF:00.0", "00000:00:00.0", "../../x", "0000/00:00.0",
                                           "00:05.0", "edu0" };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(good); i++)
                assert_true(inventory_is_pci_address(good[i]));
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                if (inventory_is_pci_address(bad[i]))
                        fail_msg("'%s' was taken", bad[i]);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_devices_are_listed_by_group_and_name),
                cmocka_unit_test(test_which_groups_can_be_used),
                cmocka_unit_test(test_members_as_text),
                cmocka_unit_test(test_a_machine_without_iommu),
                cmocka_unit_test(test_pci_addresses),
        };
        return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
