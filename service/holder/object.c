/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/object.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <bsd/sys/tree.h>

#include "holder/memory_file.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/iova.h"

/* Linux 5.14; a C library may be older than its kernel. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

/* A file, mapped whole, once for all objects that are made of it: F_SEAL_FUTURE_WRITE forbids a second writable
 * mapping, and pages pinned through one mapping are then counted once by the kernel too. The open fd keeps (dev, ino)
 * from being reused. Only the memory worker touches the list and the counts. */
struct backing {
        struct backing *next;
        unsigned refs;
        struct memory_file file;        /* as it was when mapped; seals are not kept up to date */
        int fd;
        void *vaddr;
        uint64_t length;                /* mapped bytes, whole pages */
        bool writable;                  /* vaddr is */
};

struct object {
        RB_ENTRY(object) link;
        uint64_t id;
        struct backing *backing;
        uint64_t size;                  /* bytes registered; what may be mapped for devices */
        bool writable;
        bool sealed;
        uint64_t uses;                  /* objects->lock */
};

RB_HEAD(object_tree, object);

struct objects {
        pthread_mutex_t lock;           /* tree, counts and uses; innermost */
        struct object_tree tree;
        uint32_t n, n_unsealed, max;
        struct backing *backings;
};

static int object_compare(const struct object *a, const struct object *b) {
        return a->id < b->id ? -1 : a->id > b->id;
}

RB_GENERATE_INTERNAL(object_tree, object, link, object_compare, __attribute__((unused)) static)

/* --- backings -----------------------------------------------------------------------------------------------------*/

static struct backing *backing_find(struct objects *o, const struct memory_file *f, uint64_t size, bool writable) {
        for (struct backing *b = o->backings; b; b = b->next)
                if (b->file.dev == f->dev && b->file.ino == f->ino && b->length >= size && (b->writable || !writable))
                        return b;
        return NULL;
}

static void backing_unref(struct objects *o, struct backing *b) {
        if (!b || --b->refs > 0)
                return;
        for (struct backing **p = &o->backings; *p; p = &(*p)->next)
                if (*p == b) {
                        *p = b->next;
                        break;
                }
        (void)munmap(b->vaddr, b->length);
        fd_close(b->fd);
        free(b);
}

static int refuse_mmap(const struct memory_file *f, int errnum, struct refusal *r) {
        if (errnum == EPERM && (f->seals & F_SEAL_WRITE))
                /* before Linux 6.7 a write-sealed file could not even be mapped shared for reading through a fd that
                 * is open for writing */
                refuse(r, REFUSAL_MEMORY_WRITE_SEALED,
                       "the memory is sealed against writing and this kernel maps it only through a read-only fd");
        else
                refuse(r, REFUSAL_BACKEND_REFUSED, "the memory cannot be mapped into the holder: %s",
                       strerrordesc_np(errnum));
        r->errnum = errnum;
        return -1;
}

/* MAP_NORESERVE: on hugetlb a reservation is the owner's business; here it would take pages from the pool. */
static int backing_new(struct objects *o, int *fd, const struct memory_file *f, bool writable, struct backing **ret,
                       struct refusal *r) {
        uint64_t length = (f->size + f->page_size - 1) / f->page_size * f->page_size;
        struct backing *b;
        void *vaddr;

        vaddr = mmap(NULL, length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_NORESERVE, *fd, 0);
        if (vaddr == MAP_FAILED)
                return refuse_mmap(f, errno, r);
        (void)madvise(vaddr, length, MADV_DONTDUMP);
        (void)madvise(vaddr, length, MADV_DONTFORK);
        b = malloc(sizeof *b);
        if (!b) {
                (void)munmap(vaddr, length);
                return refuse(r, REFUSAL_INTERNAL, "no memory for a memory object");
        }
        *b = (struct backing){ .next = o->backings, .refs = 1, .file = *f, .fd = fd_steal(fd), .vaddr = vaddr,
                               .length = length, .writable = writable };
        o->backings = b;
        *ret = b;
        return 0;
}

/* --- what the fd allows -------------------------------------------------------------------------------------------*/

static int check_size(uint64_t announced, uint64_t size, struct refusal *r) {
        if (size >= announced)
                return 0;
        refuse(r, REFUSAL_MEMORY_TRUNCATED, "the memory file has %" PRIu64 " bytes, not the %" PRIu64 " announced",
               size, announced);
        r->limit = r->used = size;
        r->asked = announced;
        return -1;
}

/* The kernel checks neither the fd's mode nor the seals when it pins for a device: this is the only check there is. */
static int check_rights(struct objects *o, const struct link_register *q, const struct memory_file *f,
                        struct refusal *r) {
        if (q->flags & LINK_REGISTER_READ_ONLY)
                return 0;
        if (!f->writable)
                return refuse(r, REFUSAL_MEMORY_READ_ONLY,
                              "the fd is open for reading only: open it O_RDWR, or register the memory read-only");
        if (f->seals & F_SEAL_WRITE)
                return refuse(r, REFUSAL_MEMORY_WRITE_SEALED,
                              "the memory is sealed against writing (F_SEAL_WRITE): register it read-only");
        if ((f->seals & F_SEAL_FUTURE_WRITE) && !backing_find(o, f, q->size, true))
                return refuse(r, REFUSAL_MEMORY_WRITE_SEALED,
                              "the memory was sealed against new writable mappings (F_SEAL_FUTURE_WRITE) before this "
                              "session mapped it, or after its last unregistration: register it before it is sealed "
                              "and keep it registered, or use fresh memory");
        return 0;
}

static int check_file(struct objects *o, const struct link_register *q, int fd, struct memory_file *ret,
                      struct refusal *r) {
        if (q->size == 0)
                return refuse(r, REFUSAL_ZERO_LENGTH, "a memory object of 0 bytes cannot be registered");
        if (memory_file_inspect(fd, ret, r) < 0 || check_size(q->size, ret->size, r) < 0)
                return -1;
        return check_rights(o, q, ret, r);
}

/* --- population ---------------------------------------------------------------------------------------------------*/

static int refuse_holes(uint64_t missing, uint64_t offset, uint64_t length, struct refusal *r) {
        refuse(r, REFUSAL_MEMORY_HOLES,
               "%" PRIu64 " bytes of %" PRIu64 " at offset %" PRIu64 " have no memory yet: touch every page before "
               "registering, ask for it to be populated, or let the SDK allocate it", missing, length, offset);
        r->limit = length;
        r->asked = missing;
        r->used = missing < length ? length - missing : 0;
        return -1;
}

static int check_populated(const struct backing *b, uint64_t offset, uint64_t length, struct refusal *r) {
        uint64_t missing;
        int k;

        k = memory_file_missing(b->fd, b->file.hugetlb, b->file.page_size, offset, length, &missing);
        if (k < 0) {
                refuse(r, REFUSAL_INTERNAL, "the population of the memory cannot be told: %s", strerrordesc_np(-k));
                r->errnum = -k;
                return -1;
        }
        return missing == 0 ? 0 : refuse_holes(missing, offset, length, r);
}

/* Faults in what is missing, here and so in the tenant's cgroup. Without content being touched: a read-only mapping of
 * shared memory gets its pages from read faults. */
static int populate(const struct backing *b, uint64_t size, struct refusal *r) {
        uint64_t length = (size + b->file.page_size - 1) / b->file.page_size * b->file.page_size;
        int k;

        if (check_populated(b, 0, size, r) == 0)
                return 0;
        do
                k = madvise(b->vaddr, length, b->writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
        while (k < 0 && errno == EINTR);
        if (k < 0) {
                int errnum = errno;

                refuse(r, REFUSAL_MEMORY_HOLES, "the memory has holes that cannot be filled: %s (%s)",
                       strerrordesc_np(errnum),
                       errnum == EINVAL ? "the kernel is older than 5.14: touch every page yourself"
                                        : "the file system, the huge page pool or the cgroup has no room for them");
                r->errnum = errnum;
                return -1;
        }
        /* where only the whole file's sum is known, what lies beyond the registered part may still be missing */
        return check_populated(b, 0, size, r);
}

/* Populates and seals, in this order: once sealed, memory that is then refused could not be registered again. What a
 * client punches in between is found by the second look. */
static int settle_file(const struct link_register *q, const struct backing *b, int fd, bool *ret_sealed,
                       struct refusal *r) {
        uint64_t size;
        int k;

        FAILPOINT(apply_memory_mapped);
        if (q->flags & LINK_REGISTER_POPULATE ? populate(b, q->size, r) < 0 : check_populated(b, 0, q->size, r) < 0)
                return -1;
        if (q->flags & LINK_REGISTER_SEAL) {
                k = memory_file_seal(fd);
                if (k < 0 && !(q->flags & LINK_REGISTER_ALLOW_UNSEALED)) {
                        refuse(r, REFUSAL_MEMORY_UNSEALED,
                               "the memory cannot be sealed (%s) and the tenant's policy asks for it: create it with "
                               "MFD_ALLOW_SEALING and pass a fd that is open for writing", strerrordesc_np(-k));
                        r->errnum = -k;
                        return -1;
                }
        }
        FAILPOINT(apply_memory_sealed);
        *ret_sealed = memory_file_is_stable(fcntl(fd, F_GET_SEALS));
        k = memory_file_size(fd, &size);
        if (k < 0)
                return refuse(r, REFUSAL_INTERNAL, "the size of the memory cannot be told: %s", strerrordesc_np(-k));
        if (check_size(q->size, size, r) < 0)
                return -1;
        return check_populated(b, 0, q->size, r);
}

/* --- objects ------------------------------------------------------------------------------------------------------*/

struct objects *objects_new(uint32_t max) {
        struct objects *o = calloc(1, sizeof *o);

        if (!o)
                return NULL;
        o->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
        o->max = max;
        RB_INIT(&o->tree);
        return o;
}

struct objects *objects_free(struct objects *o) {
        struct object *object;

        if (!o)
                return NULL;
        while ((object = RB_MIN(object_tree, &o->tree))) {
                RB_REMOVE(object_tree, &o->tree, object);
                backing_unref(o, object->backing);
                free(object);
        }
        pthread_mutex_destroy(&o->lock);
        free(o);
        return NULL;
}

static struct object *find_locked(struct objects *o, uint64_t memory) {
        struct object key = { .id = memory };

        return RB_FIND(object_tree, &o->tree, &key);
}

/* Only the memory worker adds, so what is free here stays free until the insertion. */
static int check_room(struct objects *o, uint64_t memory, struct refusal *r) {
        LOCK_SCOPE(&o->lock);

        if (find_locked(o, memory))
                return refuse(r, REFUSAL_IN_USE, "memory object %" PRIu64 " exists already", memory);
        if (o->n < o->max)
                return 0;
        refuse(r, REFUSAL_LIMIT_EXCEEDED, "the session has %u memory objects and may have no more than %u", o->n,
               o->max);
        r->resource = RESOURCE_MEMORY_OBJECTS;
        r->limit = o->max;
        r->used = o->n;
        r->asked = 1;
        return -1;
}

static void object_info(const struct object *object, struct link_memory_info *ret) {
        const struct memory_file *f = &object->backing->file;

        *ret = (struct link_memory_info){ .size = object->size, .page_size = f->page_size, .dev = f->dev, .ino = f->ino,
                                          .sealed = object->sealed, .writable = object->writable };
}

int objects_register(struct objects *o, const struct link_register *q, int *fd, struct link_memory_info *ret,
                     struct refusal *r) {
        _cleanup_close_ int owned = fd_steal(fd);
        _cleanup_free_ struct object *object = NULL;
        bool writable = !(q->flags & LINK_REGISTER_READ_ONLY), sealed = false;
        struct memory_file file;
        struct backing *b;

        if (check_room(o, q->memory, r) < 0 || check_file(o, q, owned, &file, r) < 0)
                return -1;
        object = malloc(sizeof *object);
        if (!object)
                return refuse(r, REFUSAL_INTERNAL, "no memory for a memory object");
        b = backing_find(o, &file, q->size, writable);
        if (b)
                b->refs++;
        else if (backing_new(o, &owned, &file, writable, &b, r) < 0)
                return -1;
        /* the client's own fd where there still is one: it is this one's right to seal that counts */
        if (settle_file(q, b, owned >= 0 ? owned : b->fd, &sealed, r) < 0) {
                backing_unref(o, b);
                return -1;
        }
        *object = (struct object){ .id = q->memory, .backing = b, .size = q->size, .writable = writable,
                                   .sealed = sealed };
        object_info(object, ret);

        LOCK_SCOPE(&o->lock);
        RB_INSERT(object_tree, &o->tree, object);
        o->n++;
        o->n_unsealed += !sealed;
        object = NULL;
        return 0;
}

/* Takes it out of the tree unless it is used. */
static struct object *remove_unused(struct objects *o, uint64_t memory, struct refusal *r) {
        LOCK_SCOPE(&o->lock);
        struct object *object = find_locked(o, memory);

        if (!object) {
                refuse(r, REFUSAL_UNKNOWN_MEMORY, "there is no memory object %" PRIu64, memory);
                return NULL;
        }
        if (object->uses > 0) {
                refuse(r, REFUSAL_IN_USE, "memory object %" PRIu64 " is used by %" PRIu64 " mappings: unmap them first",
                       memory, object->uses);
                r->used = object->uses;
                return NULL;
        }
        RB_REMOVE(object_tree, &o->tree, object);
        o->n--;
        o->n_unsealed -= !object->sealed;
        return object;
}

int objects_unregister(struct objects *o, uint64_t memory, struct refusal *r) {
        struct object *object = remove_unused(o, memory, r);

        if (!object)
                return -1;
        backing_unref(o, object->backing);
        free(object);
        return 0;
}

void objects_dump(struct objects *o, void (*each)(void *userdata, const struct link_dump_memory *m), void *userdata) {
        struct object *object;

        /* without the lock: only this thread changes the tree, and each() may wait for the broker */
        RB_FOREACH(object, object_tree, &o->tree) {
                struct link_dump_memory m = { .memory = object->id };

                object_info(object, &m.info);
                each(userdata, &m);
        }
}

/* --- for domains --------------------------------------------------------------------------------------------------*/

struct object *object_get(struct objects *o, uint64_t memory) {
        LOCK_SCOPE(&o->lock);
        struct object *object = find_locked(o, memory);

        if (object)
                object->uses++;
        return object;
}

void object_put(struct objects *o, struct object *object) {
        LOCK_SCOPE(&o->lock);

        object->uses--;
}

static int check_access(const struct object *object, uint32_t access, struct refusal *r) {
        if (access == 0 || (access & ~(BACKEND_ACCESS_READ | BACKEND_ACCESS_WRITE)))
                return refuse(r, REFUSAL_BAD_ACCESS, "access 0x%" PRIx32 " is not read, write or both", access);
        if ((access & BACKEND_ACCESS_WRITE) && !object->writable)
                return refuse(r, REFUSAL_MEMORY_READ_ONLY,
                              "memory object %" PRIu64 " was registered read-only: devices may only read it",
                              object->id);
        return 0;
}

static int check_inside(const struct object *object, uint64_t offset, uint64_t length, struct refusal *r) {
        uint64_t end;

        if (!ADD_OVERFLOW(offset, length, &end) && end <= object->size)
                return 0;
        refuse(r, REFUSAL_BEYOND_OBJECT,
               "offset %" PRIu64 " with length %" PRIu64 " goes beyond the %" PRIu64 " bytes of memory object %" PRIu64,
               offset, length, object->size, object->id);
        r->limit = object->size;
        r->used = offset;
        r->asked = length;
        return -1;
}

int object_check(const struct object *object, uint64_t offset, uint64_t length, uint32_t access, struct refusal *r) {
        uint64_t size;
        int k;

        if (length == 0)
                return refuse(r, REFUSAL_ZERO_LENGTH, "a mapping of 0 bytes");
        if (check_access(object, access, r) < 0 || check_inside(object, offset, length, r) < 0)
                return -1;
        if (object->sealed)
                return 0;
        k = memory_file_size(object->backing->fd, &size);
        if (k < 0)
                return refuse(r, REFUSAL_INTERNAL, "the size of the memory cannot be told: %s", strerrordesc_np(-k));
        if (check_size(offset + length, size, r) < 0)
                return -1;
        return check_populated(object->backing, offset, length, r);
}

bool objects_any_unsealed(struct objects *o) {
        LOCK_SCOPE(&o->lock);

        return o->n_unsealed > 0;
}

uint64_t object_id(const struct object *object) {
        return object->id;
}

int object_fd(const struct object *object) {
        return object->backing->fd;
}

void *object_vaddr(const struct object *object, uint64_t offset) {
        return (char *)object->backing->vaddr + offset;
}

uint64_t object_page_size(const struct object *object) {
        return object->backing->file.page_size;
}

void *object_mmap(const struct object *object, uint64_t *ret_length) {
        *ret_length = object->backing->length;
        return object->backing->vaddr;
}
