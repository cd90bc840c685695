#!/bin/sh
# Makes ./configure and Makefile.in from configure.ac and Makefile.am. Needs autoconf, automake and pkg-config.
set -eu
cd "$(dirname "$0")"
mkdir -p build-aux
exec autoreconf --install --warnings=all
