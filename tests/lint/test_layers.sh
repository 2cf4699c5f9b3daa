#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_layers.sh [BUILD]: does every #include keep the rules of layers.rules? Each violation is one line with its place and
# the rule; a check is one layer.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/report.sh
. "$here/report.sh"
cd "$here/../.."

temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

# includes_of TREE: FILE LINE QUOTE HEADER for every include, headers in quotes resolved as the compiler would
includes_of() {
        local file line header dir path

        (cd "$1" && grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]' --include='*.[ch]' service db sdk) |
                sed -E 's/^([^:]+):([0-9]+):[^"<]*(["<])([^">]*)[">].*/\1 \2 \3 \4/' |
                while read -r file line quote header; do
                        if [ "$quote" = '"' ]; then
                                for dir in "$(dirname "$file")" service proto db sdk/include; do
                                        path=$dir/$header
                                        [ ! -e "$1/$path" ] || break
                                        path=gen/$header        # nobody has it: made by the build
                                done
                                header=$path
                        fi
                        echo "$file $line $quote $header"
                done
}

# violations TREE: LAYER FILE:LINE: what is wrong
violations() {
        includes_of "$1" | awk -v rules="$here/layers.rules" '
        function begins(text, prefix) {         # "service/." is what lies directly in the folder
                if (prefix ~ /\/\.$/) {
                        prefix = substr(prefix, 1, length(prefix) - 1)
                        return index(text, prefix) == 1 && index(substr(text, length(prefix) + 1), "/") == 0
                }
                return index(text, prefix) == 1
        }
        function any(text, prefixes,    list, n, i) {
                n = split(prefixes, list, " ")
                for (i = 1; i <= n; i++)
                        if (begins(text, list[i]))
                                return 1
                return 0
        }
        function wrong(rule) {
                print layer, $1 ":" $2 ": " ($3 == "<" ? "<" $4 ">" : $4) " " rule
        }
        BEGIN {
                while ((getline text < rules) > 0) {
                        if (text ~ /^#/ || text == "")
                                continue
                        split(text, word, " ")
                        after = text
                        sub(/^[^:]*: */, "", after)
                        sub(/:$/, "", word[3])
                        sub(/:$/, "", word[2])
                        if (word[1] == "layer") {
                                names[++n_layers] = word[2]; below[n_layers] = word[3]
                                may[n_layers] = text ~ /:$/ ? "" : after
                        } else if (word[1] == "system") {
                                header[++n_system] = word[2]; who[n_system] = after
                        } else if (word[1] == "only") {
                                place[++n_only] = word[2]; plain[n_only] = after
                        } else if (word[1] == "except")
                                excepted[word[2] " " word[3]] = 1
                        else {
                                print "rules " rules ": not understood: " text
                                exit
                        }
                }
        }
        {
                layer = ""
                for (l = 1; l <= n_layers && layer == ""; l++)
                        if (begins($1, below[l])) {
                                layer = names[l]
                                mine = may[l]
                        }
                if (layer == "") {
                        layer = "nobody"
                        wrong("is included by a file of no layer")
                        next
                }
                if (($1 " " $4) in excepted)
                        next
                if ($3 == "\"") {
                        if (!any($4, mine))
                                wrong("is not for layer " layer ", which may include: " mine)
                        next
                }
                for (s = 1; s <= n_system; s++)
                        if (begins($4, header[s]) && !any($1, who[s]))
                                wrong("is only for: " who[s])
                for (o = 1; o <= n_only; o++)
                        if (begins($1, place[o]) && !any($4, plain[o]))
                                wrong("is not one of: " plain[o])
        }'
}

# The gate itself: a tree with one violation of each kind, and only those, must be found out.
plant() {       # plant FILE HEADER...
        local file=$temp/planted/$1

        mkdir -p "$(dirname "$file")"
        shift
        printf '#include %s\n' "$@" >> "$file"
}
mkdir -p "$temp/planted"
plant service/core/a.c '"core/a.h"' '"util/u.h"' '"transport/t.h"' '<grpc/grpc.h>' '"holder/protocol.h"'
plant service/core/a.h '<stdio.h>' '"a.c"'
plant service/transport/t.h '<grpc/grpc.h>' '<sqlite3.h>'
plant service/util/u.h '"ledger.h"'
plant service/holder/protocol.h '<linux/vfio.h>'
plant db/ledger.h '<sqlite3.h>'
plant service/service.c '"transport/t.h"' '"iommud.pb-c.h"'
plant sdk/include/iommud/iommud.h '<stdint.h>' '<stdio.h>'
plant sdk/wire.c '"iommud.pb-c.h"'
plant sdk/map.c '"iommud.pb-c.h"' '"core/a.h"'
found=$(violations "$temp/planted" | cut -d' ' -f2,3 | sort)
expected=$(sort <<'END'
service/core/a.c:3: service/transport/t.h
service/core/a.c:4: <grpc/grpc.h>
service/transport/t.h:2: <sqlite3.h>
service/util/u.h:1: db/ledger.h
service/holder/protocol.h:1: <linux/vfio.h>
service/service.c:2: gen/iommud.pb-c.h
sdk/include/iommud/iommud.h:2: <stdio.h>
sdk/map.c:1: gen/iommud.pb-c.h
sdk/map.c:2: service/core/a.h
END
)
diff <(echo "$expected") <(echo "$found") | check planted_violations_are_found || true

violations . > "$temp/found"
for layer in rules nobody $(sed -n 's/^layer \([^ ]*\) .*/\1/p' "$here/layers.rules"); do
        sed -n "s/^$layer //p" "$temp/found" | check "includes_of_${layer//-/_}_keep_the_rules"
done

# An exception that nobody needs any more goes.
while read -r _ file header; do
        grep -qF "$header" "$file" || echo "layers.rules: except $file $header: not needed"
done < <(grep '^except ' "$here/layers.rules") | check every_exception_is_needed
finish
