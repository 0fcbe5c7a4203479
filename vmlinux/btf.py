#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cuts the BTF out of a kernel image: btf.py IMAGE OUTPUT

IMAGE is what a distribution installs as /boot/vmlinuz of an arm64 kernel: the plain Image, the
same through gzip, or an EFI zboot image around either. BTF is found by its header
(Documentation/bpf/btf.rst, "BTF Type and String Encoding") and taken when its sections fit.
"""
import gzip
import struct
import sys

BTF = b"\x9f\xeb\x01\x00\x18\x00\x00\x00"  # magic 0xeB9F, version 1, no flags, header of 24 bytes


def unpack(image):
    if image[4:8] == b"zimg":  # drivers/firmware/efi/libstub/zboot-header.S
        offset, size = struct.unpack_from("<II", image, 8)
        image = image[offset:offset + size]
    return gzip.decompress(image) if image[:2] == b"\x1f\x8b" else image


def find(image):
    at = image.find(BTF)
    best = b""
    while at >= 0:
        types, types_len, strings, strings_len = struct.unpack_from("<IIII", image, at + 8)
        end = at + 24 + strings + strings_len
        if types == 0 and types_len == strings and types_len % 4 == 0 and end <= len(image) \
                and strings_len and image[end - 1] == 0 and end - at > len(best):
            best = image[at:end]
        at = image.find(BTF, at + 4)
    return best


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: btf.py IMAGE OUTPUT")
    with open(sys.argv[1], "rb") as f:
        btf = find(unpack(f.read()))
    if not btf:
        sys.exit(f"btf.py: {sys.argv[1]}: no BTF in it: an arm64 vmlinuz with "
                 "CONFIG_DEBUG_INFO_BTF, plain or through gzip, is expected")
    with open(sys.argv[2], "wb") as f:
        f.write(btf)


if __name__ == "__main__":
    main()
