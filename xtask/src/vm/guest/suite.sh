# Runs every test program and prints one line a test. Programs of Rust's test harness are asked for
# their own tests; any other program is one test, passed when its exit code is 0.
log=/run/agentguard-vm/test.log
passed=0
failed=0
skipped=0
# Test machines have BPF LSM: a test that would be skipped without it fails here.
export AGENTGUARD_EXPECT_LSM=1

seconds() {
    cut -d ' ' -f 1 /proc/uptime
}

for program in /guest-tests/*; do
    [ -f "$program" ] && [ -x "$program" ] || continue
    name=${program##*/}
    start=$(seconds)
    "$program" >"$log" 2>&1 </dev/null
    code=$?
    took=$(awk "BEGIN { printf \"%.1f s\", $(seconds) - $start }")
    if grep -q '^running [0-9]* tests\?$' "$log"; then
        sed -n "s/^test \(.*\) \.\.\. \(ok\|FAILED\|ignored\)/$name::\1 ... \2/p" "$log"
        ok=$(grep -c '^test .* \.\.\. ok$' "$log")
        bad=$(grep -c '^test .* \.\.\. FAILED$' "$log")
        ignored=$(grep -c '^test .* \.\.\. ignored' "$log")
        if [ "$code" -ne 0 ] && [ "$bad" -eq 0 ]; then
            echo "$name ... FAILED (exit code $code before its summary)"
            bad=1
        elif [ "$bad" -ne 0 ]; then
            # The lines up to here are printed above.
            sed -i '1,/^failures:$/d' "$log"
        fi
    elif [ "$code" -eq 0 ]; then
        echo "$name ... ok ($took)"
        ok=1 bad=0 ignored=0
    else
        echo "$name ... FAILED (exit code $code, $took)"
        ok=0 bad=1 ignored=0
    fi
    if [ "$bad" -ne 0 ]; then
        sed 's/^/    | /' "$log"
    fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + ignored))
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -ne 0 ]
