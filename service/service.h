/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "config.h"

/* Builds the objects in order (ledger, broker, transport), serves until SIGTERM or SIGINT, tears down in reverse. SIGHUP
 * reads the configuration again. embedded: private to one person; sessions end with the service, as nobody comes after it.
 * Takes over the signals of the whole process: call it before any thread is started. Returns the exit code. */
int service_run(struct config *config, bool embedded);
