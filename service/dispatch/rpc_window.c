/* SPDX-License-Identifier: Apache-2.0 */
#include "core/domain.h"
#include "dispatch/rpc.h"

static void window_to_message(const struct window_view *v, Iommud__V1__Window *w) {
        iommud__v1__window__init(w);
        w->id = v->id;
        w->start = v->start;
        w->size = v->size;
        w->page_shift = v->page_shift;
        w->levels = v->levels;
        w->mappings = v->mappings;
        w->mapped_bytes = v->mapped_bytes;
        w->quota = v->quota;
        w->is_default = v->is_default != 0;
        w->table_bytes = v->table_bytes;
        w->state = rpc_borrow(object_state_name((enum ledger_object_state)v->state));
}

static bool add_windows(const struct windows_view *v, Iommud__V1__QueryWindowsResponse *answer, struct arena *arena) {
        size_t n = v->n < VIEW_WINDOWS_MAX ? v->n : VIEW_WINDOWS_MAX;
        Iommud__V1__Window *w = arena_alloc(arena, n * sizeof *w);

        answer->windows = arena_alloc(arena, n * sizeof *answer->windows);
        if (!w || !answer->windows)
                return false;
        for (size_t i = 0; i < n; i++) {
                window_to_message(&v->windows[i], &w[i]);
                answer->windows[i] = &w[i];
        }
        answer->n_windows = n;
        return true;
}

static bool add_free(const struct windows_view *v, Iommud__V1__QueryWindowsResponse *answer, struct arena *arena) {
        size_t n = v->n_free < IOVA_RANGES_MAX ? v->n_free : IOVA_RANGES_MAX;
        Iommud__V1__Range *ranges = arena_alloc(arena, n * sizeof *ranges);

        answer->free = arena_alloc(arena, n * sizeof *answer->free);
        if (!ranges || !answer->free)
                return false;
        for (size_t i = 0; i < n; i++) {
                iommud__v1__range__init(&ranges[i]);
                ranges[i].first = v->free[i].first;
                ranges[i].last = v->free[i].last;
                answer->free[i] = &ranges[i];
        }
        answer->n_free = n;
        return true;
}

/* Client.QueryWindows and Operator.ListWindows. */
void rpc_query_windows(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__QueryWindowsRequest *req = request;
        Iommud__V1__QueryWindowsResponse answer = IOMMUD__V1__QUERY_WINDOWS_RESPONSE__INIT;
        struct windows_view *v = arena_zalloc(arena, 1, sizeof *v);
        struct refusal r;

        if (v && window_query(rpc->broker, rpc->session, req->domain, v, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        if (!v || !add_windows(v, &answer, arena) || !add_free(v, &answer, arena)) {
                rpc_answer_too_large(rpc);
                return;
        }
        answer.can_create = v->can_create;
        answer.page_sizes = v->page_sizes;
        answer.largest = v->largest;
        answer.levels_max = v->levels_max;
        rpc_answer(rpc, &answer, arena);
}

void rpc_create_window(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__CreateWindowRequest *req = request;
        struct create_window_request core = {
                .domain = req->domain, .page_shift = req->page_shift, .min_page_size = req->min_page_size,
                .size = req->size, .levels = req->levels, .quota = req->quota, .dry_run = req->dry_run,
        };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        window_create_request(rpc->session, &core, &rpc->reply);
}

const void *rpc_create_window_answer(const struct answer *a, struct rpc_response *out) {
        struct rpc_created_window *c = &out->create_window;

        iommud__v1__create_window_response__init(&c->response);
        window_to_message(&a->window, &c->window);
        c->response.window = &c->window;
        return &c->response;
}

void rpc_remove_window(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__RemoveWindowRequest *req = request;
        struct remove_window_request core = { .domain = req->domain, .window = req->window, .force = req->force };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        window_remove_request(rpc->session, &core, &rpc->reply);
}

const void *rpc_remove_window_answer(const struct answer *a, struct rpc_response *out) {
        iommud__v1__remove_window_response__init(&out->remove_window);
        out->remove_window.unmapped_bytes = a->unmapped_bytes;
        out->remove_window.mappings = a->unmapped_mappings;
        return &out->remove_window;
}

void rpc_reset_windows(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__ResetWindowsRequest *req = request;
        struct reset_windows_request core = { .domain = req->domain };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        windows_reset_request(rpc->session, &core, &rpc->reply);
}

const void *rpc_reset_windows_answer(const struct answer *a, struct rpc_response *out) {
        iommud__v1__reset_windows_response__init(&out->reset_windows);
        out->reset_windows.unmapped_bytes = a->unmapped_bytes;
        out->reset_windows.mappings = a->unmapped_mappings;
        return &out->reset_windows;
}
