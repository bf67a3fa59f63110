#!/usr/bin/env bash
# The run of the command-line tools, pulsar-client and pulsar-perf, through the scenarios: `scenarios.sh NAME…` with PULSAR_URL, PULSAR_HOME, and
# PULSAR_TOKEN where a token is needed.
#
# Prints one line per scenario: `ok NAME`, `FAIL NAME reason`, or `absent NAME reason` where the tools cannot ask for it. What each scenario means
# stands in the list of `cargo xtask clients`.
set -uo pipefail

# A tool starts in 2 s on a quiet machine; this is how long one may take altogether.
LIMIT=${LIMIT:-60}
CROWD=200000
FOLDER=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$FOLDER"' EXIT
export PULSAR_MEM="-Xmx256m" PULSAR_LOG_DIR="$FOLDER/logs" PULSAR_GC_LOG="-Xlog:disable" PULSAR_EXTRA_OPTS=""

auth() { [ -z "${PULSAR_TOKEN:-}" ] || echo "--auth-plugin org.apache.pulsar.client.impl.auth.AuthenticationToken --auth-params token:$PULSAR_TOKEN"; }
# shellcheck disable=SC2046 # The options are words.
client() { timeout "$LIMIT" "$PULSAR_HOME/bin/pulsar-client" --url "$PULSAR_URL" $(auth) "$@"; }
perf() { local command=$1; shift; timeout "$LIMIT" "$PULSAR_HOME/bin/pulsar-perf" "$command" --service-url "$PULSAR_URL" "$@"; }

fail() { echo "FAIL $NAME $*"; return 1; }

# Starts a command that subscribes, and waits until it has: later messages are then for it. Its output goes to a file.
subscribe() {
    local output=$1; shift
    "$@" >"$output" 2>&1 &
    SUBSCRIBER=$!
    for _ in $(seq $((LIMIT * 10))); do
        grep -q -e "Subscribed to topic" -e "Start receiving" "$output" && return 0
        kill -0 "$SUBSCRIBER" 2>/dev/null || break
        sleep 0.1
    done
    fail "no subscription: $(tail -n 1 "$output")"
}

# What came after the subscription, or why nothing did.
ended() { wait "$SUBSCRIBER" || fail "the consumer ended with $?: $(tail -n 1 "$FOLDER/consumed")"; }
produced() { "$@" >"$FOLDER/produced" 2>&1 || fail "$* ended with $?: $(tail -n 1 "$FOLDER/produced")"; }
contents() { sed -n 's/.*content:\(.*\)$/\1/p' "$FOLDER/consumed" | tr '\n' ' '; }

expect() {
    local found=$1 expected=$2
    [ "$found" = "$expected" ] || fail "$found instead of $expected"
}

keys_and_properties() {
    subscribe "$FOLDER/consumed" client consume -s s -n 1 "$TOPIC" &&
        produced client produce -k k1 -p n=7 -m grün "$TOPIC" && ended || return
    grep -q 'key:\[k1\], properties:\[n=7\], content:grün$' "$FOLDER/consumed" || fail "$(tail -n 3 "$FOLDER/consumed")"
}

# So many messages by pulsar-perf to a consumer of its own, which ends when it has them.
crowd() {
    local count=$1 kind=$2 consumers=$3; shift 3
    subscribe "$FOLDER/consumed" perf consume -ss s -st "$kind" -n "$consumers" -m "$count" "$TOPIC" &&
        produced perf produce -m "$count" -s 100 -r 1000000 "$@" "$TOPIC" && ended || return
    expect "$(sed -n 's/.*Aggregated throughput stats --- \([0-9]*\) records received.*/\1/p' "$FOLDER/consumed")" "$count"
}

# Ten messages to a consumer of that kind, in order.
in_order() {
    subscribe "$FOLDER/consumed" client consume -s s -t "$1" -n 10 "$TOPIC" &&
        produced client produce -m "0,1,2,3,4,5,6,7,8,9" "$TOPIC" && ended && expect "$(contents)" "0 1 2 3 4 5 6 7 8 9 "
}

pattern() {
    produced client produce -m first "$TOPIC-a" &&
        subscribe "$FOLDER/consumed" client consume -s s --regex -n 1 "$TOPIC-.*" &&
        produced client produce -m second "$TOPIC-a" && ended && expect "$(contents)" "second "
}

oversized() {
    head -c $((5 * 1024 * 1024 + 1)) /dev/zero >"$FOLDER/big"
    client produce -f "$FOLDER/big" "$TOPIC" >"$FOLDER/produced" 2>&1 && { fail "not refused"; return; }
    grep -q "InvalidMessageException" "$FOLDER/produced" || fail "$(tail -n 1 "$FOLDER/produced")"
}

reader() {
    subscribe "$FOLDER/consumed" client read -n 3 "$TOPIC" &&
        produced client produce -m "0,1,2" "$TOPIC" && ended && expect "$(contents)" "0 1 2 "
}

exclusive_conflict() {
    subscribe "$FOLDER/consumed" client consume -s s -n 1 "$TOPIC" || return
    client consume -s s -n 1 "$TOPIC" >"$FOLDER/second" 2>&1 && { fail "not refused"; return; }
    grep -q "ConsumerBusyException" "$FOLDER/second" || { fail "$(tail -n 1 "$FOLDER/second")"; return; }
    produced client produce -m kept "$TOPIC" && ended && expect "$(contents)" "kept "
}

refused() {
    PULSAR_TOKEN=$1 client produce -m x "$TOPIC" >"$FOLDER/produced" 2>&1 && { fail "not refused"; return; }
    grep -q "AuthenticationException" "$FOLDER/produced" || fail "$(tail -n 1 "$FOLDER/produced")"
}

for NAME in "$@"; do
    TOPIC="persistent://public/default/tools-$NAME-$(date +%s%N)"
    case $NAME in
        keys-and-properties) keys_and_properties ;;
        batches) crowd 1000 Exclusive 1 -b 1000 ;;
        compression-*) kind=${NAME#compression-}; crowd 1000 Exclusive 1 -z "$(echo "$kind" | tr '[:lower:]' '[:upper:]')" ;;
        exclusive) in_order Exclusive ;;
        shared) crowd 1000 Shared 2 ;;
        failover) in_order Failover ;;
        key-shared) in_order Key_Shared ;;
        pattern) pattern ;;
        shared-200k) crowd $CROWD Shared 2 ;;
        oversized) oversized ;;
        exclusive-conflict) exclusive_conflict ;;
        reader) reader ;;
        token-right) in_order Exclusive ;;
        token-wrong) refused wrong ;;
        token-none) refused "" ;;
        *) echo "absent $NAME the tools have no option for it"; continue ;;
    esac && echo "ok $NAME"
done
