/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "fault/failpoints.h"

/* This process's view of the shared file; NULL: it was started without one. */
struct failpoints *failpoint_file(void);
