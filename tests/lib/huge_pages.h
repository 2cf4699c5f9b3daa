/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

/* The machine's pool of 2 MiB pages, which tests that run at the same time share. */
#define HUGE_PAGE (2ULL << 20)

/* Adds so many. False: none were added, since the machine has none to give or does not let us (it takes root). */
bool huge_pages_take(unsigned n);
void huge_pages_return(unsigned n);     /* what huge_pages_take() gave */
