/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model.h"

/* Operations at random, each a sensible one in the state that those before it lead to, as the model sees it; a part of them wrong
 * on purpose. Returns how many. */
size_t generate(const struct world *w, struct op *ops, size_t n);

/* Should it be played in this state? Not what makes no sense, and not what would only make the SDK wait. */
bool worth_playing(const struct model *m, const struct op *op);

/* What a run begins with. */
void begin_model(struct model *m, const struct world *w);
