/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <protobuf-c/protobuf-c.h>

/*
 * Messages as JSON on stdout, by their descriptors: names are those of proto/iommud.proto, which are contract. Numbers
 * are JSON numbers, also of 64 bits; addresses and masks (iova, first, last, start, page_sizes) are strings in hex, "0x1000"; a
 * limit that is unlimited is null; enums are their names without the prefix, in lower case; access is "r", "w" or "rw".
 * What pages a listing is left out.
 */
void json_print(const ProtobufCMessage *m);

/* {"NAME": [ELEMENT, ...]}: begin, each element as it comes, end. */
void json_list_begin(const char *name);
void json_list_add(const ProtobufCMessage *m);
void json_list_end(void);

const char *json_access_name(uint32_t access);
