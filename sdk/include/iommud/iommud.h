/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IOMMUD_IOMMUD_H
#define IOMMUD_IOMMUD_H

/*
 * libiommud: give a device DMA access to memory, without being root.
 *
 *   connect -> create a domain -> attach a device -> allocate or import memory -> map -> DMA -> unmap
 *
 * Units        addresses, offsets, lengths and sizes are bytes. Access is as the device sees it.
 * Threads      every function may be called from any thread at any time, except that nothing may use an object while or
 *              after another thread closes it. Calls of one client run concurrently.
 * Errors       functions that return int give 0, or a negative errno value. iommud_last_error() then has reason and
 *              text of the calling thread's last failed call; iommud_close() never replaces it. Nothing is ever
 *              printed. Every call of the service can give -ECONNRESET (the session is over: close the client),
 *              -ETIMEDOUT, -EAGAIN (not now), -ENOMEM, -EIO and -EINVAL; -EDQUOT is a quota. iommud_error(3) has the
 *              whole table.
 * Ownership    said at each function. Closing an object with NULL does nothing. Closing one that the service has
 *              already taken back succeeds; when closing fails, the object stays as it was.
 * Deadlines    a call waits at most the client's timeout (iommud_connect_options, default 30 s); -ETIMEDOUT afterwards.
 *              What was asked may still happen: the next call of the same kind with other arguments is safe, and
 *              mutating calls are repeated by the SDK with the same request key when the connection broke.
 * Restarts     when the service restarts, the SDK reconnects by itself; mappings and DMA go on meanwhile.
 * Fork         a client does not survive fork() in the child: close nothing there, exec or connect anew.
 */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define IOMMUD_API __attribute__((visibility("default")))
#else
#define IOMMUD_API
#endif

struct iommud_client;           /* one session with the service */
struct iommud_domain;           /* an IOVA address space */
struct iommud_attachment;       /* a device in a domain */
struct iommud_memory;           /* registered memory */

/* Device's access to memory. IOMMUs exist that let a device read what it may write. */
enum iommud_access {
        IOMMUD_READ = 1,
        IOMMUD_WRITE = 2,
        IOMMUD_READ_WRITE = 3
};

/* Why the service refused. Same names and numbers as enum Reason of proto/iommud.proto. */
enum iommud_reason {
        IOMMUD_REASON_UNSPECIFIED = 0,
        IOMMUD_REASON_ZERO_LENGTH = 1,
        IOMMUD_REASON_UNALIGNED = 2,
        IOMMUD_REASON_RANGE_WRAPS = 3,
        IOMMUD_REASON_OUTSIDE_APERTURE = 4,
        IOMMUD_REASON_RESERVED_REGION = 5,
        IOMMUD_REASON_OVERLAP = 6,
        IOMMUD_REASON_BEYOND_OBJECT = 7,
        IOMMUD_REASON_BAD_ACCESS = 8,
        IOMMUD_REASON_BATCH_TOO_LARGE = 9,
        IOMMUD_REASON_BAD_MESSAGE = 10,
        IOMMUD_REASON_BAD_NAME = 11,
        IOMMUD_REASON_KEY_REUSED = 12,
        IOMMUD_REASON_MEMORY_NOT_REGULAR = 20,
        IOMMUD_REASON_MEMORY_BAD_FILESYSTEM = 21,
        IOMMUD_REASON_MEMORY_O_PATH = 22,
        IOMMUD_REASON_MEMORY_EMPTY = 23,
        IOMMUD_REASON_MEMORY_TRUNCATED = 24,
        IOMMUD_REASON_MEMORY_READ_ONLY = 25,
        IOMMUD_REASON_MEMORY_WRITE_SEALED = 26,
        IOMMUD_REASON_MEMORY_HOLES = 27,
        IOMMUD_REASON_MEMORY_UNSEALED = 28,
        IOMMUD_REASON_MEMORY_STALLED = 29,
        IOMMUD_REASON_UNKNOWN_TICKET = 30,
        IOMMUD_REASON_UNKNOWN_DOMAIN = 40,
        IOMMUD_REASON_UNKNOWN_MEMORY = 41,
        IOMMUD_REASON_UNKNOWN_DEVICE = 42,
        IOMMUD_REASON_UNKNOWN_ATTACHMENT = 43,
        IOMMUD_REASON_UNKNOWN_TENANT = 44,
        IOMMUD_REASON_UNKNOWN_SESSION = 45,
        IOMMUD_REASON_NOT_MAPPED = 46,
        IOMMUD_REASON_PARTIAL_UNMAP = 47,
        IOMMUD_REASON_QUOTA_EXCEEDED = 60,
        IOMMUD_REASON_LIMIT_EXCEEDED = 61,
        IOMMUD_REASON_IN_USE = 62,
        IOMMUD_REASON_IN_PROGRESS = 63,
        IOMMUD_REASON_DEVICE_BUSY = 64,
        IOMMUD_REASON_DEVICE_ORPHANED = 65,
        IOMMUD_REASON_GROUP_NOT_VIABLE = 66,
        IOMMUD_REASON_DOMAIN_QUARANTINED = 67,
        IOMMUD_REASON_HOLDER_LOST = 68,
        IOMMUD_REASON_RECOVERING = 69,
        IOMMUD_REASON_UNKNOWN_PEER = 80,
        IOMMUD_REASON_NOT_PERMITTED = 81,
        IOMMUD_REASON_DEVICE_NODE_MISSING = 82,
        IOMMUD_REASON_DEVICE_NODE_FORBIDDEN = 83,
        IOMMUD_REASON_BACKEND_REFUSED = 84,
        IOMMUD_REASON_UNSUPPORTED = 85,
        IOMMUD_REASON_LEDGER_UNAVAILABLE = 86,
        IOMMUD_REASON_INTERNAL = 87,
        IOMMUD_REASON_NO_WINDOW = 100,
        IOMMUD_REASON_WINDOW_SIZE = 101,
        IOMMUD_REASON_WINDOW_PAGE = 102,
        IOMMUD_REASON_WINDOW_LEVELS = 103,
        IOMMUD_REASON_WINDOW_LIMIT = 104,
        IOMMUD_REASON_UNKNOWN_WINDOW = 105,
        IOMMUD_REASON_MEMORY_PAGE_SIZE = 106
};

enum iommud_resource {
        IOMMUD_RESOURCE_LOCKED_BYTES = 1,
        IOMMUD_RESOURCE_MAPPINGS = 2,
        IOMMUD_RESOURCE_DOMAINS = 3,
        IOMMUD_RESOURCE_MEMORY_OBJECTS = 4,
        IOMMUD_RESOURCE_REGISTERED_BYTES = 5,
        IOMMUD_RESOURCE_SESSIONS = 6,
        IOMMUD_RESOURCE_DEVICES = 7,
        IOMMUD_RESOURCE_TABLE_BYTES = 8,        /* kernel memory that mappings cause */
        IOMMUD_RESOURCE_WINDOWS = 9
};

/* ---- errors ---- */

/* Details of a refusal. Fields that do not apply are 0; element is -1 outside batches; conflict_first > conflict_last
 * means that there is no conflicting range. */
struct iommud_error {
        size_t size;                    /* set by the caller: sizeof(struct iommud_error) */
        int error;                      /* negative errno value, as returned */
        enum iommud_reason reason;
        enum iommud_resource resource;
        int64_t element;
        uint64_t limit, used, asked;
        uint64_t conflict_first, conflict_last;         /* inclusive */
        uint64_t nearest_below, nearest_above;
        int system_errno;
        char call[32];                  /* "iommud_map" */
        char text[400];
};

/* Text of the calling thread's last failed call; "" if none. Valid until the thread's next call into the library. */
IOMMUD_API const char *iommud_last_error(void);
/* Copies the details of the calling thread's last failed call. 0, or -ENOENT if none failed, -EINVAL for a bad size. */
IOMMUD_API int iommud_error_detail(struct iommud_error *error);
/* "ZERO_LENGTH" for a reason; "UNSPECIFIED" for one that this library does not know. Static storage. */
IOMMUD_API const char *iommud_reason_name(enum iommud_reason reason);
/* "0.1.0". Static storage. */
IOMMUD_API const char *iommud_version(void);

/* ---- client ---- */

struct iommud_connect_options {
        size_t size;                    /* sizeof(struct iommud_connect_options) */
        const char *directory;          /* where the sockets are: grpc.sock and session.sock. NULL: $IOMMUD_DIR, else
                                         * /run/iommud/client */
        const char *client_name;        /* shown to operators; NULL: the program's name */
        uint32_t timeout_ms;            /* per call; 0: 30000 */
};

/* Opens a session. options may be NULL. *client is the caller's: iommud_close(). -EACCES: no rule makes this process a
 * tenant; -ECONNREFUSED, -ENOENT: nobody listens there. */
IOMMUD_API int iommud_connect(const struct iommud_connect_options *options, struct iommud_client **client);
/* Ends the session: the service releases all that it owns. Domains, attachments and memory objects of the client
 * that were not closed before are freed too and must not be used afterwards. */
IOMMUD_API void iommud_close(struct iommud_client *client);

/* IOVA space. Ranges are inclusive, ascending; what lies between them is reserved. */
struct iommud_range {
        uint64_t first, last;
};

struct iommud_constraints {
        size_t size;                    /* set by the caller */
        uint64_t page_sizes;            /* bit n: pages of 2^n bytes; the smallest is the granularity */
        uint32_t max_mappings;          /* UINT32_MAX: no limit known */
        uint32_t n_ranges;
        struct iommud_range ranges[32];
};

/* What a domain with that device (NULL: without one) will be like. */
IOMMUD_API int iommud_capabilities(struct iommud_client *client, const char *device,
                                   struct iommud_constraints *constraints);

struct iommud_quota {
        enum iommud_resource resource;
        uint64_t limit;                 /* UINT64_MAX: unlimited */
        uint64_t used;
};

/* Fills up to *n quotas, sets *n to how many there are. */
IOMMUD_API int iommud_quota_get(struct iommud_client *client, struct iommud_quota *quotas, size_t *n);

/* ---- devices ---- */

struct iommud_device {
        const char *name;               /* "0000:00:05.0" */
        const char *driver;             /* "" if none */
        const char *state;              /* "free", "leased", "orphaned", "unbound", "busy" */
        const char *why_not;            /* "" when usable */
        const char *vendor_device;      /* "1234:11e8" */
        uint32_t group;                 /* IOMMU group */
        int usable;
};

/* *devices: an array of *n, the caller's: iommud_device_list_free(). */
IOMMUD_API int iommud_device_list(struct iommud_client *client, struct iommud_device **devices, size_t *n);
IOMMUD_API void iommud_device_list_free(struct iommud_device *devices, size_t n);

/* ---- domains ---- */

/* label may be NULL; at most 63 bytes. *domain is the caller's: iommud_domain_destroy() or iommud_close(). */
IOMMUD_API int iommud_domain_create(struct iommud_client *client, const char *label, struct iommud_domain **domain);
/* Detaches devices and unmaps everything, then frees. Attachments of the domain are over, but their handles remain
 * to be closed. On failure (the service does not answer) the handle stays valid. */
IOMMUD_API int iommud_domain_destroy(struct iommud_domain *domain);
IOMMUD_API uint64_t iommud_domain_id(const struct iommud_domain *domain);

enum iommud_flush_mode {
        IOMMUD_FLUSH_STRICT = 0,        /* when an unmap has returned, devices cannot reach the range */
        IOMMUD_FLUSH_LAZY = 1           /* they can until iommud_domain_sync() or until the service has flushed by itself; until
                                         * then the range is not reused, its memory not released, its charge kept */
};

struct iommud_domain_options {
        size_t size;                    /* sizeof(struct iommud_domain_options) */
        const char *label;              /* as in iommud_domain_create() */
        enum iommud_flush_mode flush_mode;
};

/* As iommud_domain_create(); options may be NULL. -ENOTSUP: the service knows no lazy domains. */
IOMMUD_API int iommud_domain_create_with(struct iommud_client *client, const struct iommud_domain_options *options,
                                         struct iommud_domain **domain);
/* On return nothing that was unmapped before is reachable. flushed_bytes may be NULL: bytes that had waited. In a strict domain
 * there is nothing to do. */
IOMMUD_API int iommud_domain_sync(struct iommud_domain *domain, uint64_t *flushed_bytes);

struct iommud_domain_info {
        size_t size;                    /* set by the caller */
        uint64_t id;
        uint64_t mappings, mapped_bytes;
        uint32_t attachments;
        char label[64];
        char state[16];
        struct iommud_constraints constraints;
        enum iommud_flush_mode flush_mode;
        uint64_t deferred_mappings, deferred_bytes;     /* unmapped, not flushed yet */
        uint64_t kernel_mappings;       /* what the IOMMU's budget counts: a chunked mapping is several */
        uint64_t table_bytes;           /* kernel memory charged for tables and records */
        uint64_t shared_pages;          /* IOMMU pages that sub-page mappings share */
};

IOMMUD_API int iommud_domain_info(struct iommud_domain *domain, struct iommud_domain_info *info);

/* Attaches a device by name; mappings made before become reachable for it. *attachment is the caller's:
 * iommud_device_detach() or iommud_close(). -EBUSY: leased to another, -ENODEV: none such or not usable (text says
 * why). */
IOMMUD_API int iommud_device_attach(struct iommud_domain *domain, const char *device,
                                    struct iommud_attachment **attachment);
/* Close an fd that iommud_device_fd() gave before: the device cannot be lent again while one is open. */
IOMMUD_API int iommud_device_detach(struct iommud_attachment *attachment);
IOMMUD_API uint64_t iommud_attachment_id(const struct iommud_attachment *attachment);

/* A VFIO device fd (new, the caller's), for programs that drive the device with linux/vfio.h themselves. -ENOTSUP for a
 * device of the software IOMMU. */
IOMMUD_API int iommud_device_fd(struct iommud_attachment *attachment, int *fd);

/* Regions are numbered as in linux/vfio.h: 0..5 the BARs, 7 the configuration space. width: 1, 2, 4 or 8 bytes,
 * naturally aligned; little endian devices are read as numbers. Work alike on real and software devices, one
 * access at a time. -EINVAL: beyond the region, or no such region (whose size is 0); -ENODEV: detached with its
 * domain. */
IOMMUD_API int iommud_device_region_size(struct iommud_attachment *attachment, uint32_t region, uint64_t *size);
IOMMUD_API int iommud_device_region_read(struct iommud_attachment *attachment, uint32_t region, uint64_t offset,
                                         unsigned width, uint64_t *value);
IOMMUD_API int iommud_device_region_write(struct iommud_attachment *attachment, uint32_t region, uint64_t offset,
                                          unsigned width, uint64_t value);

/* ---- memory ---- */

struct iommud_memory_options {
        size_t size;                    /* sizeof(struct iommud_memory_options) */
        uint64_t huge_page_size;        /* alloc: 0, or 2 MiB / 1 GiB: a hugetlb memfd */
        int no_seal;                    /* do not seal; the tenant's policy must allow it; each mapping is charged */
        int read_only;                  /* the device will only read: a read-only fd will do (import) */
        int populate;                   /* import: fill holes instead of refusing them */
        const char *name;               /* alloc: shown in /proc/PID/maps; NULL: "iommud" */
};

/* Allocates size bytes (rounded up to the page size) of fd-backed memory, touches every page, registers and seals it.
 * options may be NULL. *memory is the caller's: iommud_memory_close() or iommud_close(). */
IOMMUD_API int iommud_memory_alloc(struct iommud_client *client, uint64_t size,
                                   const struct iommud_memory_options *options, struct iommud_memory **memory);
/* Registers memory of the caller's: a memfd, or a file on tmpfs or hugetlbfs. fd stays the caller's and may be
 * closed afterwards. size: how many bytes of it, from 0. The memory is not mapped into this process:
 * iommud_memory_addr() is NULL. */
IOMMUD_API int iommud_memory_import(struct iommud_client *client, int fd, uint64_t size,
                                    const struct iommud_memory_options *options, struct iommud_memory **memory);
/* Unregisters; -EBUSY while mappings use it. Allocated memory is unmapped from this process: its address is dead. */
IOMMUD_API int iommud_memory_close(struct iommud_memory *memory);
IOMMUD_API void *iommud_memory_addr(const struct iommud_memory *memory);        /* NULL for imported memory */
IOMMUD_API uint64_t iommud_memory_size(const struct iommud_memory *memory);     /* after rounding */
IOMMUD_API uint64_t iommud_memory_id(const struct iommud_memory *memory);
/* The memory's fd, owned by the memory object; -1 for imported memory. */
IOMMUD_API int iommud_memory_fd(const struct iommud_memory *memory);

/* ---- map ---- */

/* iova, length and offset must be multiples of the domain's smallest page size; nothing may be mapped there. */
IOMMUD_API int iommud_map(struct iommud_domain *domain, uint64_t iova, struct iommud_memory *memory, uint64_t offset,
                          uint64_t length, enum iommud_access access);

struct iommud_map_entry {
        uint64_t iova;
        struct iommud_memory *memory;
        uint64_t offset;
        uint64_t length;
        enum iommud_access access;
};

/* All or nothing; iommud_error_detail() names the element that failed. At most 1024 entries; none is no call at all. */
IOMMUD_API int iommud_map_batch(struct iommud_domain *domain, const struct iommud_map_entry *entries, size_t n);

enum iommud_map_flag {
        IOMMUD_MAP_EXPOSE_PAGES = 1,    /* devices may see the whole IOMMU pages that the ranges touch: no alignment is needed then,
                                         * but IOVA and offset must lie alike in their pages. Pages are counted, their access is
                                         * the union of those who share them */
        IOMMUD_MAP_MERGE = 2,           /* entries that continue the one before become one mapping with it */
        IOMMUD_MAP_DRY_RUN = 4,         /* the same answer, and nothing is done */
        IOMMUD_MAP_ANYWHERE = 8         /* entries' iova is not looked at: they are laid out one after another at result->iova */
};

struct iommud_map_options {
        size_t size;                    /* sizeof(struct iommud_map_options) */
        uint32_t flags;                 /* of enum iommud_map_flag */
        uint64_t chunk;                 /* bytes, a power of two: unmap may cut the mappings at multiples of it from their
                                         * beginning; 0: whole only */
        uint64_t window;                /* with ANYWHERE: id of a window; 0: the best one */
};

struct iommud_map_result {
        size_t size;                    /* sizeof(struct iommud_map_result), set by the caller */
        uint64_t iova;                  /* of the first entry */
        uint64_t mappings;              /* made, after merging */
        uint64_t locked_bytes, table_bytes;     /* what was charged; in a dry run what would be */
};

/* iommud_map_batch() with options; options and result may be NULL. Besides its errors: -ERANGE for a range that lies in no window,
 * or in more than one; -ENOTSUP for what the service or the IOMMU cannot do. */
IOMMUD_API int iommud_map_with(struct iommud_domain *domain, const struct iommud_map_entry *entries, size_t n,
                               const struct iommud_map_options *options, struct iommud_map_result *result);

/* Unmaps one or several whole mappings, or whole chunks of them, that fill the range. -EBUSY with reason PARTIAL_UNMAP when a
 * mapping would be split elsewhere: the details name the nearest borders. On return the device cannot reach the range any
 * more, unless the domain is lazy. */
IOMMUD_API int iommud_unmap(struct iommud_domain *domain, uint64_t iova, uint64_t length);

struct iommud_unmap_entry {
        uint64_t iova;
        uint64_t length;
};

IOMMUD_API int iommud_unmap_batch(struct iommud_domain *domain, const struct iommud_unmap_entry *entries, size_t n);
/* unmapped_bytes may be NULL. */
IOMMUD_API int iommud_unmap_all(struct iommud_domain *domain, uint64_t *unmapped_bytes);

enum iommud_split_policy {
        IOMMUD_SPLIT_AT_CHUNKS = 0,     /* a part of a chunked mapping, at its borders; devices notice nothing at the rest */
        IOMMUD_SPLIT_REMAP = 1,         /* any part, at page borders: the rest is unmapped and mapped again, and devices see a
                                         * moment without translation */
        IOMMUD_SPLIT_HITLESS = 2        /* -ENOTSUP so far */
};

struct iommud_unmap_options {
        size_t size;                    /* sizeof(struct iommud_unmap_options) */
        enum iommud_split_policy split;
};

/* iommud_unmap_batch() with options, which may be NULL; unmapped_bytes may be NULL. */
IOMMUD_API int iommud_unmap_with(struct iommud_domain *domain, const struct iommud_unmap_entry *entries, size_t n,
                                 const struct iommud_unmap_options *options, uint64_t *unmapped_bytes);

struct iommud_mapping {
        uint64_t iova, length, memory, offset;
        uint32_t access;
        uint32_t live;                  /* 0: being made or unmade */
        uint64_t chunk;                 /* 0: whole only */
        uint64_t exposed_first, exposed_last;   /* what devices see because of it; first > last: the range itself */
        uint32_t exposed_access;        /* in the first and the last page: the union of those who share them */
        uint32_t reserved;
};

/* All mappings of the domain by IOVA, *mappings the caller's: iommud_mapping_list_free(). */
IOMMUD_API int iommud_mapping_list(struct iommud_domain *domain, struct iommud_mapping **mappings, size_t *n);
IOMMUD_API void iommud_mapping_list_free(struct iommud_mapping *mappings);

/* ---- windows: apertures with a page size of their own, in which everything is mapped ---- */

struct iommud_window {
        uint64_t id;
        uint64_t start;
        uint64_t length;                /* bytes, a power of two, except that a default window may be a whole aperture; 0: 2^64 */
        uint64_t mappings, mapped_bytes;
        uint64_t quota;                 /* bytes that may be mapped in it; 0: no limit of its own */
        uint64_t table_bytes;           /* charged for its table */
        uint32_t page_shift, levels;
        uint32_t is_default, reserved;
};

struct iommud_window_limits {
        size_t size;                    /* set by the caller */
        uint64_t page_sizes;            /* of windows that can be created: bit n: 2^n bytes */
        uint64_t largest;               /* length that can be created, a power of two; does not depend on the RAM */
        uint32_t can_create;            /* how many more */
        uint32_t levels_max;
};

/* *windows: an array of *n by start, the caller's: iommud_window_list_free(). limits may be NULL. All calls of this family:
 * -ENOTSUP from a service that is older than windows. */
IOMMUD_API int iommud_window_query(struct iommud_domain *domain, struct iommud_window **windows, size_t *n,
                                   struct iommud_window_limits *limits);
IOMMUD_API void iommud_window_list_free(struct iommud_window *windows);

struct iommud_window_options {
        size_t size;                    /* sizeof(struct iommud_window_options) */
        uint64_t length;                /* bytes, a power of two */
        uint32_t page_shift;            /* 0: by min_page_size */
        uint32_t levels;                /* of the table; 0: the service chooses */
        uint64_t min_page_size;         /* the smallest page size that is at least this; 0: the smallest */
        uint64_t quota;                 /* bytes that may be mapped in it; 0: no limit of its own */
};

/* window may be NULL: what was created. -E2BIG: no window can have that length, neighbouring powers of two are in the details;
 * -ENOSPC: no more windows can be made; -EINVAL: page size or levels; -ENOTSUP: the IOMMU has no others than the default one. */
IOMMUD_API int iommud_window_create(struct iommud_domain *domain, const struct iommud_window_options *options,
                                    struct iommud_window *window);
/* -EBUSY while mappings are in it, unless forced: they are unmapped then. The default window can be removed too. -ENOENT: there is
 * no such window, or not any more. */
IOMMUD_API int iommud_window_remove(struct iommud_domain *domain, uint64_t window, int force);
/* Unmaps everything and goes back to the default window alone, as a guest's reboot does. */
IOMMUD_API int iommud_window_reset(struct iommud_domain *domain);

#ifdef __cplusplus
}
#endif

#endif
