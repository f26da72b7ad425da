#!/bin/sh
# cargo: build with vendored sources (build scripts, a procedural macro, incremental compilation,
# linking), run, change, build again, clean. In /srv/cargo.
set -eux
cp -r /add/inputs/crate .
cd crate
cargo build --offline --locked
printf 'WARN disk is full\nnothing\nERROR kühl\n' >log
[ "$(target/debug/log-to-json <log | wc -l)" -eq 2 ]
target/debug/log-to-json <log | grep -Fx '{"level":"ERROR","text":"kühl"}'
sed -i 's/"level"$/"severity"/' src/main.rs
cargo build --offline --locked
target/debug/log-to-json <log | grep -F '"severity":"ERROR"'
cargo clean --package regex
[ -e target/debug ]
