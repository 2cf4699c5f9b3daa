/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "util/refusal.h"

/*
 * What the kernel says of a client's memory file, asked in an order in which a hostile fd can do no harm: nothing is
 * asked of a file system before the file is known to be on tmpfs or hugetlbfs.
 */
struct memory_file {
        uint64_t dev, ino;
        uint64_t size;
        uint64_t page_size;             /* of the host, or of hugetlb */
        bool hugetlb;
        bool writable;                  /* the fd is open for writing */
        int seals;                      /* F_SEAL_* */
};

/* Looks at an fd of unknown kind. MEMORY_O_PATH, MEMORY_NOT_REGULAR, MEMORY_BAD_FILESYSTEM, BAD_ACCESS (write-only),
 * MEMORY_EMPTY. */
int memory_file_inspect(int fd, struct memory_file *ret, struct refusal *r);

/* Below: of fds that were inspected. */

/* Do the seals keep (file, offset) meaning the same page? */
bool memory_file_is_stable(int seals);

/* Adds the seals that make it so. 0 or -errno (-EPERM: the fd or the file does not allow it). May hang. */
int memory_file_seal(int fd);

int memory_file_size(int fd, uint64_t *ret);            /* 0 or -errno; does not wait for the inode */

/* Bytes of the range that have no page yet, as far as can be told without waiting for the inode: exact on tmpfs where
 * cachestat(2) is there and allowed; otherwise the number of the whole file's missing bytes. 0 or -errno. */
int memory_file_missing(int fd, bool hugetlb, uint64_t page_size, uint64_t offset, uint64_t length, uint64_t *ret);
