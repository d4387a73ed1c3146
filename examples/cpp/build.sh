#!/usr/bin/env bash
# Compile sample.cpp against ONNX Runtime's C++ headers and library: build.sh OUT
#
# They come from ONNXRUNTIME, a folder with include/ and lib/ such as a release of ONNX Runtime unpacks
# to. Without one it is made once, in a cache, out of the npm package that carries both for Unity.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=0.4.9 # ONNX Runtime 1.29.0
runtime=${ONNXRUNTIME:-${XDG_CACHE_HOME:-$HOME/.cache}/toolkit/onnxruntime-cpp-$version}
if [ ! -d "$runtime" ]; then
  new=$(mktemp -d "${TMPDIR:-/tmp}/onnxruntime.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  if ! (cd "$new" && npm pack --silent "com.github.asus4.onnxruntime@$version" >/dev/null); then
    echo "error: onnxruntime: expected npm to fetch it, got nothing; set ONNXRUNTIME to a release of it" >&2
    exit 3
  fi
  frameworks='package/Plugins/iOS~/onnxruntime.xcframework/*simulator*/Headers/*'
  tar xzf "$new"/*.tgz -C "$new" --wildcards "$frameworks" package/Plugins/Linux/x64 package/LICENSE
  mkdir -p "$new/made/lib" "$(dirname "$runtime")"
  mv "$new"/package/Plugins/iOS~/*/*simulator*/*/Headers "$new/made/include"
  mv "$new/package/Plugins/Linux/x64/libonnxruntime.so" "$new/made/lib/libonnxruntime.so.1"
  mv "$new/package/LICENSE" "$new/made/"
  mv -T "$new/made" "$runtime" 2>/dev/null || [ -d "$runtime" ] # another build may have been first
fi
library=$(ls "$runtime"/lib/libonnxruntime.so* | head -n 1)
g++ -std=c++17 -O1 -Wall -I "$runtime/include" "$here/sample.cpp" "$library" \
  -Wl,-rpath,"$runtime/lib" -o "$1"
