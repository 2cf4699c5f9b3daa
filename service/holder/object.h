/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "holder/protocol.h"

/*
 * Memory objects: what may be done with a client's memory fd, and the mmap through which it is done (DESIGN, 6).
 * The memory itself is never read or written here.
 *
 * Threads: objects_register(), objects_unregister() and objects_dump() belong to the memory worker, since an inode that
 * its client stalls can make them hang for ever; the rest is for any thread and asks only what takes no lock of the
 * inode. The lock inside is innermost, and not held across a system call on a client's file.
 */
struct objects;
struct object;

/* max: objects at one time. NULL when memory is out. */
struct objects *objects_new(uint32_t max);
struct objects *objects_free(struct objects *o);        /* nothing may be mapped any more. NULL is fine; returns NULL */

/* Checks the fd, maps its memory, populates and seals it as asked. Takes the fd in every case and sets it to -1.
 * ret->size is what was registered: bytes beyond the announced size cannot be mapped even if the file has them.
 *
 * Refuses by the fd's kind and rights MEMORY_O_PATH, MEMORY_NOT_REGULAR, MEMORY_BAD_FILESYSTEM, MEMORY_READ_ONLY,
 * BAD_ACCESS, by its seals MEMORY_WRITE_SEALED, MEMORY_UNSEALED, by its size MEMORY_EMPTY, MEMORY_TRUNCATED, by its
 * population MEMORY_HOLES (limit: bytes registered, used: present, asked: missing), and LIMIT_EXCEEDED, IN_USE (the
 * id), ZERO_LENGTH. */
int objects_register(struct objects *o, const struct link_register *request, int *fd, struct link_memory_info *ret,
                     struct refusal *r);

/* IN_USE while a mapping uses it, UNKNOWN_MEMORY. */
int objects_unregister(struct objects *o, uint64_t memory, struct refusal *r);

/* Calls for each object in order of ids. */
void objects_dump(struct objects *o, void (*each)(void *userdata, const struct link_dump_memory *m), void *userdata);

/* Takes a use, which keeps it registered; NULL if there is none of that id. */
struct object *object_get(struct objects *o, uint64_t memory);
void object_put(struct objects *o, struct object *object);

/* May a device get this access to this range now. BAD_ACCESS, BEYOND_OBJECT, MEMORY_READ_ONLY, and when the object is
 * not sealed also MEMORY_TRUNCATED and MEMORY_HOLES, as it is at this moment. */
int object_check(const struct object *object, uint64_t offset, uint64_t length, uint32_t access, struct refusal *r);

bool objects_any_unsealed(struct objects *o);

uint64_t object_id(const struct object *object);
int object_fd(const struct object *object);                             /* borrowed */
void *object_vaddr(const struct object *object, uint64_t offset);       /* of a range that object_check() allowed */
uint64_t object_page_size(const struct object *object);                 /* of the pages behind it */
void *object_mmap(const struct object *object, uint64_t *ret_length);   /* all of the file, as it is mapped here */
