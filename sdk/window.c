/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "call.h"
#include "domain.h"
#include "error.h"
#include "sized.h"
#include "util/cleanup.h"

static int check_windows(const struct iommud_domain *domain) {
        if (!domain)
                return sdk_fail(-EINVAL, 0, "the domain must not be NULL");
        return client_needs(domain->object.client, IOMMUD__V1__CAPABILITY__CAPABILITY_WINDOWS, "windows");
}

static struct iommud_window window_of(const Iommud__V1__Window *w) {
        return (struct iommud_window){
                .id = w->id, .start = w->start, .length = w->size, .mappings = w->mappings,
                .mapped_bytes = w->mapped_bytes, .quota = w->quota, .table_bytes = w->table_bytes,
                .page_shift = w->page_shift, .levels = w->levels, .is_default = w->is_default != 0,
        };
}

static int copy_windows(const Iommud__V1__QueryWindowsResponse *found, struct iommud_window **ret) {
        struct iommud_window *windows = calloc(found->n_windows + 1, sizeof *windows);

        if (!windows)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        for (size_t i = 0; i < found->n_windows; i++)
                windows[i] = window_of(found->windows[i]);
        *ret = windows;
        return 0;
}

int iommud_window_query(struct iommud_domain *domain, struct iommud_window **ret, size_t *ret_n,
                        struct iommud_window_limits *ret_limits) {
        Iommud__V1__QueryWindowsRequest request = IOMMUD__V1__QUERY_WINDOWS_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        const Iommud__V1__QueryWindowsResponse *found;
        struct iommud_window_limits limits;
        int r;

        sdk_enter(__func__);
        if (!ret || !ret_n)
                return sdk_fail(-EINVAL, 0, "the places for the list must not be NULL");
        if (ret_limits && sdk_struct_check(ret_limits) < 0)
                return sdk_fail(-EINVAL, 0, "the size of struct iommud_window_limits is not set");
        r = check_windows(domain);
        if (r < 0)
                return r;
        request.domain = domain->object.id;
        r = sdk_call(domain->object.client, METHOD_QueryWindows, &request.base, &answer);
        if (r < 0)
                return r;
        found = (Iommud__V1__QueryWindowsResponse *)answer;
        r = copy_windows(found, ret);
        if (r < 0)
                return r;
        *ret_n = found->n_windows;
        limits = (struct iommud_window_limits){ .page_sizes = found->page_sizes, .largest = found->largest,
                                                .can_create = found->can_create, .levels_max = found->levels_max };
        if (ret_limits)
                (void)sdk_struct_out(ret_limits, &limits, sizeof limits);
        return 0;
}

void iommud_window_list_free(struct iommud_window *windows) {
        free(windows);
}

int iommud_window_create(struct iommud_domain *domain, const struct iommud_window_options *given,
                         struct iommud_window *ret) {
        Iommud__V1__CreateWindowRequest request = IOMMUD__V1__CREATE_WINDOW_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        const Iommud__V1__Window *made;
        struct iommud_window_options o;
        struct request_key key;
        int r;

        sdk_enter(__func__);
        if (!given || sdk_options_in(&o, sizeof o, given) < 0)
                return sdk_fail(-EINVAL, 0, "there are no options, their size is wrong, or they hold what this library "
                                "does not know");
        r = check_windows(domain);
        if (r == 0)
                r = request_key_make(&key);
        if (r < 0)
                return r;
        request.request_key = request_key_data(&key);
        request.domain = domain->object.id;
        request.page_shift = o.page_shift;
        request.min_page_size = o.min_page_size;
        request.size = o.length;
        request.levels = o.levels;
        request.quota = o.quota;
        r = sdk_call(domain->object.client, METHOD_CreateWindow, &request.base, &answer);
        if (r < 0)
                return r;
        made = ((Iommud__V1__CreateWindowResponse *)answer)->window;
        if (!made)
                return sdk_fail(-EIO, IOMMUD_REASON_INTERNAL, "the service's answer holds no window");
        if (ret)
                *ret = window_of(made);
        return 0;
}

int iommud_window_remove(struct iommud_domain *domain, uint64_t window, int force) {
        Iommud__V1__RemoveWindowRequest request = IOMMUD__V1__REMOVE_WINDOW_REQUEST__INIT;
        struct request_key key;
        int r;

        sdk_enter(__func__);
        r = check_windows(domain);
        if (r == 0)
                r = request_key_make(&key);
        if (r < 0)
                return r;
        request.request_key = request_key_data(&key);
        request.domain = domain->object.id;
        request.window = window;
        request.force = force != 0;
        return sdk_call(domain->object.client, METHOD_RemoveWindow, &request.base, NULL);
}

int iommud_window_reset(struct iommud_domain *domain) {
        Iommud__V1__ResetWindowsRequest request = IOMMUD__V1__RESET_WINDOWS_REQUEST__INIT;
        struct request_key key;
        int r;

        sdk_enter(__func__);
        r = check_windows(domain);
        if (r == 0)
                r = request_key_make(&key);
        if (r < 0)
                return r;
        request.request_key = request_key_data(&key);
        request.domain = domain->object.id;
        return sdk_call(domain->object.client, METHOD_ResetWindows, &request.base, NULL);
}
