/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drive_edu [DEVICE]: drives the DMA engine of an "edu" device from an ordinary user's process, and shows what the
 * IOMMU allows and what it does not. DEVICE is a name from the service's list ("0000:00:05.0", "edu0"); without one,
 * the first usable device 1234:11e8 is taken. Real and software devices look alike from here.
 *
 * Ends with 0 if everything was as it should be, and with 1 at the first thing that was not.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <iommud/iommud.h>

/* The device: docs/specs/edu in QEMU's source. */
#define EDU_VENDOR_DEVICE "1234:11e8"
#define EDU_IDENTIFICATION 0x010000ed
#define EDU_BUFFER 0x40000              /* 4096 bytes of its own, as its DMA engine addresses them */
#define EDU_ADDRESSES (1ULL << 28)      /* it reaches memory below this */
enum { BAR0 = 0, CONFIG = 7 };
enum { CONFIG_COMMAND = 4, COMMAND_MEMORY = 2, COMMAND_BUS_MASTER = 4 };
enum { REG_IDENTIFICATION = 0x00, REG_SOURCE = 0x80, REG_DESTINATION = 0x88, REG_COUNT = 0x90, REG_COMMAND = 0x98 };
enum { DMA_START = 1, DMA_TO_MEMORY = 2 };

/* Half of the device's buffer: some versions of QEMU do not survive a transfer that ends where the buffer ends. */
#define BLOCK 2048U

/* --- telling ------------------------------------------------------------------------------------------------------ */

static const char *green = "", *red = "", *dim = "", *plain = "";

static void choose_colours(void) {
        if (!isatty(STDOUT_FILENO) || getenv("NO_COLOR"))
                return;
        green = "\033[32m";
        red = "\033[31m";
        dim = "\033[2m";
        plain = "\033[0m";
}

__attribute__((format(printf, 2, 3))) static void done(const char *step, const char *format, ...) {
        va_list args;

        printf("  %s✓%s %-12s", green, plain, step);
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
}

__attribute__((format(printf, 2, 3), noreturn)) static void fail(const char *step, const char *format, ...) {
        va_list args;

        printf("  %s✗%s %-12s", red, plain, step);
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
        exit(1);        /* the service takes everything back when the process ends */
}

/* For calls that should work: shows the library's text and ends the program when they do not. */
static void must(int result, const char *step) {
        struct iommud_error e = { .size = sizeof e };

        if (result >= 0)
                return;
        if (iommud_error_detail(&e) < 0)
                fail(step, "%s", strerror(-result));
        fail(step, "%s: %s (%s)", e.call, e.text, e.reason ? iommud_reason_name(e.reason) : strerror(-result));
}

/* --- the device --------------------------------------------------------------------------------------------------- */

struct edu {
        struct iommud_client *client;
        struct iommud_domain *domain;
        struct iommud_attachment *device;
        struct iommud_memory *memory;           /* two pages: one that the device reads, one that it writes */
        bool swapped;                           /* QEMU's edu has the byte order of the machine: big on POWER */
        uint8_t *from, *to;
        uint64_t iova_from, iova_to, page;
};

static uint32_t read_register(const struct edu *edu, uint64_t at) {
        uint64_t value;

        must(iommud_device_region_read(edu->device, BAR0, at, 4, &value), "register");
        return edu->swapped ? __builtin_bswap32((uint32_t)value) : (uint32_t)value;
}

static void write_register(const struct edu *edu, uint64_t at, uint64_t value) {
        if (edu->swapped)
                value = __builtin_bswap32((uint32_t)value);
        must(iommud_device_region_write(edu->device, BAR0, at, 4, value), "register");
}

/* Starts a transfer and waits for its end, 5 s at most. Returns how long it took, in milliseconds. That it ended
 * does not say that the bytes arrived: a transfer that the IOMMU blocks ends like any other. */
static double transfer(const struct edu *edu, uint64_t source, uint64_t destination, unsigned direction) {
        const struct timespec pause = { .tv_nsec = 1000000 };
        struct timespec begin, end;

        clock_gettime(CLOCK_MONOTONIC, &begin);
        write_register(edu, REG_SOURCE, source);
        write_register(edu, REG_DESTINATION, destination);
        write_register(edu, REG_COUNT, BLOCK);
        write_register(edu, REG_COMMAND, DMA_START | direction);
        do {
                nanosleep(&pause, NULL);
                clock_gettime(CLOCK_MONOTONIC, &end);
                if (!(read_register(edu, REG_COMMAND) & DMA_START))
                        return (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6;
        } while (end.tv_sec - begin.tv_sec < 5);
        fail("DMA", "the device did not finish within 5 s");
}

static void enable_device(struct edu *edu) {
        uint64_t command;

        must(iommud_device_region_read(edu->device, CONFIG, CONFIG_COMMAND, 2, &command), "device");
        command |= COMMAND_MEMORY | COMMAND_BUS_MASTER;
        must(iommud_device_region_write(edu->device, CONFIG, CONFIG_COMMAND, 2, command), "device");
        edu->swapped = read_register(edu, REG_IDENTIFICATION) == __builtin_bswap32(EDU_IDENTIFICATION);
        if (read_register(edu, REG_IDENTIFICATION) != EDU_IDENTIFICATION)
                fail("device", "this is not an edu device: it identifies itself as %#" PRIx32,
                     read_register(edu, REG_IDENTIFICATION));
        done("device", "may master the bus; identifies itself as %#x", EDU_IDENTIFICATION);
}

/* --- choosing ----------------------------------------------------------------------------------------------------- */

/* The name of the device to use, the caller's. */
static char *choose_device(const struct edu *edu, const char *wanted) {
        struct iommud_device *devices;
        char *name = NULL;
        size_t n;

        must(iommud_device_list(edu->client, &devices, &n), "devices");
        for (size_t i = 0; i < n && !name; i++) {
                const struct iommud_device *d = &devices[i];

                if (wanted ? strcmp(d->name, wanted) != 0 : strcmp(d->vendor_device, EDU_VENDOR_DEVICE) != 0)
                        continue;
                if (d->usable)
                        name = strdup(d->name);
                else if (wanted)
                        fail("devices", "%s cannot be used: %s", wanted, d->why_not);
        }
        iommud_device_list_free(devices, n);
        if (!name && wanted)
                fail("devices", "the service does not know a device %s", wanted);
        if (!name)
                fail("devices", "none of %zu devices is a usable %s", n, EDU_VENDOR_DEVICE);
        return name;
}

/* Two pages of IOVA space, from 1 MiB up, that neither the IOMMU nor the device rules out. */
static uint64_t choose_iova(const struct iommud_constraints *c, uint64_t page) {
        for (uint32_t i = 0; i < c->n_ranges; i++) {
                uint64_t first = c->ranges[i].first > 0x100000 ? c->ranges[i].first : 0x100000;

                first = (first + page - 1) & ~(page - 1);
                if (first + 2 * page <= EDU_ADDRESSES && first + 2 * page - 1 <= c->ranges[i].last)
                        return first;
        }
        fail("domain", "no IOVA range is within reach of the device");
}

/* --- the job ------------------------------------------------------------------------------------------------------ */

static void prepare(struct edu *edu, const char *name) {
        struct iommud_constraints c = { .size = sizeof c };
        struct iommud_map_entry entries[2];

        must(iommud_capabilities(edu->client, name, &c), "domain");
        edu->page = c.page_sizes & (~c.page_sizes + 1);
        if (edu->page < BLOCK)
                fail("domain", "no page size is known");
        must(iommud_domain_create(edu->client, "drive_edu", &edu->domain), "domain");
        done("domain", "number %" PRIu64 ", pages of %" PRIu64 " bytes", iommud_domain_id(edu->domain), edu->page);
        must(iommud_device_attach(edu->domain, name, &edu->device), "attach");
        done("attach", "%s is in the domain and reaches nothing yet", name);
        must(iommud_memory_alloc(edu->client, 2 * edu->page, NULL, &edu->memory), "memory");
        done("memory", "%" PRIu64 " bytes, registered and sealed", iommud_memory_size(edu->memory));
        edu->from = iommud_memory_addr(edu->memory);
        edu->to = edu->from + edu->page;
        edu->iova_from = choose_iova(&c, edu->page);
        edu->iova_to = edu->iova_from + edu->page;
        entries[0] = (struct iommud_map_entry){ edu->iova_from, edu->memory, 0, edu->page, IOMMUD_READ };
        entries[1] = (struct iommud_map_entry){ edu->iova_to, edu->memory, edu->page, edu->page, IOMMUD_WRITE };
        must(iommud_map_batch(edu->domain, entries, 2), "map");
        done("map", "%#" PRIx64 " to read, %#" PRIx64 " to write", edu->iova_from, edu->iova_to);
        enable_device(edu);
}

/* What one transfer was to show, for the table. */
struct row {
        const char *what;
        uint64_t iova;
        double milliseconds;
        const char *result;
};

/* Memory -> device -> other memory: every byte must come out as it went in. */
static void copy_through_device(const struct edu *edu, struct row rows[2]) {
        uint8_t seed = (uint8_t)getpid();

        for (size_t i = 0; i < BLOCK; i++)
                edu->from[i] = (uint8_t)(seed + i * 7 + i / 256);
        memset(edu->to, 0, edu->page);
        rows[0] = (struct row){ "device reads", edu->iova_from, transfer(edu, edu->iova_from, EDU_BUFFER, 0), NULL };
        rows[1] = (struct row){ "device writes", edu->iova_to,
                                transfer(edu, EDU_BUFFER, edu->iova_to, DMA_TO_MEMORY), NULL };
        for (size_t i = 0; i < BLOCK; i++)
                if (edu->to[i] != edu->from[i])
                        fail("DMA", "byte %zu is %#x and should be %#x", i, edu->to[i], edu->from[i]);
        for (size_t i = BLOCK; i < edu->page; i++)
                if (edu->to[i] != 0)
                        fail("DMA", "byte %zu changed, which nobody asked for", i);
        rows[0].result = rows[1].result = "every byte is right";
        done("DMA", "%u bytes went through the device and came back unchanged", BLOCK);
}

/* The same transfer once more: now it must not reach the memory. */
static void try_after_unmap(const struct edu *edu, struct row *row) {
        struct iommud_mapping *mappings;
        size_t n;

        memset(edu->to, 0xa5, edu->page);
        must(iommud_unmap(edu->domain, edu->iova_from, 2 * edu->page), "unmap");
        must(iommud_mapping_list(edu->domain, &mappings, &n), "unmap");
        iommud_mapping_list_free(mappings);
        if (n != 0)
                fail("unmap", "%zu mappings are left", n);
        done("unmap", "both pages at once; nothing is mapped");
        *row = (struct row){ "same write again", edu->iova_to,
                             transfer(edu, EDU_BUFFER, edu->iova_to, DMA_TO_MEMORY), "memory unchanged" };
        for (size_t i = 0; i < edu->page; i++)
                if (edu->to[i] != 0xa5)
                        fail("isolation", "the device changed byte %zu of memory that is not mapped", i);
        done("isolation", "the device tried again and the memory did not change");
}

static void show_table(const struct row *rows, size_t n) {
        printf("\n    %s%-18s %10s %8s %8s   %s%s\n", dim, "transfer", "IOVA", "bytes", "ms", "result", plain);
        for (size_t i = 0; i < n; i++)
                printf("    %-18s %#10" PRIx64 " %8u %8.1f   %s\n", rows[i].what, rows[i].iova, BLOCK,
                       rows[i].milliseconds, rows[i].result);
        printf("\n");
}

/* --- being refused ------------------------------------------------------------------------------------------------ */

/* How much is left of a quota, UINT64_MAX if it is unlimited. */
static uint64_t quota_left(const struct edu *edu, enum iommud_resource resource) {
        struct iommud_quota quotas[16];
        size_t n = sizeof quotas / sizeof quotas[0];

        must(iommud_quota_get(edu->client, quotas, &n), "quota");
        for (size_t i = 0; i < n && i < sizeof quotas / sizeof quotas[0]; i++)
                if (quotas[i].resource == resource && quotas[i].limit != UINT64_MAX)
                        return quotas[i].limit > quotas[i].used ? quotas[i].limit - quotas[i].used : 0;
        return UINT64_MAX;
}

/* More memory than the tenant may register: an empty file is enough, because it is refused before it is looked at. */
static int register_too_much(const struct edu *edu, uint64_t size) {
        int fd = memfd_create("too much", MFD_CLOEXEC | MFD_ALLOW_SEALING), r;
        struct iommud_memory *memory;

        if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
                fail("quota", "no file of %" PRIu64 " bytes: %s", size, strerror(errno));
        r = iommud_memory_import(edu->client, fd, size, NULL, &memory);
        close(fd);
        return r;
}

/* More memory than the tenant may lock: this one has to be there, so that it is mapped if it is not refused. */
static int lock_too_much(const struct edu *edu, uint64_t size) {
        struct iommud_memory *memory;
        int r = iommud_memory_alloc(edu->client, size, NULL, &memory);

        if (r < 0)
                return r;
        return iommud_map(edu->domain, edu->iova_from, memory, 0, size, IOMMUD_READ);
}

static void ask_for_too_much(const struct edu *edu) {
        /* what can be allocated for a demonstration without harm */
        uint64_t affordable = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 4;
        uint64_t locked = quota_left(edu, IOMMUD_RESOURCE_LOCKED_BYTES);
        uint64_t registered = quota_left(edu, IOMMUD_RESOURCE_REGISTERED_BYTES);
        struct iommud_error e = { .size = sizeof e };
        int r;

        if (locked <= affordable && locked <= registered)
                r = lock_too_much(edu, (locked / edu->page + 1) * edu->page);
        else if (registered <= INT64_MAX / 2)
                r = register_too_much(edu, (registered / edu->page + 1) * edu->page);
        else {
                done("quota", "nothing to show: this tenant has no limit within reach");
                return;
        }
        if (r >= 0)
                fail("quota", "the service gave more memory than the quota allows");
        must(r == -EDQUOT ? 0 : r, "quota");
        must(iommud_error_detail(&e), "quota");
        done("quota", "asking for more than the tenant's share was refused (%s):", iommud_reason_name(e.reason));
        printf("    %s“%s”%s\n", dim, e.text, plain);
}

int main(int argc, char **argv) {
        struct edu edu = { .page = 0 };
        struct row rows[3];
        char *name;

        if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
                fprintf(stderr, "usage: %s [DEVICE]\n", argv[0]);
                return 2;
        }
        choose_colours();
        setlinebuf(stdout);
        printf("DMA as uid %u, with libiommud %s\n\n", (unsigned)getuid(), iommud_version());
        must(iommud_connect(NULL, &edu.client), "connect");
        done("connect", "the service gave us a session");
        name = choose_device(&edu, argv[1]);
        prepare(&edu, name);
        copy_through_device(&edu, rows);
        try_after_unmap(&edu, &rows[2]);
        ask_for_too_much(&edu);
        show_table(rows, 3);
        must(iommud_device_detach(edu.device), "detach");
        must(iommud_domain_destroy(edu.domain), "domain");
        must(iommud_memory_close(edu.memory), "memory");
        iommud_close(edu.client);
        printf("%sAll as it should be.%s\n", green, plain);
        free(name);
        return 0;
}
