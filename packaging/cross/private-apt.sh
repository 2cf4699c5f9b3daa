# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced. Packages of another architecture, or of another release, through an apt of our own: its lists, its cache and its
# idea of what is installed (nothing) are in one folder, so the host's package database never hears of a foreign package.
#
#   private_apt_open DIR ARCH RELEASE    makes it in DIR and fetches the lists. RELEASE is a code name: the host's own, or
#                                        another one of Debian's on the same mirror
#   private_apt_get DIR PACKAGE...       the named packages into DIR/debs, and nothing that they need
#   private_apt_closure DIR PACKAGE...   the named packages and everything that they need, into DIR/debs
#   private_apt_query DIR WORD...        apt-cache there
#   private_apt_unpack DIR ROOT          everything of DIR/debs into ROOT, its absolute symbolic links made relative

# Mirror, proxy and keys stay the host's choice. Updates and security are left out: they are archives of their own, which a
# mirror may not have for every architecture, and nothing of this is ever installed.
private_apt_sources() { # RELEASE
        local codename uri

        codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
        # shellcheck disable=SC2016 # apt's variables
        uri=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
                sed -n "s/^$codename main //p" | head -n 1)
        if [ -z "$uri" ]; then
                echo "private-apt: none of the host's package sources is $codename main" >&2
                return 1
        fi
        echo "deb $uri $1 main"
}

private_apt_open() { # DIR ARCH RELEASE
        local dir=$1 arch=$2 release=$3 try

        rm -rf "$dir"
        mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/debs/partial" "$dir/preferences"
        dir=$(cd "$dir" && pwd -P)
        : > "$dir/status"
        private_apt_sources "$release" > "$dir/sources.list" || return
        cat > "$dir/apt.conf" << CONF
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "$dir/preferences";
Dir::Etc::trusted "/usr/share/keyrings/debian-archive-keyring.gpg";
Dir::State "$dir";
Dir::State::lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::Cache "$dir/cache";
APT::Architecture "$arch";
#clear APT::Architectures;
APT::Architectures { "$arch"; };
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Get::List-Cleanup "true";
Acquire::Languages "none";
Acquire::Retries "3";
Debug::NoLocking "true";
CONF
        for try in 1 2 3; do
                if apt-get -c "$dir/apt.conf" -o APT::Update::Error-Mode=any -qq update; then
                        return
                fi
                sleep $((try * 5))
        done
        echo "private-apt: the package lists of $release for $arch cannot be fetched" >&2
        return 1
}

private_apt_get() { # DIR PACKAGE...
        local dir

        dir=$(cd "$1" && pwd -P)
        shift
        (cd "$dir/debs" && apt-get -c "$dir/apt.conf" -qq download "$@")
}

private_apt_closure() { # DIR PACKAGE...
        local dir

        dir=$(cd "$1" && pwd -P)
        shift
        # apt downloads what an installation into an empty system would take; dpkg is never called.
        apt-get -c "$dir/apt.conf" -o "Dir::Cache::archives=$dir/debs" -qq -y --download-only install "$@" > /dev/null
}

private_apt_query() { # DIR WORD...
        local conf=$1/apt.conf

        shift
        apt-cache -c "$conf" "$@"
}

private_apt_unpack() { # DIR ROOT
        local dir=$1 root=$2 deb name link target up

        mkdir -p "$root/usr"
        # As on an installed system: /lib and its like are links into /usr.
        for name in bin sbin lib lib64; do
                mkdir -p "$root/usr/$name"
                ln -sfn "usr/$name" "$root/$name"
        done
        for deb in "$dir"/debs/*.deb; do
                dpkg-deb --fsys-tarfile "$deb" |
                        tar -x -C "$root" --keep-directory-symlink --no-same-owner --exclude='./usr/share/doc/*' \
                            --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' || return
        done
        # An absolute link would lead out of ROOT, to the host's file of the same name.
        find "$root" -type l -lname '/*' | while read -r link; do
                target=$(readlink "$link")
                up=$(dirname "/${link#"$root"/}" | sed 's|[^/][^/]*|..|g; s|^/||')
                ln -sfn "${up:-.}$target" "$link"
        done
}
