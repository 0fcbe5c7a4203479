#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The two libraries of the static programs that are built from source, into DIR/include and DIR/lib:
#   deploy/static/libraries.sh DIR
# libbpf newer than Debian 12's, for it meets kernels newer than the machine it was built on; and
# libmicrohttpd without TLS, which kilter does not use and which would bring GnuTLS along.
# Versions are Debian 13's, whose archive keeps them; they are pinned by hash.
set -eu

dir=$(mkdir -p "$1" && cd "$1" && pwd)
archive=${KILTER_SOURCE_ARCHIVE:-http://deb.debian.org/debian}
# -w: their warnings are not ours to mend.
flags='-O2 -g -w -fPIE -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=3'

unpack() { # PATH SHA256
	name=$(basename "$1")
	/usr/lib/apt/apt-helper -o APT::Sandbox::User=root -o Acquire::Retries=3 download-file \
		"$archive/$1" "$dir/$name" "SHA256:$2" > /dev/null
	rm -rf "$dir/src/${name%%_*}"
	mkdir -p "$dir/src/${name%%_*}"
	tar -xzf "$dir/$name" --strip-components=1 -C "$dir/src/${name%%_*}"
}

unpack pool/main/libb/libbpf/libbpf_1.5.0.orig.tar.gz \
	53492aff6dd47e4da04ef5e672d753b9743848bdb38e9d90eafbe190b7983c44
make -s -j"$(nproc)" -C "$dir/src/libbpf/src" BUILD_STATIC_ONLY=1 OBJDIR="$dir/src/libbpf/obj" PREFIX="$dir" LIBDIR="$dir/lib" \
	CC="${CC:-gcc}" CFLAGS="$flags" install > /dev/null

unpack pool/main/libm/libmicrohttpd/libmicrohttpd_1.0.1.orig.tar.gz \
	a89e09fc9b4de34dde19f4fcb4faaa1ce10299b9908db1132bbfa1de47882b94
cd "$dir/src/libmicrohttpd"
CFLAGS=$flags CC=${CC:-gcc} ./configure --quiet --prefix="$dir" --libdir="$dir/lib" --disable-shared --enable-static \
	--disable-https --disable-doc --disable-examples --disable-tools --disable-curl --disable-bauth --disable-dauth \
	--disable-httpupgrade --disable-postprocessor > /dev/null
make -s -j"$(nproc)" -C src install > /dev/null
