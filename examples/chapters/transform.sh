# Writes a chapter in capitals. The lines `!fail`, `!hang`, `!slow` and `!eat` in it make the worker do so: see examples/chapters/trouble.
set -e
chapter=$(cd in/data && find . -type f | sed 's|^\./||')
echo "chapter $chapter, attempt $LEAT_ATTEMPT"
case $(grep -m 1 '^!' "in/data/$chapter" || true) in
'!fail') echo "this chapter cannot be read" >&2 && exit 3 ;;
'!hang') sleep 100000 ;;
'!slow') sleep 6 ;;
'!eat') exec python3 -c 'import time
held = []
while True:
    held.append(bytearray(4 << 20))
    time.sleep(0.01)' ;;
esac
mkdir -p "out/data/$(dirname "$chapter")"
tr '[:lower:]' '[:upper:]' <"in/data/$chapter" >"out/data/$chapter"
words=$(wc -w <"in/data/$chapter" | tr -d ' ')
printf '{"data": {"words": %s}, "files": ["%s"]}' "$words" "$chapter" >out/events/1.json
