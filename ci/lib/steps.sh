# shellcheck shell=bash
# Runs and counts steps, and reports the results at the end. To be sourced after ci/lib/common.sh.

passed=0 failed=0 report=()

# step NAME COMMAND...: runs a command as a step. A failure is counted and does not end the script.
step() {
    local name=$1 start=$SECONDS status
    shift
    say "$name"
    # In a subshell that sets -e again: "if" and "||" would disable it inside functions.
    set +e
    (set -e; "$@")
    status=$?
    set -e
    if [ $status = 0 ]; then
        passed=$((passed + 1))
        report+=("ok      $name ($((SECONDS - start)) s)")
    else
        failed=$((failed + 1))
        report+=("FAILED  $name ($((SECONDS - start)) s)")
    fi
}

# skipped NAME REASON: reports a step that cannot run here. It is not counted.
skipped() { report+=("--      $1 ($2)"); }

# Prints the report and, as the last line, "N passed, N failed". Succeeds if at least one step ran and
# all steps passed.
summary() {
    say "summary"
    [ ${#report[@]} = 0 ] || printf '%s\n' "${report[@]}"
    printf '%s passed, %s failed\n' "$passed" "$failed"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}
