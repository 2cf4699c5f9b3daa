/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

/*
 * Public structs begin with their size, so that a program and a library of different ages understand each other: a
 * field that one of them does not know counts as 0.
 */

/* Caller's options -> ours (known bytes, all 0 when given is NULL). 0; -EINVAL when the size cannot be right; -E2BIG
 * when a field that this library does not know asks for something. */
int sdk_options_in(void *ret, size_t known, const void *given);

/* Can sdk_struct_out() fill the caller's: 0, or -EINVAL. For what is done before its result is known. */
int sdk_struct_check(const void *given);

/* Ours -> the caller's, as much as it has room for; its size field is kept and what we do not know becomes 0.
 * 0, or -EINVAL when the size cannot be right. */
int sdk_struct_out(void *given, const void *ours, size_t known);
